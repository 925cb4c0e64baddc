"""What makes a resumed run bit-identical to one that was never stopped."""

import random
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["ReseedEveryEpoch"]


class ReseedEveryEpoch(Callback):
    """Seed Python, NumPy and torch at each training epoch by a pure function of (seed, epoch, rank).

    Checkpoints are taken at the end of epochs, so the random numbers of an epoch do not depend on whether the process
    was restarted before it. Two points are needed: one before the loader's iterator draws its shuffle, which Lightning
    makes before ``on_train_start`` for the first epoch of a process and after ``on_train_epoch_start`` for the others,
    and one before the first training step. Loaders whose workers keep a random state of their own over epochs are
    outside of this; ours draw from the sample's index.

    Args:
        seed: The experiment's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._first_epoch = 0

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Learn the epoch that a resumed run begins with."""
        del trainer, pl_module
        self._first_epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the iterator of the first epoch of this process."""
        del pl_module
        self._reseed(trainer, self._first_epoch, "loader")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the iterator of the epoch, unless it exists already."""
        del pl_module
        if trainer.current_epoch != self._first_epoch:
            self._reseed(trainer, trainer.current_epoch, "loader")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the training steps of the epoch, before the first of them."""
        del pl_module, batch
        if batch_idx == 0:
            self._reseed(trainer, trainer.current_epoch, "steps")

    def _reseed(self, trainer: Trainer, epoch: int, use: Literal["loader", "steps"]) -> None:
        entropy = [self.seed, epoch, trainer.global_rank, ("loader", "steps").index(use)]
        words = np.random.SeedSequence(entropy).generate_state(3, np.uint32)
        random.seed(int(words[0]))
        np.random.seed(int(words[1]))  # noqa: NPY002  # the global generator is what users' transforms draw from
        torch.manual_seed(int(words[2]))
