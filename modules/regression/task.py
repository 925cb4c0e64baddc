"""Regression as a Task."""

from typing import Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ..base import Task

__all__ = ["Regression"]

Batch = tuple[Tensor, Tensor, Tensor]


class Regression(Task):
    r"""Fit a function by a network, by the mean absolute or the mean squared error.

    .. math:: \frac{1}{N} \sum_i |f(x_i) - y_i|_1 \quad \text{or} \quad \frac{1}{N} \sum_i |f(x_i) - y_i|_2^2

    Logs ``train/loss``, and ``val/`` and ``test/``: ``loss`` and ``mae`` (the mean absolute error), as means over
    samples that are exact on any number of ranks.

    Args:
        network: Maps inputs (N, inputs) to outputs (N, outputs).
        error: ``absolute`` or ``squared``.
        optimizer: As in :class:`Task`.
        lr_scheduler: As in :class:`Task`.

    Raises:
        ValueError: If ``error`` is unknown.
    """

    #: The best checkpoint is chosen by this quantity.
    monitor, mode = "val/loss", "min"

    def __init__(
        self,
        network: nn.Module,
        error: Literal["absolute", "squared"] = "absolute",
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if error not in {"absolute", "squared"}:
            msg = f"Regression(error={error!r}): choose from absolute, squared."
            raise ValueError(msg)
        self.save_init_arguments()
        self.network = network
        self._kind = error

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (N, inputs) to outputs (N, outputs)."""
        return self.network(x)

    def loss(self, batch: Batch) -> Tensor:
        """Give the error of a batch ``(x, y, index)``: y (N, outputs)."""
        return self._errors(batch, self._kind)

    def error(self, batch: Batch) -> Tensor:
        """Give the mean absolute error of a batch."""
        return self._errors(batch, "absolute")

    def num_samples(self, batch: Batch) -> int:
        """Count the samples of a batch."""
        return len(batch[0])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the errors on held-out samples under ``val/``."""
        del batch_idx
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the errors on test samples under ``test/``."""
        del batch_idx
        self._evaluate(batch, "test")

    def _errors(self, batch: Batch, error: str) -> Tensor:
        difference = self(batch[0]) - batch[1]
        return (difference.abs() if error == "absolute" else difference.square()).sum(1).mean()

    def _evaluate(self, batch: Batch, stage: str) -> None:
        values = {f"{stage}/loss": self.loss(batch), f"{stage}/mae": self.error(batch)}
        self.log_dict(values, on_epoch=True, sync_dist=True, batch_size=self.weight(batch))  # pyright: ignore[reportArgumentType]
