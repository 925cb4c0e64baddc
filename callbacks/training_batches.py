"""Batches for measurements that train something of their own, such as the beads of a path."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from .classification import dataloader, place_samples
from .geodesics.landscape import num_samples

__all__ = ["EvaluatedBatches", "away_from_inference", "training_batches", "training_loader"]


def training_batches(trainer: Trainer, pl_module: LightningModule, num_batches: int) -> list[Any]:
    """Give training batches, the same on every rank and for any number of ranks, on the module's device.

    The samples are dealt out anew, in an order drawn once: the loader's own sampler gives each rank other samples, and
    leaves some out. Of a sampler that is neither sequential, random nor distributed, the samples that it draws are
    taken. What a dataset draws itself, e.g. crops, is drawn once too, and from the same seed on every rank.

    Args:
        trainer: The running trainer; outside of ``fit`` its datamodule gives the loader.
        pl_module: Where the batches are moved to.
        num_batches: How many; 0 for all.

    Raises:
        ValueError: As in :func:`training_loader`.
    """
    loader = training_loader(trainer)
    with isolate_rng():
        torch.manual_seed(0)
        dataset = _served(loader)
    fixed = DataLoader(
        dataset,
        getattr(loader.sampler, "global_batch_size", loader.batch_size),  # where the processes share a batch
        shuffle=True,
        collate_fn=loader.collate_fn,
        generator=torch.Generator().manual_seed(0),
    )
    with isolate_rng():
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002  # what a dataset of others may draw from
        torch.manual_seed(0)
        return [_as_in_training(trainer, pl_module, batch) for batch in islice(fixed, num_batches or None)]


def training_loader(trainer: Trainer) -> DataLoader[Any]:
    """Give the loader of the training batches; outside of ``fit`` the datamodule's.

    Raises:
        ValueError: If the trainer has no training data, or not as one ``DataLoader`` of a sized dataset.
    """
    loader = trainer.train_dataloader
    if loader is None:
        datamodule = getattr(trainer, "datamodule", None)
        if datamodule is None:
            msg = (
                "this measurement needs training batches, and this trainer has none: give it a datamodule, "
                "Trainer.test(model, datamodule=...)."
            )
            raise ValueError(msg)
        datamodule.setup("fit")
        loader = datamodule.train_dataloader()
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        msg = (
            "this measurement draws its batches from one DataLoader with a batch_size and a dataset with a length; the "
            f"training data are a {type(loader).__name__}."
        )
        raise ValueError(msg)
    return loader


def _served(loader: DataLoader[Any]) -> Dataset[Any]:
    """Give the samples that a loader serves: all of its dataset, or those that a sampler of the user's draws."""
    sampler: Any = loader.sampler
    if isinstance(sampler, DistributedSamplerWrapper):  # what Lightning makes of the user's on several processes
        sampler = sampler.dataset._sampler  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(sampler, SequentialSampler | RandomSampler | DistributedSampler):
        return loader.dataset
    return Subset(loader.dataset, list(sampler))


def _as_in_training(trainer: Trainer, pl_module: LightningModule, batch: Any) -> Any:
    """Take a batch through the hooks that a training step's goes through."""
    batch = pl_module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch))
    return trainer.strategy.batch_to_device(batch, pl_module.device)


class EvaluatedBatches:
    """The batches of an evaluation loop, copied to the CPU as they come, without the samples that a sampler repeats."""

    def __init__(self) -> None:
        self._batches: list[Any] = []
        self._seen: dict[int, int] = {}

    def add(self, trainer: Trainer, batch: Any, dataloader_idx: int) -> None:
        """Copy a batch."""
        loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        loader = dataloader(loaders, dataloader_idx)
        sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
        with torch.inference_mode(False):  # a tensor of inference mode could not be used outside of it
            # torch's own sampler pads, so that each process has as many samples; ours does not
            if isinstance(sampler, DistributedSampler) and sampler.total_size > len(sampler.dataset):  # pyright: ignore[reportArgumentType]
                size, seen = num_samples(batch), self._seen.get(dataloader_idx, 0)
                self._seen[dataloader_idx] = seen + size
                place, total = place_samples(loader, seen, size, trainer)
                new = int((place < (total or 0)).sum())  # repeats come last
                batch = apply_to_collection(
                    batch, Tensor, lambda part: part[:new] if part.shape[:1] == (size,) else part
                )
                if not new:
                    return
            self._batches.append(apply_to_collection(batch, Tensor, lambda part: part.detach().to("cpu", copy=True)))

    def gather(self, pl_module: LightningModule) -> list[Any]:
        """Give the batches of all ranks, first those of rank zero, on the module's device."""
        batches = self._batches
        if dist.is_available() and dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, batches)
            batches = [batch for part in parts for batch in part]
        return [pl_module._call_batch_hook("transfer_batch_to_device", batch, pl_module.device, 0) for batch in batches]


@contextmanager
def away_from_inference() -> Iterator[None]:
    """Allow gradients inside an evaluation loop, which Lightning runs in inference mode, and keep the random state."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
        yield
