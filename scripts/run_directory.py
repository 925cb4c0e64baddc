"""Run directories: ``<runs_dir>/<experiment>/<run id>/`` holds all that a run writes, and no two runs share one."""

import json
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["RunDirectory", "best_checkpoint", "find_run", "last_checkpoint", "new_run_id"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")
_CHECKPOINTS = "checkpoints"
_RECORD = "run.json"


def new_run_id() -> str:
    """Name a run by the local time and eight random hexadecimal digits, so that names sort by age."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


@dataclass
class RunDirectory:
    """The directory of one run, planned before it exists.

    Attributes:
        runs_dir: Folder of all experiments.
        experiment: Name of the experiment.
        run_id: Name of the run, unique in its experiment; also the id of the W&B run.
        named: The user chose ``run_id``: a directory of that name is an error, not a reason for another name.
        resumed: The directory exists and the run goes on in it.

    Raises:
        ValueError: If a name could not be a folder's.
    """

    runs_dir: Path
    experiment: str
    run_id: str
    named: bool = False
    resumed: bool = False

    def __post_init__(self) -> None:
        """Check the names, which become folders."""
        for option, name in (("--experiment", self.experiment), ("--run_id", self.run_id)):
            if not _NAME.fullmatch(name):
                msg = f"{option} {name!r}: use letters, digits and . _ + = - only, beginning with a letter or digit."
                raise ValueError(msg)
        if self.named and not self.resumed and self.path.exists():
            msg = f"{self.path} exists already; choose another --run_id, or go on with it by --ckpt_path last."
            raise FileExistsError(msg)

    @property
    def path(self) -> Path:
        """The directory."""
        return self.runs_dir / self.experiment / self.run_id

    @property
    def checkpoints(self) -> Path:
        """Where the run keeps its checkpoints; the folder marks a run that trains."""
        return self.path / _CHECKPOINTS

    def create(self, record: dict[str, object], *, trains: bool) -> None:
        """Make the directory, in one atomic step that only one of several processes can win.

        Args:
            record: What to remember of the run, written to ``run.json``.
            trains: Whether the run will have checkpoints.

        Raises:
            FileExistsError: If the user named the run and another one of that name was started meanwhile.
        """
        while not self.resumed:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.mkdir()
                break
            except FileExistsError:
                if self.named:
                    raise
                self.run_id = new_run_id()
        if trains:
            self.checkpoints.mkdir(exist_ok=True)
        if not self.resumed:
            (self.path / _RECORD).write_text(json.dumps({"started": time.time(), **record}, indent=2) + "\n")


def find_run(runs_dir: Path, experiment: str, run_id: str | None = None) -> Path:
    """Find the training run to go on with or to evaluate.

    Args:
        runs_dir: Folder of all experiments.
        experiment: Name of the experiment.
        run_id: Name of the run; ``None`` for the one that was started last.

    Raises:
        FileNotFoundError: If there is none.
    """
    folder = runs_dir / experiment
    if run_id is not None:
        if (folder / run_id / _CHECKPOINTS).is_dir():
            return folder / run_id
        msg = f"--run_id {run_id}: there is no training run {folder / run_id}."
        raise FileNotFoundError(msg)
    runs = [path.parent for path in folder.glob(f"*/{_CHECKPOINTS}")]
    if not runs:
        msg = f"there is no training run in {folder}; start one by `theodolite fit` without --ckpt_path."
        raise FileNotFoundError(msg)
    return max(runs, key=_started)


def _started(run: Path) -> tuple[float, str]:
    try:
        return float(json.loads((run / _RECORD).read_text())["started"]), run.name
    except (OSError, ValueError, KeyError, TypeError):  # killed between making the directory and writing the record
        return run.stat().st_mtime, run.name


def last_checkpoint(run: Path) -> Path | None:
    """Give the newest checkpoint of a run, or ``None`` if it was stopped before the first."""
    path = run / _CHECKPOINTS / "last.ckpt"
    return path if path.is_file() else None


def best_checkpoint(run: Path) -> Path:
    """Give the checkpoint with the best monitored quantity.

    Raises:
        FileNotFoundError: If the run has none.
    """
    path = run / _CHECKPOINTS / "best.ckpt"
    if path.is_file():
        return path
    last = last_checkpoint(run)
    if last is not None:
        callbacks = torch.load(last, map_location="cpu", weights_only=True).get("callbacks", {})
        for state in callbacks.values():
            if state.get("monitor") and state.get("best_model_path"):
                path = run / _CHECKPOINTS / Path(state["best_model_path"]).name
                if path.is_file():
                    return path
    msg = f"{run} has no best checkpoint" + (f"; use --ckpt_path {last}." if last else ", it stopped before the first.")
    raise FileNotFoundError(msg)
