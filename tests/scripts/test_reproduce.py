import json
import math
import subprocess
import sys

import pytest
import yaml
from rich.console import Console

from theodolite.scripts import reproduce as module
from theodolite.scripts.claims import load_claim
from theodolite.scripts.measure import measure, read_metrics
from theodolite.scripts.reproduce import main, reproduce
from theodolite.scripts.results import render, update
from theodolite.scripts.versions import cache_key

# Stands in for the command line: writes the run directory as `theodolite fit` does; overlap is .5 + seed / 10.
CHILD = """
import json, os, signal, sys
from pathlib import Path
words = sys.argv[1:]
option = {words[i]: words[i + 1] for i in range(1, len(words) - 1) if words[i].startswith("--")}
run = Path(option["--runs_dir"], option["--experiment"], option["--run_id"])
run.mkdir(parents=True, exist_ok=True)
with open(run.parent / "calls.txt", "a") as file:
    file.write(json.dumps(words) + "\\n")
print("noise on standard output")
if "--fail" in words:
    sys.exit("boom")
if "--die-once" in words and "--ckpt_path" not in words:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
value = 0.5 + int(option["--data.init_args.seed"]) / 10
(run / "metrics.csv").write_text(
    "epoch,test/overlap,test/overlap_bp,test/overlap_stderr,train/loss\\n"
    f"0,,,,1.5\\n1,0.1,,,\\n1,{value},0.65,0.02,\\n2,,,,1.2\\n"
)
"""
COMPOSED = "model:\n  class_path: theodolite.modules.Absent\nrun_id: null\n"


