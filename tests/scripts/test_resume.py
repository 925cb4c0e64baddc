"""A run that was stopped and resumed ends with the same bits as one that was not."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from theodolite.scripts.main import main


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def only_run(experiment: str) -> Path:
    (run,) = Path("runs", experiment).iterdir()
    return run


def column(run: Path, key: str) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row[key] for row in csv.DictReader(file)]


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("last", "best"):
        wa, wb = weights(a, name), weights(b, name)
        assert wa.keys() == wb.keys()
        assert all(torch.equal(wa[key], wb[key]) for key in wa), name
    assert (a / "metrics.csv").read_text() == (b / "metrics.csv").read_text()


@pytest.mark.parametrize("step", [3, 6, 14], ids=["before the first checkpoint", "at an epoch's start", "mid-epoch"])
def test_resume_after_failure_equals_uninterrupted(tiny, step):
    assert tiny("fit", "--experiment", "whole") == 0
    assert tiny("fit", "--experiment", "cut", "--model.explode_at", str(step)) == 1
    leftover = only_run("cut") / "checkpoints" / ".best.ckpt.tmp"
    leftover.write_bytes(b"half a checkpoint")
    assert tiny("fit", "--experiment", "cut", "--ckpt_path", "last") == 0
    assert not leftover.exists()
    assert_same_run(only_run("whole"), only_run("cut"))
    # the settings of both starts are kept
    assert "explode_at: -1" in (only_run("cut") / "config.resumed-1.yaml").read_text()


@pytest.mark.timeout(900)  # a process of its own, on a busy machine
def test_resume_after_sigkill_equals_uninterrupted(tiny):
    options = ["--trainer.max_epochs", "8"]
    command = [sys.executable, "-m", "theodolite.scripts.main", "fit", "--config", "tiny.yaml", *options]
    environment = {**os.environ, "TINY_STEP_SECONDS": "0.05"}
    environment.pop("WANDB_SERVICE", None)  # another start has a W&B process of its own
    child = subprocess.Popen(
        [*command, "--experiment", "cut"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 600
        while not list(Path().glob("runs/cut/*/checkpoints/last.ckpt")):
            assert child.poll() is None, child.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.12)  # somewhere in the epoch after it
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    finally:
        child.kill()
        child.communicate()
    run = only_run("cut")
    reached = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    assert reached < 7, "the run ended before it was killed"

    assert tiny("fit", *options, "--experiment", "cut", "--ckpt_path", "last", wandb="offline") == 0
    assert tiny("fit", *options, "--experiment", "whole") == 0
    assert only_run("cut") == run
    assert_same_run(only_run("whole"), run)
    # both processes wrote to one W&B run
    assert {path.name for path in run.glob("wandb/offline-run-*/*.wandb")} == {f"run-{run.name}.wandb"}
    assert len(list(run.glob("wandb/offline-run-*"))) == 2


def test_resume_of_a_run_stopped_in_its_final_test_goes_on_to_the_test(tiny):
    assert tiny("fit") == 0
    trained = weights(only_run("tiny"))
    assert tiny("fit", "--test_after_fit", "true", "--ckpt_path", "last") == 0
    assert all(torch.equal(trained[key], value) for key, value in weights(only_run("tiny")).items())
    assert [value != "" for value in column(only_run("tiny"), "test/loss")] == [False] * 6 + [True]


def test_resume_after_the_runs_were_moved(tiny):
    assert tiny("fit", "--experiment", "whole") == 0
    assert tiny("fit", "--experiment", "cut", "--model.explode_at", "14") == 1
    shutil.move("runs", "elsewhere")
    assert tiny("fit", "--experiment", "cut", "--runs_dir", "elsewhere", "--ckpt_path", "last") == 0
    shutil.move("elsewhere", "runs")
    assert_same_run(only_run("whole"), only_run("cut"))


def test_resume_takes_the_newest_run_or_the_named_one(tiny):
    for run_id in ("b", "a"):
        assert tiny("fit", "--run_id", run_id, "--trainer.max_epochs", "1") == 0
    assert tiny("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2") == 0
    epochs = {r: torch.load(f"runs/tiny/{r}/checkpoints/last.ckpt", weights_only=True)["epoch"] for r in "ab"}
    assert epochs == {"a": 1, "b": 0}
    assert tiny("fit", "--ckpt_path", "last", "--run_id", "b", "--trainer.max_epochs", "3") == 0
    assert torch.load("runs/tiny/b/checkpoints/last.ckpt", weights_only=True)["epoch"] == 2


def test_test_run_takes_the_best_checkpoint_of_the_newest_training_run(tiny):
    assert tiny("fit", "--run_id", "trained", "--test_after_fit", "true") == 0
    assert tiny("test", "--run_id", "tested", "--ckpt_path", "best") == 0
    tested, trained = (column(Path("runs", "tiny", run_id), "test/loss") for run_id in ("tested", "trained"))
    assert tested == trained[-1:] != [""]
    # a test run is not one to resume
    assert tiny("test", "--ckpt_path", "last") == 0


def test_config_of_a_run_means_that_runs_checkpoint(tiny):
    assert tiny("fit", "--run_id", "older", "--test_after_fit", "true") == 0
    assert tiny("fit", "--run_id", "newer", "--seed_everything", "5") == 0
    words = ["test", "--config", "runs/tiny/older/config.yaml", "--run_id", "tested", "--wandb", "disabled"]
    assert main([*words, "--ckpt_path", "best"]) == 0
    tested, trained = (column(Path("runs", "tiny", run_id), "test/loss") for run_id in ("tested", "older"))
    assert tested == trained[-1:] != [""]


@pytest.mark.parametrize("command", ["fit", "test"])
def test_last_without_a_run_is_one_line(tiny, capsys, command):
    assert tiny(command, "--ckpt_path", "last") == 2
    assert capsys.readouterr().err == (
        f"theodolite {command}: error: there is no training run in runs/tiny; "
        "start one by `theodolite fit` without --ckpt_path.\n"
    )


def test_truncated_checkpoint_names_the_other_one(tiny, capsys):
    assert tiny("fit") == 0
    folder = only_run("tiny") / "checkpoints"
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert tiny("fit", "--ckpt_path", "last") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(folder / "last.ckpt") in error
    assert f"--ckpt_path {folder / 'best.ckpt'}" in error
    # what it names works, in a run of its own
    assert tiny("fit", "--ckpt_path", str(folder / "best.ckpt"), "--run_id", "other") == 0
