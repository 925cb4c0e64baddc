"""Training batches for measurements that train something of their own, such as the beads of a path."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer

__all__ = ["away_from_inference", "gather_batches", "training_batches"]


def training_batches(trainer: Trainer, pl_module: LightningModule, num_batches: int) -> list[Any]:
    """Give the first training batches of every rank, the same list on each, on the module's device.

    Args:
        trainer: The running trainer; outside of ``fit`` its datamodule gives the loader.
        pl_module: Where the batches are moved to.
        num_batches: Batches taken from each rank; 0 for all.

    Raises:
        ValueError: If the trainer has no training data.
    """
    loader = trainer.train_dataloader
    if loader is None:
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is None:
            msg = (
                "the path's beads are trained on training batches, and this trainer has none: give it a datamodule, "
                "Trainer.test(model, datamodule=...)."
            )
            raise ValueError(msg)
        datamodule.setup("fit")
        loader = datamodule.train_dataloader()
    with torch.random.fork_rng():  # the loader's shuffle draws from the global generator
        batches = list(islice(loader, num_batches or None))
    return gather_batches(trainer, pl_module, batches)


def gather_batches(trainer: Trainer, pl_module: LightningModule, batches: list[Any]) -> list[Any]:
    """Give the batches of all ranks, first those of rank zero, on the module's device and in its precision."""
    if dist.is_available() and dist.is_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, batches)
        batches = [batch for part in parts for batch in part]
    batches = [trainer.precision_plugin.convert_input(batch) for batch in batches]
    return [trainer.strategy.batch_to_device(batch, pl_module.device) for batch in batches]


@contextmanager
def away_from_inference() -> Iterator[None]:
    """Allow gradients inside an evaluation loop, which Lightning runs in inference mode, and keep the random state."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        yield
