"""The benchmark of image batches, at a small size."""

from theodolite.scripts.benchmarks import images


def test_loading_is_a_small_part_of_a_step(monkeypatch):
    rows = images.run(repeats=3)
    assert [row["bound"] for row in rows] == ["<= 5"] * 2
    assert all(0 < row["value"] < 25 for row in rows)  # a loaded machine; the bound itself holds for `make bench`
