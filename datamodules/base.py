"""What the datamodules with a training, a validation and a test split share: their loaders."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Batch

from .sampling import ShardedSampler, Split, TrainingLoader

__all__ = ["SplitDataModule"]


class SplitDataModule(LightningDataModule, ABC):
    """Serve the samples of each split in batches: exact on any number of ranks, resumable in the middle of an epoch.

    Subclasses implement :meth:`dataset`, whose sample i is a pure function of (seed, split, i). The order of training
    is one of (seed, epoch).

    Args:
        batch_size: Samples in a batch, **of each process**.
        seed: Seed of the samples and of the training order.
        num_workers: Loader workers of each process.
        fresh: Train on new samples in every epoch, see :class:`ShardedSampler`.
        collate_fn: Makes a batch of a list of samples; picklable. By default a PyG batch of graphs.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        fresh: bool = False,
        collate_fn: Callable[[list[Any]], Any] = Batch.from_data_list,
    ) -> None:
        super().__init__()
        self.check_least(1, batch_size=batch_size)
        self.check_least(0, seed=seed, num_workers=num_workers)
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.fresh = fresh
        self.collate_fn = collate_fn

    @abstractmethod
    def dataset(self, split: Split) -> Dataset[Any]:
        """Give the samples of a split; they have a length."""

    def train_dataloader(self) -> DataLoader[Any]:
        """Give this process's training samples."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any] | list[DataLoader[Any]]:
        """Give this process's validation samples."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Give this process's test samples."""
        return self._loader("test")

    def _loader(self, split: Split) -> DataLoader[Any]:
        dataset = self.dataset(split)
        train = split == "train"
        loader = TrainingLoader if train else DataLoader
        return loader(
            dataset,
            batch_size=self.batch_size,
            sampler=ShardedSampler(
                dataset,  # pyright: ignore[reportArgumentType]  # torch's type promises no length
                shuffle=train,
                drop_last=train,
                seed=self.seed,
                fresh=train and self.fresh,
            ),
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            persistent_workers=self.num_workers > 0,
        )

    @classmethod
    def check_least(cls, least: int, **arguments: int) -> None:
        """Refuse arguments below ``least``, by name."""
        for name, value in arguments.items():
            if value < least:
                msg = f"{cls.__name__}({name}={value}): must be at least {least}."
                raise ValueError(msg)
