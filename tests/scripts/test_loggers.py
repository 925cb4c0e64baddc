"""The CSV file and the W&B run hold what was logged, and neither ends a run."""

import csv
import json
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from theodolite.scripts.checkpointing import AtomicCheckpointIO
from theodolite.scripts.loggers import MetricsFile, RunWandbLogger, wandb_mode


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_file_gains_columns_and_keeps_rows(tmp_path):
    file = MetricsFile()
    file.log_metrics({"train/loss": torch.tensor(0.5), "epoch": 0}, 1)
    file.save()  # no file yet: the row waits
    file.open(tmp_path / "metrics.csv")
    file.save()
    file.log_metrics({"val/overlap": 0.25, "epoch": 0}, 1)
    file.log_metrics({"train/loss": 0.4, "epoch": 1}, 2)
    file.save()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "epoch,step,train/loss,val/overlap",
        "0,1,0.5,",
        "0,1,,0.25",
        "1,2,0.4,",
    ]


def test_metrics_file_continues_after_a_kill_in_the_middle_of_a_row(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,loss\n0,3,1.0\n0,5,0.5\n1,8,0.2\n1,1")
    file = MetricsFile()
    file.open(path)
    file.truncate(6)
    file.log_metrics({"loss": 0.25, "epoch": 1}, 7)
    file.save()
    assert path.read_text() == "epoch,step,loss\n0,3,1.0\n0,5,0.5\n1,7,0.25\n"


@contextmanager
def full_disk():
    """Let no file grow beyond 2 kB: the system then refuses to write, as on a full disk.

    For single calls, not for a whole test: pytest's own output may go to a file too.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_keeps_the_checkpoint_before_and_warns_once(tmp_path):
    io = AtomicCheckpointIO()
    path = tmp_path / "checkpoints" / "last.ckpt"
    io.save_checkpoint({"state_dict": {"w": torch.ones(2)}}, path)
    big = {"state_dict": {"w": torch.zeros(100_000)}}
    with pytest.warns(UserWarning, match=r"last\.ckpt could not be written.*[Tt]raining goes on"), full_disk():
        io.save_checkpoint(big, path)
    with full_disk():
        io.save_checkpoint(big, path)  # not again: warnings are errors here
    io.remove_checkpoint(path)  # nothing took its place
    assert torch.equal(io.load_checkpoint(path)["state_dict"]["w"], torch.ones(2))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_full_disk_keeps_metrics_for_later(tmp_path):
    file = MetricsFile()
    file.open(tmp_path / "metrics.csv")
    file.log_metrics({f"key_{i}": i for i in range(500)}, 1)
    with pytest.warns(UserWarning, match="metrics.csv could not be written"), full_disk():
        file.save()
    file.log_metrics({"key_0": 7}, 2)
    file.save()
    assert [row["key_0"] for row in rows(tmp_path / "metrics.csv")] == ["0", "7"]


def test_checkpoint_that_runs_code_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "code": subprocess.Popen}, path)
    with pytest.raises(ValueError, match=r"evil\.ckpt cannot be read"):
        AtomicCheckpointIO().load_checkpoint(path)


@pytest.mark.parametrize(
    ("flag", "variable", "key", "mode"),
    [
        ("auto", None, None, "offline"),
        ("auto", None, "x" * 40, "online"),
        ("auto", "offline", "x" * 40, "offline"),
        ("auto", "disabled", None, "disabled"),
        ("online", "offline", None, "online"),
        ("offline", "online", "x" * 40, "offline"),
        ("disabled", "online", "x" * 40, "disabled"),
    ],
)
def test_wandb_mode(monkeypatch, tmp_path, flag, variable, key, mode):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in (("WANDB_MODE", variable), ("WANDB_API_KEY", key)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert wandb_mode(flag) == mode


def test_wandb_mode_finds_the_key_that_wandb_login_stored(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password " + "x" * 40 + "\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode("auto") == "offline"


def test_dead_network_falls_back_to_an_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    run = tmp_path / "experiment" / "run1"
    run.mkdir(parents=True)
    logger = RunWandbLogger(run, mode="online", project="p", job_type="fit", init_timeout=1.0)
    assert not list(run.iterdir())
    logger.log_metrics({"before": 1.0}, 0)  # swallowed: the directory is not bound yet
    logger.bind(run)
    with pytest.warns(UserWarning, match="W&B: it could not start online.*The run goes on"):
        logger.log_metrics({"train/loss": 0.5}, 3)
    assert logger.mode == "offline"
    logger.finish(0)
    assert json.loads(inspect(run, "--summary"))["summary"]["train/loss"] == 0.5


def test_failure_while_logging_warns_once(tmp_path):
    run = tmp_path / "experiment" / "run2"
    run.mkdir(parents=True)
    logger = RunWandbLogger(run, mode="offline", project="p", job_type="fit")
    logger.bind(run)
    logger.experiment.finish()  # as if W&B's process had died
    with pytest.warns(UserWarning, match="W&B: log_metrics failed"):
        logger.log_metrics({"train/loss": 0.5}, 3)
    logger.log_metrics({"train/loss": 0.5}, 4)
    logger.log_image("figure", [str(tmp_path / "absent.png")])
    logger.finish(0)


def inspect(run: Path, *options: str) -> str:
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    tool = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", *options, "--json", str(file)]
    return subprocess.run(tool, check=True, capture_output=True, text=True).stdout


def test_wandb_run_read_back_shows_config_scalars_figure_and_table(tiny):
    options = ["--test_after_fit", "true", "--log_checkpoints", "true", "--experiment", "draws"]
    assert tiny("fit", *options, "--trainer.callbacks+=tiny_run.Draws", wandb="offline") == 0
    (run,) = Path("runs/draws").iterdir()
    read = json.loads(inspect(run, "--summary"))
    assert (read["run_id"], read["state"], read["exit_code"]) == (run.name, "finished", 0)
    assert read["config"]["model"]["init_args"]["width"] == 4
    (tested,) = [row for row in rows(run / "metrics.csv") if row["test/loss"]]
    assert read["summary"]["test/loss"] == pytest.approx(float(tested["test/loss"]))
    assert read["summary"]["test/curve"]["_type"] == "images/separated"
    assert (read["summary"]["test/table"]["ncols"], read["summary"]["test/table"]["nrows"]) == (2, 2)

    records = [json.loads(line) for line in inspect(run).splitlines()]
    logged = [r["history"]["item"] for r in records if r["type"] == "history"]
    losses = [(row["trainer/global_step"], row["val/loss"]) for row in logged if "val/loss" in row]
    expected = [(int(row["step"]), float(row["val/loss"])) for row in rows(run / "metrics.csv") if row["val/loss"]]
    assert losses == [(step, pytest.approx(loss)) for step, loss in expected]
    assert len(losses) == 3
    models = [r["artifact"] for r in records if r["type"] == "artifact" and r["artifact"]["type"] == "model"]
    assert ["best" in model["aliases"] for model in models] == [True]
    assert "best.ckpt" in models[0]["metadata"]
