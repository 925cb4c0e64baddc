import dataclasses
import json
import math
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import yaml
from rich.console import Console

from theodolite.scripts import reproduce as module
from theodolite.scripts.claim_figure import read_curve
from theodolite.scripts.claims import Curves, load_claim
from theodolite.scripts.measure import measure, read_metrics
from theodolite.scripts.reproduce import main, reproduce

# Stands in for the command line: writes the run directory as `theodolite fit` does; overlap is .5 + seed / 10.
CHILD = """
import json, os, signal, sys, time
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
if "--meet" in words:  # stays until another run, that only one beside it can be, has come too
    deadline = time.monotonic() + 60
    while len(list(run.parent.glob("net-*"))) < 2:
        sys.exit("alone") if time.monotonic() > deadline else time.sleep(0.05)
if "--die-once" in words and "--ckpt_path" not in words:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if "--save" in words:
    (run / "checkpoints").mkdir(exist_ok=True)
    (run / "checkpoints" / f"{option['--save']}.ckpt").touch()
value = 0.5 + int(option["--data.init_args.seed"]) / 10
(run / "metrics.csv").write_text(
    "epoch,test/overlap,test/overlap_bp,test/overlap_stderr,train/loss\\n"
    f"0,,,,1.5\\n1,0.1,,,\\n1,{value},0.65,0.02,\\n2,,,,1.2\\n"
)
"""
COMPOSED = """
model:
  class_path: theodolite.modules.Absent
data:
  class_path: theodolite.datamodules.Absent
  init_args:
    seed: 0
run_id: null
"""


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


def test_given_data_get_no_seed(run, claim):
    _, words, _ = run(claim(), composer=lambda run: COMPOSED.replace("seed: 0", "path: here"))
    assert not any("--data.init_args.seed" in line for line in words)
    _, words, _ = run(claim())
    assert any("--data.init_args.seed" in line for line in words)


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


def test_page_of_figures_has_a_line_for_each_seed(claim, run, tmp_path):
    curves = Curves("epoch", ("train/absent", "train/loss"))
    entries, _, progress = run(dataclasses.replace(claim(), figure=curves))
    page = tmp_path / "runs" / "reproduce-toy" / "figure.png"
    assert f"Figure: {page}" in progress
    assert page.read_bytes().startswith(b"\x89PNG")
    (folder, *_) = sorted(page.parent.glob("net-*"))
    assert read_curve(folder / "metrics.csv", curves) == ("train/loss", [0.0, 2.0], [1.5, 1.2])
    assert read_curve(folder / "metrics.csv", Curves("epoch", ("train/absent",))) is None


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


def chain(source=("--save", "best"), words=("--data.checkpoint", "{source}")):
    """Give runs of which the first in the file needs the second's checkpoint, and a row of the first."""
    runs = {"made": {"config": "net.yaml", "command": "test", "overrides": list(words)},
            "source": {"config": "net.yaml", "overrides": list(source)}}  # fmt: skip
    return {"runs": runs, "rows": [{"run": "made", "metric": "test/overlap", "setting": "made"}]}


def composed(run):
    return COMPOSED + yaml.safe_dump({"words": list(run.overrides)})


def test_a_run_takes_the_checkpoint_of_another_of_the_same_seed(claim, run, tmp_path):
    entries, words, _ = run(claim(**chain()), seeds=2, composer=composed)
    assert entries[0]["verdict"] == "shown"
    assert [call[0] for call in words] == ["fit"] * 2 + ["test"] * 2
    for source, made in zip(words[:2], words[2:], strict=True):
        folder = tmp_path / "runs" / "reproduce-toy" / source[source.index("--run_id") + 1]
        assert made[made.index("--data.checkpoint") + 1] == str(folder / "checkpoints" / "best.ckpt")
    _, words, _ = run(claim(**chain()), seeds=2, composer=composed)
    assert len(words) == 4  # all cached


def test_runs_at_once_give_what_runs_in_turn_do(claim, run, tmp_path):
    in_turn, _, _ = run(claim(**chain()), composer=composed)
    shutil.rmtree(tmp_path / "runs")
    at_once, words, _ = run(claim(**chain()), composer=composed, jobs=3)
    assert len(words) == 6
    assert [entry | {"seconds": 0} for entry in at_once] == [entry | {"seconds": 0} for entry in in_turn]


def test_two_jobs_run_beside_each_other(claim, run):
    entries, _, _ = run(claim(["--meet", "yes"]), seeds=2, jobs=2)
    assert entries[0]["verdict"] != "failed"


