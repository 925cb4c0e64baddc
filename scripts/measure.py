"""One run of a claim with one seed: started in a process of its own, resumed, cached, and read."""

import contextlib
import csv
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from .claims import Run
from .versions import commit, threads

__all__ = ["CHILD", "Measurement", "compose", "measure", "read_metrics"]

#: How a run is started: each (run, seed) is a process of its own.
CHILD = (sys.executable, "-m", "theodolite.scripts.main")


@dataclass(frozen=True)
class Measurement:
    """What one run with one seed gave: its last value of every metric, and where, when and in what time."""

    metrics: dict[str, float]
    seconds: float
    threads: int
    commit: str
    date: str
    cached: bool = False


def measure(
    run: Run, directory: Path, seed: int, child: Sequence[str] = CHILD, *, seeds_data: bool = True
) -> Measurement:
    """Run one experiment with one seed in a process of its own, unless its directory already holds the result.

    An unfinished directory is resumed from its last checkpoint. The data's seed is set too, so that every seed has
    fresh training and test samples. Time spent in earlier attempts counts, unless those were killed.

    Args:
        run: The experiment.
        directory: Its run directory, ``<runs dir>/<experiment>/<run id>``.
        seed: For the weights and for the data.
        child: The command that is started, before ``fit``, ``validate`` or ``test``.
        seeds_data: Whether the data take a seed; given data do not.

    Raises:
        RuntimeError: The process failed or left no metrics.
    """
    record = directory / "results.json"
    before = json.loads(record.read_text()) if record.is_file() else {"finished": False, "seconds": 0.0}
    if before.pop("finished"):
        return Measurement(**before, cached=True)
    words = [run.command, "--config", str(run.config.resolve())]
    words += ["--experiment", directory.parent.name, "--run_id", directory.name]
    words += ["--runs_dir", str(directory.parent.parent), "--seed_everything", str(seed)]
    words += ["--wandb", "disabled", *(["--data.init_args.seed", str(seed)] if seeds_data else [])]
    words += run.overrides  # after the seed: a run may have one of its own
    resumes = run.command == "fit" and (directory / "checkpoints").is_dir()
    if run.command == "fit":
        words += ["--test_after_fit", "true", *(["--ckpt_path", "last"] if resumes else [])]
    if not resumes and directory.is_dir():
        shutil.rmtree(directory)  # stopped before there was anything to go on from; its name is wanted again
    revision, start, code = commit(), time.monotonic(), None
    try:
        # Both of its streams go to our standard error: standard output is for the results alone.
        code = subprocess.run([*child, *words], stdout=2, check=False).returncode
    finally:
        seconds = before["seconds"] + time.monotonic() - start
        if code != 0 and directory.is_dir():
            record.write_text(json.dumps({"finished": False, "seconds": seconds}))
    if code != 0:
        msg = f"`theodolite {' '.join(words)}` ended with code {code}; its own message is above"
        raise RuntimeError(msg)
    metrics = read_metrics(directory / "metrics.csv", "val" if run.command == "validate" else "test")
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    result = Measurement(metrics, round(seconds, 1), threads(), revision, date)
    content = {name: value for name, value in vars(result).items() if name != "cached"}
    record.write_text(json.dumps({"finished": True, **content}, indent=2))
    return result


def read_metrics(path: Path, split: str = "test") -> dict[str, float]:
    """Read the last value of every metric of a run, in test, validation and training.

    Args:
        path: The ``metrics.csv`` of a run directory.
        split: There must be a metric of it: ``test``, or ``val`` of a run that validates.

    Raises:
        RuntimeError: There is no such file, or no metric of the split in it.
    """
    if not path.is_file():
        msg = f"the run wrote no {path}"
        raise RuntimeError(msg)
    values: dict[str, float] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            values.update({key: float(value) for key, value in row.items() if "/" in key and value})
    if not any(key.startswith(f"{split}/") for key in values):
        hint = ": does its config test at the end (test_after_fit)?" if split == "test" else ""
        msg = f"{path} holds no {split}/ metric{hint}"
        raise RuntimeError(msg)
    return values


def compose(run: Run) -> str:
    """Give a run's full config, defaults and overrides included, as ``--print_config`` prints it.

    Raises:
        ValueError: The command line refuses the config or an override.
    """
    from .main import main as theodolite  # late: `reproduce --list` needs no torch

    words = [run.command, "--config", str(run.config.resolve()), *run.overrides, "--print_config"]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = theodolite(words)
        except SystemExit as exit_:
            code = exit_.code
    if code:
        msg = f"run {run.name}: `theodolite {' '.join(words)}` is refused: {' '.join(err.getvalue().split())}"
        raise ValueError(msg)
    return out.getvalue()