@pytest.fixture
def child(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return (sys.executable, str(script))


@pytest.fixture
def claim(tmp_path):
    def _claim(overrides=(), runs=None, rows=None):
        (tmp_path / "net.yaml").write_text("model: {}\n")
        content = {
            "id": "toy", "title": "Toy", "source": {"paper": "P"}, "seeds": [0, 1, 3], "budget_minutes": 1,
            "runs": runs or {"net": {"config": "net.yaml", "overrides": list(overrides)}},
            "rows": rows or [
                {"run": "net", "metric": "test/overlap", "setting": "net", "published": 0.6,
                 "target": {"at_least_best_of": ["test/overlap_bp"], "minus": 0.02}},
                {"run": "net", "metric": "test/overlap_bp", "setting": "BP"},
            ],
        }  # fmt: skip
        (tmp_path / "toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_claim(tmp_path / "toy.yaml")

    return _claim


@pytest.fixture
def run(tmp_path, child):
    def _run(claim, **options):
        console = Console(file=(tmp_path / "progress.txt").open("w"), width=200)
        options = {"composer": lambda run: COMPOSED, "child": child, "progress": console} | options
        entries = reproduce(claim, runs_dir=tmp_path / "runs", **options)
        console.file.close()
        calls = tmp_path / "runs" / "reproduce-toy" / "calls.txt"
        words = [json.loads(line) for line in calls.read_text().splitlines()]
        return entries, words, (tmp_path / "progress.txt").read_text()

    return _run


def test_rows_average_the_last_values_over_seeds(claim, run):
    entries, words, progress = run(claim())
    seeds = [0, 1, 3]
    values = [0.5 + seed / 10 for seed in seeds]
    mean = sum(values) / 3
    stderr = math.sqrt(sum((value - mean) ** 2 for value in values) / 2 / 3)
    assert entries[0]["measured"] == pytest.approx(mean)
    assert entries[0]["stderr"] == pytest.approx(stderr)
    assert (entries[0]["verdict"], entries[0]["met"], entries[0]["seeds"]) == ("met", True, seeds)
    assert (entries[1]["verdict"], entries[1]["met"], entries[1]["stderr"]) == ("shown", None, 0)
    assert [call[call.index("--seed_everything") + 1] for call in words] == ["0", "1", "3"]
    assert [call[call.index("--data.init_args.seed") + 1] for call in words] == ["0", "1", "3"]
    assert len({call[call.index("--run_id") + 1] for call in words}) == 3
    assert all("--test_after_fit" in call and "--ckpt_path" not in call for call in words)
    assert "[3/3]" in progress


def test_one_seed_gives_the_standard_error_over_graphs(claim, run):
    entries, words, _ = run(claim(), seeds=1)
    assert (entries[0]["measured"], entries[0]["stderr"], len(words)) == (0.5, 0.02, 1)
    assert (entries[0]["verdict"], entries[0]["met"]) == ("missed", False)


def test_more_seeds_than_the_claim_has_continue_its_list(claim, run):
    entries, _, _ = run(claim(), seeds=5)
    assert entries[0]["seeds"] == [0, 1, 3, 4, 5]


def test_second_time_comes_from_the_cache_and_says_so(claim, run):
    first, _, _ = run(claim())
    second, words, progress = run(claim())
    assert len(words) == 3
    assert second == first
    assert f"cached, measured {first[0]['date']}" in progress


def test_changed_config_is_measured_again(claim, run):
    run(claim())
    _, words, _ = run(claim(), composer=lambda run: COMPOSED + "trainer:\n  max_epochs: 3\n")
    assert len(words) == 6


def test_killed_run_is_resumed_in_its_directory(claim, run):
    entries, _, progress = run(claim(["--die-once"]), seeds=1)
    assert entries[0]["verdict"] == "failed"
    assert "ended with code -9" in progress
    entries, words, _ = run(claim(["--die-once"]), seeds=1)
    assert entries[0]["measured"] == 0.5
    assert words[1] == [*words[0], "--ckpt_path", "last"]


def test_failing_run_leaves_the_others_and_is_named(claim, run):
    runs = {"bad": {"config": "net.yaml", "overrides": ["--fail"]}, "net": {"config": "net.yaml", "command": "test"}}
    rows = [{"run": name, "metric": "test/overlap", "setting": name} for name in runs]
    entries, words, progress = run(claim(runs=runs, rows=rows))
    assert [entry["verdict"] for entry in entries] == ["failed", "shown"]
    assert entries[0]["measured"] is None
    assert "toy bad, seed 0 failed: `theodolite fit --config" in progress
    assert [call[0] for call in words] == ["fit"] * 3 + ["test"] * 3
    assert all("--test_after_fit" not in call for call in words[3:])


def test_metric_that_was_not_logged_fails_and_lists_those_that_were(claim, run):
    entries, _, progress = run(claim(rows=[{"run": "net", "metric": "test/overlap_bpp", "setting": "s"}]), seeds=1)
    assert entries[0]["verdict"] == "failed"
    assert "run net has no test/overlap_bpp; it has test/overlap, test/overlap_bp" in progress


def test_child_output_stays_off_standard_output(claim, child, tmp_path, capfd):
    measure(claim().runs["net"], tmp_path / "runs" / "e" / "r", 0, child)
    out, err = capfd.readouterr()
    assert out == ""
    assert "noise" in err


def test_metrics_without_test_values_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    with pytest.raises(RuntimeError, match="wrote no"):
        read_metrics(path)
    path.write_text("epoch,train/loss\n0,1.0\n")
    with pytest.raises(RuntimeError, match="holds no test/ metric"):
        read_metrics(path)


def test_cache_key_ignores_places_and_sees_code_config_and_command(tmp_path):
    source = tmp_path / "modules" / "nets.py"
    source.parent.mkdir()
    source.write_text("class Net: ...")
    config = "model: {class_path: theodolite.modules.Net}\n"
    keys = [cache_key(config + "run_id: a\n", "fit", tmp_path), cache_key(config + "run_id: b\n", "fit", tmp_path)]
    keys += [cache_key(config, "test", tmp_path), cache_key(config + "trainer: {max_epochs: 2}", "fit", tmp_path)]
    source.write_text("class Net: pass")
    keys += [cache_key(config, "fit", tmp_path)]
    (source.parent / "other.py").write_text("class Other: ...")
    keys += [cache_key(config, "fit", tmp_path)]
    assert keys[0] == keys[1]
    assert keys[4] == keys[5]
    assert len(set(keys)) == 4


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def _entry(**fields):
    return {
        "id": "a", "metric": "test/overlap", "setting": "s", "published": 0.2, "published_error": 0.015,
        "measured": 0.25, "stderr": 0.01, "seeds": [0], "met": True, "seconds": 61.4, "threads": 2, "commit": "abc",
        "date": "2026-01-01", "target": "> 0.2", "verdict": "met", "title": "T", "source": "P",
    } | fields  # fmt: skip


def _same(old, new):
    return old["id"] == new["id"]


def test_written_results_keep_other_claims_and_replace_their_own(checkout):
    update(checkout, [_entry(id="b"), _entry(id="a"), _entry(id="bench", metric="ratio")], _same)
    nested = checkout / "scripts"
    nested.mkdir()
    text, data = update(nested, [_entry(id="b", measured=0.1, met=False, verdict="missed")], _same)
    assert text.parent == data.parent == checkout
    entries = json.loads(data.read_text())
    assert [(entry["id"], entry["measured"]) for entry in entries] == [("a", 0.25), ("b", 0.1), ("bench", 0.25)]
    page = text.read_text()
    assert page == render(entries)
    assert "| s | `test/overlap` | 0.200 +- 0.015 | 0.100 +- 0.010 | > 0.2 | missed | 61 |" in page
    assert page.index("## a") < page.index("## b") < page.index("## Speed")


def test_broken_results_are_not_overwritten(checkout):
    (checkout / "RESULTS.json").write_text("[")
    with pytest.raises(ValueError, match=r"RESULTS.json is no valid JSON"):
        update(checkout, [_entry()], _same)
    assert (checkout / "RESULTS.json").read_text() == "["


def test_write_outside_a_checkout_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(FileNotFoundError, match="change into the repository"):
        update(tmp_path, [_entry()], _same)


@pytest.mark.parametrize(
    ("words", "message"),
    [(["no-such-claim"], "no claim is called 'no-such-claim'"), (["absent.yaml"], "no claim at absent.yaml")],
)
def test_unknown_claim_is_one_line_and_code_2(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("theodolite reproduce: error:")
    assert message in error
    assert "\n" not in error


def test_seeds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["--list", "--seeds", "0"])
    assert "give an integer >= 1" in capsys.readouterr().err


def test_list_as_json_names_every_claim(capsys):
    assert main(["--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [claim["id"] for claim in listed] == list(module.load_claims())


def test_main_prints_and_writes_what_was_measured(claim, child, checkout, monkeypatch, capfd):
    claim()
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(module, "CHILD", child)
    monkeypatch.setattr(module, "compose", lambda run: COMPOSED)
    assert main(["toy.yaml", "--json", "--write"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == json.loads((checkout / "RESULTS.json").read_text())
    assert "RESULTS.md" in err
    assert main(["toy.yaml", "--seeds", "1"]) == 0
    assert "missed" in capfd.readouterr().out
