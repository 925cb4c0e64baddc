"""The callback that brings a run's directory into being and tells every rank and logger where it is."""

import signal
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.exceptions import SIGTERMException

from .loggers import RunCSVLogger, RunWandbLogger
from .run_directory import RunDirectory
from .versions import commit

__all__ = ["RunDirectoryCallback", "end_at_sigterm"]


class RunDirectoryCallback(Callback):
    """Make the run directory on rank zero, once the data are set up, and bind the loggers and checkpoints to it.

    Lightning calls a callback's ``setup`` after the datamodule's, so data that are missing leave nothing behind. The
    other ranks learn the path by one broadcast.

    Args:
        run: The planned directory.
        config: The run's configuration, as it would be given again: without the run's own id and checkpoint.
        arguments: The command, ``fit``, ``validate``, ``test`` or ``predict``, and its options.
    """

    def __init__(self, run: RunDirectory, config: dict[str, Any], arguments: list[str]) -> None:
        self.run = run
        self.config = config
        self.arguments = arguments
        self.command = arguments[0]
        self.created = False
        #: Whether data have begun to flow: before, an error is one of the configuration.
        self.running = False
        self._bound = False
        self._resumes_from_checkpoint = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the directory and write the configuration, the first time a loop is set up."""
        del pl_module, stage
        if self._bound:
            return
        if trainer.is_global_zero and not _debugging(trainer):
            self.run.create(self._record(trainer), trains=self.command == "fit")
            self.created = not self.run.resumed
            for leftover in self.run.checkpoints.glob(".*.tmp"):  # of a kill in the middle of a write
                leftover.unlink()
        self.run.run_id = trainer.strategy.broadcast(self.run.run_id)
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger | RunWandbLogger):
                logger.bind(self.run.path)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.run.checkpoints.resolve())
        self._bound = True
        if trainer.is_global_zero and not _debugging(trainer):
            self._save_config()
            for logger in trainer.loggers:
                logger.log_hyperparams(self.config)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep of the metrics what belongs to the checkpoint, so that a resumed run doubles no row."""
        del pl_module
        if self.run.resumed and trainer.state.fn == TrainerFn.FITTING:
            self._resumes_from_checkpoint = True
            self._truncate(trainer, checkpoint["global_step"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the metrics anew where a run was stopped before its first checkpoint."""
        del pl_module
        if self.run.resumed and not self._resumes_from_checkpoint:
            self._truncate(trainer, 0)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that data flow, and put the handler of a measurement in the place of Lightning's."""
        del pl_module
        self.running = True
        if trainer.state.fn != TrainerFn.FITTING and threading.current_thread() is threading.main_thread():
            end_at_sigterm(trainer)

    on_train_start = on_validation_start = on_test_start = on_predict_start = on_sanity_check_start

    def _truncate(self, trainer: Trainer, step: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunCSVLogger):
                logger.truncate(step)

    def _save_config(self) -> None:
        text = yaml.safe_dump(self.config, sort_keys=False)
        path = self.run.path / "config.yaml"
        number = 0
        while path.exists() and path.read_text() != text:  # resumed with other settings: keep both
            number += 1
            path = self.run.path / f"config.resumed-{number}.yaml"
        path.write_text(text)

    def _record(self, trainer: Trainer) -> dict[str, object]:
        packages = ("theodolite", "torch", "pytorch-lightning", "torch-geometric", "numpy")
        return {
            "command": self.command,
            "arguments": self.arguments,
            "commit": commit(),
            "python": sys.version.split()[0],
            "versions": {name: version(name) for name in packages},
            "ranks": trainer.world_size,
            "accelerator": type(trainer.accelerator).__name__,
            "threads": torch.get_num_threads(),
            "folder": str(Path.cwd()),
        }


def _debugging(trainer: Trainer) -> bool:
    """Tell ``fast_dev_run``, which keeps nothing."""
    return bool(getattr(trainer, "fast_dev_run", False))


def end_at_sigterm(trainer: Trainer) -> None:
    """Let a termination signal end this process and those that the Trainer started.

    Lightning's handler, which it sets when a loop begins and takes back after it, would begin a broadcast in the middle
    of what the processes do, and on several of them wait for ever when another collective is under way.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_IGN)  # a scheduler tells every process, and this one tells its children
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.Signals(number))
        raise SIGTERMException

    signal.signal(signal.SIGTERM, end)
