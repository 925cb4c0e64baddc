"""Training batches for measurements that train something of their own, such as the beads of a path."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["away_from_inference", "gather_batches", "training_batches"]


def training_batches(trainer: Trainer, pl_module: LightningModule, num_batches: int) -> list[Any]:
    """Give training batches, the same on every rank and for any number of ranks, on the module's device.

    The samples are dealt out anew, in an order drawn once: the loader's own sampler gives each rank other samples, and
    leaves some out.

    Args:
        trainer: The running trainer; outside of ``fit`` its datamodule gives the loader.
        pl_module: Where the batches are moved to.
        num_batches: How many; 0 for all.

    Raises:
        ValueError: If the trainer has no training data, or not as one ``DataLoader`` of a sized dataset.
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
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        msg = (
            "the path's beads are trained on batches drawn from one DataLoader with a batch_size and a dataset with a "
            f"length; the training data are a {type(loader).__name__}."
        )
        raise ValueError(msg)
    fixed = DataLoader(
        loader.dataset,
        getattr(loader.sampler, "global_batch_size", loader.batch_size),  # where the processes share a batch
        shuffle=True,
        collate_fn=loader.collate_fn,
        generator=torch.Generator().manual_seed(0),
    )
    return [_on_device(trainer, pl_module, batch) for batch in islice(fixed, num_batches or None)]


def gather_batches(trainer: Trainer, pl_module: LightningModule, batches: list[Any]) -> list[Any]:
    """Give the batches of all ranks, first those of rank zero, on the module's device."""
    if dist.is_available() and dist.is_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, batches)
        batches = [batch for part in parts for batch in part]
    return [_on_device(trainer, pl_module, batch) for batch in batches]


def _on_device(trainer: Trainer, pl_module: LightningModule, batch: Any) -> Any:
    return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch), pl_module.device)


@contextmanager
def away_from_inference() -> Iterator[None]:
    """Allow gradients inside an evaluation loop, which Lightning runs in inference mode, and keep the random state."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        yield
