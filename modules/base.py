"""The one base class of everything theodolite trains."""

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn


def supervised(losses: Sequence[Tensor]) -> Tensor:
    """Add to the loss of the last output the mean loss of those before.

    Deep supervision, `Lee et al. 2015 <https://arxiv.org/abs/1409.5185>`_: what is read out on the way learns too.

    Args:
        losses: Scalar losses of the outputs, the final one last.
    """
    return losses[-1] if len(losses) == 1 else losses[-1] + torch.stack(list(losses[:-1])).mean()


class Task(LightningModule, ABC):
    """A LightningModule that paths, attacks and margins can call without knowing what it learns.

    Subclasses implement :meth:`forward` (the output: logits, node scores, ...) and :meth:`loss` (the scalar training
    loss of a batch: differentiable, no logging, no side effect). Measurements call these two and nothing else.

    Args:
        optimizer: Called with the parameters, gives the optimizer. On the command line a ``class_path``.
        lr_scheduler: Called with the optimizer, gives the learning-rate scheduler, stepped once an epoch; ``None`` for
            a constant rate.
    """

    def __init__(
        self, optimizer: OptimizerCallable = torch.optim.Adam, lr_scheduler: LRSchedulerCallable | None = None
    ) -> None:
        super().__init__()
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    @abstractmethod
    def forward(self, x: Any) -> Tensor:
        """Give the model's output for an input, without loss or logging."""

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """Give the scalar training loss of a batch: differentiable, no logging, no side effect."""

    @abstractmethod
    def num_samples(self, batch: Any) -> int:
        """Count the samples of a batch."""

    def weight(self, batch: Any) -> float:
        """Give the ``batch_size`` that every ``self.log`` of an epoch's mean takes: the number of samples, as a float.

        Lightning 2.6.6 averages this number over the ranks in its own type, so an integer is truncated where the total
        is not divisible by the number of ranks, and the mean over the epoch comes out too large.
        """
        return float(self.num_samples(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute and log the training loss (``train/loss``)."""
        del batch_idx
        loss = self.loss(batch)
        self.log(
            "train/loss",
            loss.detach(),
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            prog_bar=True,
            batch_size=self.weight(batch),  # pyright: ignore[reportArgumentType]
        )
        return loss

    def configure_optimizers(self) -> Any:
        """Build the injected optimizer and scheduler."""
        optimizer = self._optimizer(self.parameters())
        if self._lr_scheduler is None:
            return optimizer
        return [optimizer], [self._lr_scheduler(optimizer)]

    def save_init_arguments(self) -> None:
        """Save the caller's ``__init__`` arguments as hyperparameters, leaving out objects a checkpoint cannot hold.

        Call it first thing in ``__init__``. On the command line the arguments are the parsed configuration, so a
        checkpoint rebuilds its networks and optimizers by itself; in Python, injected modules and callables are left
        out and are passed again to ``load_from_checkpoint``.
        """
        frame = inspect.currentframe()
        caller = frame.f_back if frame is not None else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is an instance of `nn.Module`.*")
            self.save_hyperparameters(frame=caller, logger=False)
        self.remove_ignored_hparams(
            [name for name, value in self.hparams.items() if isinstance(value, nn.Module) or callable(value)]
        )