def test_a_run_that_waits_for_another_holds_up_no_worker(claim, run):
    more = chain(("--save", "best", "--meet"))  # the source stays until two others, which need nothing, have come
    names = ["net", "net-b"]
    runs = more["runs"] | {name: {"config": "net.yaml", "overrides": ["--name", name]} for name in names}
    rows = more["rows"] + [{"run": name, "metric": "test/overlap", "setting": name} for name in names]
    entries, _, _ = run(claim(runs=runs, rows=rows), seeds=1, composer=composed, jobs=2)
    assert [entry["verdict"] for entry in entries] == ["shown"] * 3


def test_the_last_checkpoint_and_the_seed_are_filled_in(claim, run):
    words = ("--ckpt_path", "{source:last}", "--data.split_seed", "{seed}")
    _, calls, _ = run(claim(**chain(("--save", "last"), words)), seeds=2, composer=composed)
    assert [call[call.index("--data.split_seed") + 1] for call in calls[2:]] == ["0", "1"]
    assert all(call[call.index("--ckpt_path") + 1].endswith("checkpoints/last.ckpt") for call in calls[2:])


@pytest.mark.parametrize("words", [("--data.checkpoint", "{source}"), ("--ckpt_path", "{source}")])
def test_a_changed_source_makes_what_depends_on_it_new(claim, run, words):
    def of_path(run):  # as --print_config, whose ckpt_path the key leaves out
        kept = [word for word in run.overrides if not word.endswith(".ckpt") or "--ckpt_path" not in run.overrides]
        return COMPOSED + yaml.safe_dump({"words": kept})

    run(claim(**chain(words=words)), seeds=1, composer=of_path)
    _, calls, _ = run(claim(**chain(("--save", "best", "--more"), words)), seeds=1, composer=of_path)
    assert [call[0] for call in calls] == ["fit", "test"] * 2


@pytest.mark.parametrize(
    ("source", "reason"),
    [(("--fail",), "it needs a checkpoint of the run source, which failed"),
     (("--save", "other"), "it needs the best checkpoint of the run source, but")],
)  # fmt: skip
def test_without_the_checkpoint_it_needs_a_run_fails_by_name(claim, run, source, reason):
    entries, calls, progress = run(claim(**chain(source)), seeds=1, composer=composed)
    assert entries[0]["verdict"] == "failed"
    assert f"toy made, seed 0 failed: {reason}" in progress
    assert [call[0] for call in calls] == ["fit"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_claim_that_needs_a_gpu_is_refused_in_one_line_and_listed_so(claim, tmp_path, monkeypatch, capsys):
    claim()
    path = tmp_path / "toy.yaml"
    path.write_text(path.read_text() + "gpu: true\n")
    assert main([str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("theodolite reproduce: error: toy would take days without a GPU")
    monkeypatch.setattr(module, "load_claims", lambda: {"toy": load_claim(path)})
    assert main(["--list"]) == 0
    assert "1 on a GPU" in capsys.readouterr().out


def test_killed_run_is_resumed_in_its_directory(claim, run):
    entries, _, progress = run(claim(["--die-once"]), seeds=1)
    assert entries[0]["verdict"] == "failed"
    assert "ended with code -9" in progress
    entries, words, _ = run(claim(["--die-once"]), seeds=1)
    assert entries[0]["measured"] == 0.5
    assert words[1] == [*words[0], "--ckpt_path", "last"]


def test_a_run_may_have_a_seed_of_its_own(claim, run):
    _, words, _ = run(claim(["--seed_everything", "10{seed}"]), seeds=2, composer=lambda run: "data: {}")
    given = [[value for option, value in pairwise(call) if option == "--seed_everything"] for call in words]
    assert given == [["0", "100"], ["1", "101"]]  # of several the last one counts


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
    with pytest.raises(RuntimeError, match="holds no val/ metric"):
        read_metrics(path, "val")
    path.write_text("epoch,val/accuracy\n0,0.5\n")
    assert read_metrics(path, "val") == {"val/accuracy": 0.5}


@pytest.fixture
def checkout(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


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
    assert "must be an integer >= 1" in capsys.readouterr().err


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


def test_where_nothing_can_be_written_nothing_is_run(claim, tmp_path, monkeypatch, capfd):
    claim()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "reproduce", None)
    assert main(["toy.yaml", "--write"]) == 2
    assert "is in none" in capfd.readouterr().err
