"""The two loggers of every run: a CSV file that survives a resume, and Weights & Biases that never ends a run."""

import csv
import functools
import netrc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlparse

from lightning_fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from torch import Tensor

__all__ = ["MetricsFile", "RunCSVLogger", "RunWandbLogger", "WandbMode", "wandb_mode"]

WandbMode = Literal["auto", "online", "offline", "disabled"]
Method = TypeVar("Method", bound=Callable[..., Any])


class MetricsFile:
    """The file ``metrics.csv``: one row for each time something was logged, and a column for each quantity.

    Rows are appended; the file is rewritten, atomically, only when a quantity appears for the first time. Until
    :meth:`open` names the file, rows wait in memory; so do they while the disk is full.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.columns: list[str] = []
        self._pending: list[dict[str, Any]] = []
        self._failing = False

    def open(self, path: Path) -> None:
        """Write to this file from now on, after the rows it has."""
        self.path = path
        self.columns = list(_read(path)[0])

    def truncate(self, step: int) -> None:
        """Drop the rows that a run resumed at ``step`` will log again: those of that step and later."""
        if self.path is not None and self.path.exists():
            columns, rows = _read(self.path)
            self._write(columns, [row for row in rows if int(row["step"]) < step])

    def log_metrics(self, metrics: Mapping[str, Any], step: int) -> None:
        """Add a row."""
        values = {key: value.item() if isinstance(value, Tensor) else value for key, value in metrics.items()}
        self._pending.append({**values, "step": step})

    def save(self) -> None:
        """Bring the rows to the disk; warn once and keep them where that fails."""
        if self.path is None or not self._pending:
            return
        try:
            new = {key for row in self._pending for key in row} - set(self.columns)
            if new or not self.path.exists():
                rows = _read(self.path)[1] if self.path.exists() else []
                names = {*self.columns, *new} - {"epoch", "step"}
                self._write(["epoch", "step", *sorted(names)], [*rows, *self._pending])
            else:
                with self.path.open("a", newline="") as file:
                    csv.DictWriter(file, self.columns).writerows(self._pending)
        except OSError as error:
            if not self._failing:
                rank_zero_warn(f"{self.path} could not be written ({error}); the run goes on and tries again.")
            self._failing = True
        else:
            self._pending = []
            self._failing = False

    def _write(self, columns: list[str], rows: list[dict[str, Any]]) -> None:
        assert self.path is not None
        partial = self.path.with_name(".metrics.csv.tmp")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
        self.columns = columns


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a file of metrics, leaving out a last row that a kill cut short."""
    if not path.exists():
        return [], []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if None not in row.values() and row["step"].isdigit()]
        return list(reader.fieldnames or []), rows


class RunCSVLogger(CSVLogger):
    """A CSVLogger whose ``log_dir`` is the run directory, and which a resumed run continues instead of emptying."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory.parent.parent, name=directory.parent.name, version=directory.name)
        self._file = MetricsFile()

    def bind(self, directory: Path) -> None:
        """Write to this directory, which exists."""
        self._save_dir = self._root_dir = os.fspath(directory.parent.parent)
        self._name, self._version = directory.parent.name, directory.name
        self._file.open(directory / "metrics.csv")

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The file of metrics."""
        return self._file

    @rank_zero_only
    def log_metrics(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, metrics: Mapping[str, Tensor | float], step: int | None = None
    ) -> None:
        """Add a row; it reaches the disk at the end of the step's logging."""
        self._file.log_metrics(metrics, step or 0)

    @rank_zero_only
    def truncate(self, step: int) -> None:
        """Forget what was logged at this step and later."""
        self._file.truncate(step)

    @rank_zero_only
    def save(self) -> None:
        """Bring the rows to the disk."""
        self._file.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Bring the rows to the disk."""
        del status
        self._file.save()

    def log_hyperparams(self, params: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do nothing: ``config.yaml`` holds the configuration."""


def wandb_mode(flag: WandbMode) -> Literal["online", "offline", "disabled"]:
    """Decide how W&B runs: the flag, else the environment's ``WANDB_MODE``, else online if there is an API key.

    Raises:
        ValueError: If ``WANDB_MODE`` is none of W&B's.
    """
    chosen = os.environ.get("WANDB_MODE", "auto").lower() if flag == "auto" else flag
    match chosen:
        case "online" | "offline" | "disabled":
            return chosen
        case "run" | "dryrun":  # W&B's older names
            return "online" if chosen == "run" else "offline"
        case "auto" | "":
            return "online" if _has_api_key() else "offline"
    msg = f"WANDB_MODE={chosen}: use online, offline or disabled."
    raise ValueError(msg)


