"""What measurements of held-out samples have in common: when they run, and one row a sample from all ranks."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

__all__ = ["EvaluationMeasurement", "HeldOutMeasurement", "gather_rows"]


class EvaluationMeasurement(Callback, ABC):
    """Take every evaluated batch, and conclude at the end of the epoch.

    Measures in ``validate`` and ``test``, and every ``every_n_epochs`` in the validation within ``fit``; never in the
    sanity check.

    Args:
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.

    Raises:
        ValueError: If ``every_n_epochs`` is negative.
    """

    def __init__(self, every_n_epochs: int) -> None:
        if every_n_epochs < 0:
            msg = f"{type(self).__name__}(every_n_epochs={every_n_epochs}): give 0 (never within fit) or more."
            raise ValueError(msg)
        self.every_n_epochs = every_n_epochs
        self._forget()

    def _require(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what could not be measured, before anything is trained or evaluated."""
        del trainer, pl_module

    @property
    def _results(self) -> Hashable:
        """What it writes to, which no other callback of the trainer may share."""
        return type(self)

    def _require_all(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for other in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if other is not self and isinstance(other, EvaluationMeasurement) and other._results == self._results:
                name = type(self).__name__
                msg = (
                    f"{name}: two of them in one trainer would write over each other's results; give one {name} all "
                    "that it is to measure, or run the trainer once for each."
                )
                raise ValueError(msg)
        self._require(trainer, pl_module)

    @abstractmethod
    def _forget(self) -> None:
        """Drop what was kept of the epoch before."""

    @abstractmethod
    def _keep(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> None:
        """Take a batch."""

    @abstractmethod
    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Conclude from what was kept, under ``val`` or ``test``."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what could not be measured, in the validation or in a test of what is trained."""
        self._require_all(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what could not be measured."""
        if trainer.state.fn == "validate":
            self._require_all(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what could not be measured."""
        self._require_all(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new epoch."""
        del trainer, pl_module
        self._forget()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new epoch."""
        del trainer, pl_module
        self._forget()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a validation batch."""
        del outputs, batch_idx
        if self._measures_validation(trainer):
            self._keep(trainer, pl_module, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a test batch."""
        del outputs, batch_idx
        self._keep(trainer, pl_module, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Conclude the validation."""
        if self._measures_validation(trainer):
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Conclude the test."""
        self._report(trainer, pl_module, "test")

    def _measures_validation(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        if trainer.state.fn == "validate":
            return True
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0


class HeldOutMeasurement(EvaluationMeasurement):
    """Measure each held-out sample after its batch, and report on the samples of all ranks at the end of the epoch.

    When it measures: see :class:`EvaluationMeasurement`. Rows of single samples are gathered from all ranks and repeats
    of a sample dropped, so the numbers are those of one process, whatever a sampler pads.
    """

    @abstractmethod
    def measure_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> Tensor:
        """Give one row of numbers a sample, (B, columns), in the first column the sample's number, NaN for none.

        Samples that are not to be measured have no row.
        """

    @abstractmethod
    def report(self, trainer: Trainer, pl_module: LightningModule, stage: str, rows: Tensor) -> None:
        """Log, store and draw what the rows of all samples say, the same on every rank; float64 (samples, columns)."""

    def _forget(self) -> None:
        self._rows: list[Tensor] = []

    @torch.no_grad()
    def _keep(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> None:
        rows = self.measure_batch(trainer, pl_module, batch, dataloader_idx)
        if len(rows):
            self._rows.append(rows.double().cpu())

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        rows = gather_rows(torch.cat(self._rows) if self._rows else torch.zeros(0, 1).double())
        if len(rows):
            self.report(trainer, pl_module, stage, rows)


def gather_rows(rows: Tensor) -> Tensor:
    """Collect rows from all processes, in order of their first column, dropping repeats of it.

    Args:
        rows: (n, m), n may differ between processes, and m where n is 0; the first column numbers the samples, NaN
            where they have none.

    Returns:
        The rows of all processes, the same on each; the rows themselves without a process group.

    Raises:
        ValueError: If repeats differ in their second column, a label or group: they are not of one sample.
    """
    if dist.is_available() and dist.is_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, rows)
        rows = torch.cat([part for part in parts if len(part)] or [rows])
    rows = rows[rows[:, 0].argsort(stable=True)]
    repeated = torch.zeros(len(rows), dtype=torch.bool)
    repeated[1:] = rows[1:, 0] == rows[:-1, 0]
    if rows.shape[1] > 1 and not rows[1:, 1].isclose(rows[:-1, 1], equal_nan=True)[repeated[1:]].all():
        msg = (
            "samples of one number have different labels, so that some would be left out; let Lightning's sampler "
            "share them out, or number them: a third part of the batch, or its sample_id."
        )
        raise ValueError(msg)
    return rows[~repeated]
