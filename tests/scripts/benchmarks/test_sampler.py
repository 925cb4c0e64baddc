"""The sampler's benchmark runs on a small graph and judges its own bounds."""

import pytest

from theodolite.scripts.benchmarks import sampler

pytest.importorskip("igraph", minversion="1.0")


def test_rows_compare_with_igraph_and_with_the_size_of_the_result():
    speed, memory, seconds = sampler.run(num_nodes=200_000, repeats=1)
    assert speed["bound"] == ">= 1"
    assert speed["met"] == (speed["value"] >= 1)
    assert memory["bound"] == "<= 4"
    # The result itself is part of the peak of a fresh process (up to pages it already had).
    assert 0.5 < memory["value"] < 4
    assert seconds["met"] is None
    assert seconds["value"] > 0