def _has_api_key() -> bool:
    """Look for a key where W&B does: the environment, then the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    for file in filter(None, (os.environ.get("NETRC"), "~/.netrc", "~/_netrc")):
        path = Path(file).expanduser()
        try:
            if path.is_file() and netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _never_ends_the_run(method: Method) -> Method:
    """Turn any failure of a logging method into one warning a run."""

    @functools.wraps(method)
    def guarded(self: "RunWandbLogger", *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.warn_once(f"{method.__name__} failed ({type(error).__name__}: {error})")

    return guarded  # pyright: ignore[reportReturnType]


class RunWandbLogger(WandbLogger):
    """A WandbLogger that writes into the run directory, starts when that exists, and never ends a run.

    Going online falls back to offline with one warning; so does everything that fails later: the run goes on and what
    W&B kept on disk can be synced.

    Args:
        directory: The planned run directory; its name is the id of the W&B run, its parent's the group.
        mode: ``online`` or ``offline``.
        project: The W&B project.
        job_type: The command: ``fit``, ``test``, ...
        init_timeout: Seconds to wait for the server before the run goes on offline.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mode: Literal["online", "offline"],
        project: str,
        job_type: str,
        init_timeout: float = 30.0,
    ) -> None:
        super().__init__(
            project=project,
            mode=mode,
            job_type=job_type,
            # 10 minutes: a network that died during the run must not hold its end for ever; the data stay on disk
            settings={"silent": True, "console": "off", "init_timeout": init_timeout, "finish_timeout": 600.0},
        )
        del self._wandb_init["anonymous"]  # without effect in wandb 0.31, which warns of it
        self._bound = False
        self._warned = False
        #: Their checkpoints are stored as artifacts at the end of training.
        self.artifacts: list[ModelCheckpoint] = []
        self._plan(directory)

    def _plan(self, directory: Path) -> None:
        self._id = self._name = directory.name
        self._save_dir = os.fspath(directory.resolve())  # W&B's background process has a working folder of its own
        self._wandb_init.update(id=self._id, name=self._name, group=directory.parent.name, dir=self._save_dir)

    def bind(self, directory: Path) -> None:
        """Write to this directory, which exists, and start W&B when it is first used."""
        self._plan(directory)
        self._bound = True

    @property
    def mode(self) -> str:
        """How W&B runs: ``online``, ``offline``, or ``disabled`` if it could not start at all."""
        return self._wandb_init["mode"]

    @property
    def url(self) -> str | None:
        """The page of the W&B run while it is open and online."""
        return getattr(self._experiment, "url", None) if self.mode == "online" else None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The W&B run; until the run directory exists, something that swallows everything."""
        if not self._bound:
            return _DummyExperiment()
        if self._experiment is None:
            self._start()
        return self._experiment

    def _start(self) -> None:
        if self.mode == "online" and not _has_api_key():
            self.warn_once("there is no API key (`wandb login` stores one)")
            self._wandb_init["mode"] = "offline"
        for mode in dict.fromkeys((self.mode, "offline", "disabled")):
            self._wandb_init["mode"] = mode
            try:
                _ = super().experiment
                return
            except Exception as error:
                self.warn_once(f"it could not start {mode} ({type(error).__name__}: {' '.join(str(error).split())})")
                import wandb  # here, as importing it costs a second that a wrong setting need not wait for

                wandb.teardown(exit_code=0)  # the background process would refuse the same id again

    def warn_once(self, problem: str) -> None:
        """Say once that W&B does not get everything."""
        if not self._warned:
            rank_zero_warn(f"W&B: {problem}. The run goes on; what is on disk can be sent by `wandb sync` later.")
        self._warned = True

    log_hyperparams = _never_ends_the_run(WandbLogger.log_hyperparams)
    log_metrics = _never_ends_the_run(WandbLogger.log_metrics)
    log_table = _never_ends_the_run(WandbLogger.log_table)
    log_image = _never_ends_the_run(WandbLogger.log_image)

    @_never_ends_the_run
    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Store the checkpoints of a run that came to its end."""
        if status == "success" and self._experiment is not None:
            for checkpoint in self.artifacts:
                self._scan_and_log_checkpoints(checkpoint)

    @_never_ends_the_run
    def finish(self, exit_code: int) -> None:
        """End the W&B run, so that the next run of this process has its own."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None
            self._bound = False
