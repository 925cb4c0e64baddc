import json
import mmap
import os
import sys
import types
from importlib import import_module

import pytest
import torch

from theodolite.datamodules.sbm_datamodule import SBMDataset
from theodolite.modules.community import LGNN
from theodolite.scripts import bench
from theodolite.scripts.benchmarks.line_graph import DenseOperators, dense_scores
from theodolite.scripts.benchmarks.timing import isolated, median_times, peak_bytes, peak_growth, row


@pytest.fixture
def fake(monkeypatch):
    def _fake(name, run):
        module = types.ModuleType(name)
        module.run = run
        monkeypatch.setitem(sys.modules, f"theodolite.scripts.benchmarks.{name}", module)

    return _fake


def test_dense_reference_computes_the_same_function():
    torch.manual_seed(0)
    graph = SBMDataset([(0.0, 12.0)], 60, num_classes=5, num_graphs=1, split="train")[0]
    network = LGNN(num_classes=5, width=4, depth=3)
    expected = network(graph)
    torch.testing.assert_close(dense_scores(network, DenseOperators(graph)), expected, rtol=1e-3, atol=1e-4)


def test_rows_compare_with_their_bound():
    assert row("a", 20.0, "x", at_least=20) == {"name": "a", "value": 20.0, "unit": "x", "bound": ">= 20", "met": True}
    assert not row("a", 19.99, "x", at_least=20)["met"]
    assert row("a", 8.0, "GB", at_most=8)["met"]
    assert not row("a", float("nan"), "GB", at_most=8)["met"]
    assert row("a", 1.0, "s")["met"] is None


def test_times_are_interleaved():
    calls = []
    times = median_times({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert calls == ["a", "b"] * 3
    assert set(times) == {"a", "b"}


def test_peak_growth_counts_what_was_freed_again_and_not_what_was_before():
    def fill(megabytes):
        with mmap.mmap(-1, megabytes * 2**20) as pages:  # new pages: malloc could reuse what other tests have freed
            for _ in range(megabytes):
                pages.write(b"x" * 2**20)

    fill(96)
    growth = peak_growth(lambda: fill(64))
    assert 60 * 2**20 < growth < 72 * 2**20


def test_isolated_process_has_a_peak_of_its_own():
    block = bytearray(b"x") * (512 * 2**20)
    code = "__import__('theodolite.scripts.benchmarks.timing', fromlist=['x']).peak_bytes()"
    assert isolated(eval, code) < 256 * 2**20
    assert len(block) < peak_bytes()


def test_isolated_process_that_dies_is_named():
    with pytest.raises(RuntimeError, match=r"_exit ended with code 3"):
        isolated(os._exit, 3)


def test_json_has_every_row_and_a_missed_bound_is_exit_code_1(fake, capsys):
    fake("scale", lambda: [row("a", 3.0, "x", at_most=12), row("b", 1.0, "s")])
    fake("ddp", lambda: [row("c", 1.0, "x", at_least=1.8)])
    assert bench.main(["scale", "--json"]) == 0
    assert [entry["met"] for entry in json.loads(capsys.readouterr().out)] == [True, None]
    assert bench.main(["scale", "ddp"]) == 1
    out = capsys.readouterr().out
    assert "missed" in out
    assert ">= 1.8" in out


def test_failing_benchmark_is_named_and_the_others_run(fake, capsys):
    def fail():
        msg = "killed"
        raise RuntimeError(msg)

    fake("scale", fail)
    fake("ddp", lambda: [row("c", 2.0, "x", at_least=1.8)])
    assert bench.main(["scale", "ddp", "--json"]) == 1
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)) == 1
    assert "benchmark scale failed: killed" in captured.err


def test_written_figures_replace_those_of_the_same_benchmark_only(fake, tmp_path, monkeypatch):
    monkeypatch.setattr("theodolite.scripts.results.checkout", lambda folder: tmp_path)
    claim = {"id": "claim", "setting": "scale", "metric": "m", "measured": 1.0, "stderr": None, "published": None}
    claim |= {"seeds": [0], "met": None, "seconds": 1.0, "threads": 1, "commit": "c", "date": "d"}
    (tmp_path / "RESULTS.json").write_text(json.dumps([claim]))
    fake("scale", lambda: [row("a", 3.0, "x", at_most=12), row("old", 1.0, "s")])
    fake("ddp", lambda: [row("c", 2.0, "x", at_least=1.8)])
    assert bench.main(["scale", "ddp", "--write"]) == 0
    fake("scale", lambda: [row("a", 4.0, "x", at_most=12)])
    assert bench.main(["scale", "--write"]) == 0
    entries = json.loads((tmp_path / "RESULTS.json").read_text())
    assert {(entry["id"], entry["metric"], entry["measured"]) for entry in entries} == {
        ("claim", "m", 1.0), ("bench", "a", 4.0), ("bench", "c", 2.0)}  # fmt: skip
    assert "## Speed" in (tmp_path / "RESULTS.md").read_text()


def test_environment_is_left_as_found(fake, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    seen = []
    fake("scale", lambda: seen.append(os.environ["PYTHONWARNINGS"]) or [])
    assert bench.main(["scale", "--json"]) == 0
    assert "ignore" in seen[0]
    assert os.environ["PYTHONWARNINGS"] == "error"


def test_unknown_benchmark_is_refused_with_the_choices(capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["scael"])
    assert "no benchmark is called 'scael'; there are sampler, line_graph" in capsys.readouterr().err


def test_every_benchmark_can_be_imported():
    for name in bench.BENCHMARKS:
        assert callable(import_module(f"theodolite.scripts.benchmarks.{name}").run)
