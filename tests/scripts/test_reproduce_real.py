"""``theodolite reproduce`` with real runs, each in a process of its own."""

import json

import pytest
import yaml

from theodolite.scripts.reproduce import main


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Write a claim of real runs that take a second each, beside the start of their processes."""
    config = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        "model": {"class_path": "CommunityDetection", "init_args": {
            "network": {"class_path": "GNN", "init_args": {"width": 2, "depth": 1, "power": 1}}}},
        "data": {"class_path": "SBMDataModule", "init_args": {
            "num_nodes": 20, "pairs": [[6, 1]], "train_graphs": 2, "val_graphs": 1, "test_graphs": 2}},
    }  # fmt: skip
    baseline = {**config, "model": {"class_path": "CommunityDetection", "init_args": {"network": {
        "class_path": "BetheHessian"}}}}  # fmt: skip
    runs = {
        "gnn": {"config": "gnn.yaml", "overrides": ["--model.init_args.network.init_args.depth", 2]},
        "bethe": {"config": "bethe.yaml", "command": "test"},
        "checked": {
            "config": "gnn.yaml",
            "command": "validate",
            "overrides": ["--ckpt_path", "{gnn}", "--model.init_args.network.init_args.depth", 2],
        },
    }

    def _tiny(*names):
        splits = {name: "val" if runs[name].get("command") == "validate" else "test" for name in names}
        rows = [{"run": name, "metric": f"{split}/overlap", "setting": name} for name, split in splits.items()]
        rows[0]["target"] = {"above_all": [f"{names[-1]}:test/overlap"]}
        claim = {"id": "tiny", "title": "Tiny", "source": {"paper": "P"}, "seeds": [3], "budget_minutes": 1}
        claim |= {"runs": {name: runs[name] for name in names}, "rows": rows}
        for name, content in (("gnn", config), ("bethe", baseline), ("tiny", claim)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    monkeypatch.chdir(tmp_path)
    return _tiny


def test_real_run_is_measured_and_cached(tiny, tmp_path, capfd):
    tiny("gnn")
    assert main(["tiny.yaml", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert 0 <= entry["measured"] <= 1
    (run,) = (tmp_path / "runs" / "reproduce-tiny").iterdir()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["seed_everything"] == saved["data"]["init_args"]["seed"] == 3
    assert saved["model"]["init_args"]["network"]["init_args"]["depth"] == 2
    assert main(["tiny.yaml", "--json"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out) == [entry]
    assert "cached, measured" in captured.err


@pytest.mark.slow
def test_real_runs_beside_a_baseline_go_on_where_they_stopped(tiny, tmp_path, capfd):
    tiny("gnn", "checked", "bethe")
    assert main(["tiny.yaml", "--json"]) == 0
    entries = json.loads(capfd.readouterr().out)
    assert entries[0]["met"] == (entries[0]["measured"] > entries[2]["measured"])
    assert 0 <= entries[1]["measured"] <= 1
    for run in (tmp_path / "runs" / "reproduce-tiny").iterdir():
        (run / "results.json").unlink()  # as if stopped before the result was noted
    assert main(["tiny.yaml", "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert [entry["measured"] for entry in again] == [entry["measured"] for entry in entries]
    assert len(list((tmp_path / "runs" / "reproduce-tiny").iterdir())) == 3


def test_config_that_the_command_line_refuses_is_one_line_and_code_2(tiny, tmp_path, capfd):
    tiny("gnn")
    path = tmp_path / "gnn.yaml"
    path.write_text(path.read_text().replace("depth: 1", "dept: 1"))
    assert main(["tiny.yaml"]) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("theodolite reproduce: error: run gnn:")
    assert "dept" in line
