"""What all image datamodules share: classes, and splits of which the test set has no part in training or selection."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..base import SplitDataModule
from ..sampling import Split
from .batch import ImageBatch, as_is

__all__ = ["ImageSplits", "Label", "select_classes"]

#: A class, by number or by name.
Label = int | str


class ImageSplits(SplitDataModule, ABC):
    """Cut the validation split from the training set by a permutation of its own seed.

    Runs with other seeds thus hold out the same images. Batches are :class:`ImageBatch`. Subclasses have the attributes
    ``num_classes``, ``class_names`` and ``input_shape`` (channels, height, width), to be linked.

    Args:
        train_samples: Largest number of training images: the first of a fixed permutation, so smaller sets are parts of
            larger ones. ``None`` for all.
        val_samples: Validation images, cut from the training set; 0 for no validation, then give the Trainer
            ``limit_val_batches=0`` too.
        test_samples: Largest number of test images, a random part that is always the same; ``None`` for all.
        split_seed: Seed of these choices.
        batch_size: Images in a batch, **of each process**.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        train_samples: int | None,
        val_samples: int,
        test_samples: int | None,
        split_seed: int,
        batch_size: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(batch_size, seed, num_workers, fresh=True, collate_fn=as_is)
        self.check_least(0, val_samples=val_samples, split_seed=split_seed)
        given = {"train_samples": train_samples, "test_samples": test_samples}
        self.check_least(1, **{name: value for name, value in given.items() if value is not None})
        self.train_samples = train_samples
        self.val_samples = val_samples
        self.test_samples = test_samples
        self.split_seed = split_seed

    num_classes: int
    class_names: list[str]
    input_shape: tuple[int, int, int]

    @abstractmethod
    def dataset(self, split: Split, augmented: bool = True) -> Any:
        """Give the images of a split; only training images are augmented, and only if that is asked for.

        It has a length, ``labels`` (int64), and gives batches by ``__getitems__``.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Give a digest of the training and validation images and their labels, which tells sets apart."""

    def val_dataloader(self) -> DataLoader[ImageBatch] | list[DataLoader[ImageBatch]]:
        """Give the validation images of this process; none with ``val_samples=0``."""
        return super().val_dataloader() if self.val_samples > 0 else []

    def predict_dataloader(self) -> DataLoader[ImageBatch]:
        """Give the test images of this process."""
        return self.test_dataloader()

    def cut_validation(self, size: int) -> tuple[Tensor, Tensor]:
        """Give the numbers of the training and of the validation samples, of a training set of ``size``.

        Returns:
            Two int64 vectors without a common entry.

        Raises:
            ValueError: If nothing is left to train on.
        """
        if self.val_samples >= size:
            msg = (
                f"{type(self).__name__}(val_samples={self.val_samples}): the training set has {size} images of these "
                "classes, and some must be left to train on; give fewer."
            )
            raise ValueError(msg)
        end = size if self.train_samples is None else self.val_samples + self.train_samples
        order = self._permutation(size)
        return order[self.val_samples : end], order[: self.val_samples]

    def cut_test(self, size: int) -> Tensor:
        """Give the numbers of the test samples, of a test set of ``size``, in their order."""
        return self._permutation(size)[: self.test_samples].sort().values

    def _permutation(self, size: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(self.split_seed).permutation(size))


def select_classes(owner: str, classes: Sequence[Label] | None, names: Sequence[str]) -> list[int]:
    """Give the numbers of the classes to keep.

    Args:
        owner: Who asks, for the message.
        classes: Numbers or names; ``None`` for all.
        names: Names of all classes.

    Returns:
        Numbers, in the given order.

    Raises:
        ValueError: If a class is unknown, is given twice, or there are fewer than two.
    """
    if classes is None:
        return list(range(len(names)))
    known = ", ".join(name if name == str(number) else f"{number} {name}" for number, name in enumerate(names))
    numbers = []
    for given in classes:
        number = list(names).index(given) if isinstance(given, str) and given in names else given
        if not isinstance(number, int) or not 0 <= number < len(names):
            msg = f"{owner}(classes=[... {given!r} ...]): there is no such class; the classes are {known}."
            raise ValueError(msg)
        numbers.append(number)
    if len(set(numbers)) != len(numbers) or len(numbers) < 2:
        msg = f"{owner}(classes={list(classes)}): give at least two different classes of {known}."
        raise ValueError(msg)
    return numbers
