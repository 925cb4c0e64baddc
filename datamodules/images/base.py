"""Image classification from memory: whole batches are sliced at once, never image by image."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..sampling import Split
from .augmentation import counter_uniforms, crop_and_flip, swap_low_frequencies
from .batch import ImageBatch
from .splits import ImageSplits, Label, select_classes

__all__ = ["ImageDataModule", "ImageDataset"]


class ImageDataset(Dataset[ImageBatch]):
    """Images held in memory, handed out in whole batches.

    For training, number ``epoch * len(dataset) + i`` asks for sample i as augmented in that epoch: the crop, the
    mirroring and the other image are a pure function of (seed, epoch, i), whatever the rank, worker or batch.

    Args:
        images: uint8 in 0 .. 255 or float32 in [0, 1], (N, C, H, W); or what gives those of a tensor of numbers.
        labels: int64 (N,).
        crop_padding: Shift images by up to so many pixels each way, zeros move in; 0 for none.
        flip: Mirror half of the images left and right.
        seed: Of the augmentation.
        swap_low_frequencies: Take those of another image, drawn at random: standard deviation of the Gaussian that
            passes them, in pixels; 0 for none.
    """

    def __init__(
        self,
        images: Any,
        labels: Tensor,
        crop_padding: int = 0,
        flip: bool = False,
        seed: int = 0,
        swap_low_frequencies: float = 0.0,
    ) -> None:
        self.images = images
        self.labels = labels
        self.crop_padding = crop_padding
        self.flip = flip
        self.seed = seed
        self.swap_low_frequencies = swap_low_frequencies

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.labels)

    def __getitems__(self, numbers: Sequence[int]) -> ImageBatch:
        """Make a batch."""
        counters = torch.as_tensor(numbers, dtype=torch.int64)
        sample_id = counters % len(self)
        images: Tensor = self.images[sample_id]
        uniforms = counter_uniforms(self.seed, counters, 4 if self.swap_low_frequencies else 3)
        if self.crop_padding or self.flip:
            images = crop_and_flip(images, uniforms[:, :3], self.crop_padding, self.flip)
        pixels = _pixels(images)
        if self.swap_low_frequencies:
            others = self.images[torch.from_numpy((uniforms[:, 3] * len(self)).astype("int64"))]
            pixels = swap_low_frequencies(pixels, _pixels(others), self.swap_low_frequencies)
        return ImageBatch(pixels, self.labels[sample_id], sample_id)

    def __getitem__(self, number: int) -> ImageBatch:
        """Give one image, without the batch axis."""
        batch = self.__getitems__([number])
        return ImageBatch(batch.x[0], batch.y[0], batch.sample_id[0])


def _pixels(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.float().div_(255)


class ImageDataModule(ImageSplits):
    """Images of a set small enough for memory, with pixels in [0, 1]; normalisation belongs to the network.

    Batches are :class:`ImageBatch`: they unpack as ``x, y`` and carry ``sample_id``. The validation split is cut from
    the training set by a permutation of its own seed, so that runs with other seeds hold out the same images; the test
    set is never trained or selected on. Attributes to link: ``num_classes``, ``class_names``, ``input_shape``.

    Subclasses give :meth:`read`, ``all_classes`` and ``image_shape``.

    Args:
        data_dir: Folder of the files.
        classes: Numbers or names of the classes to keep, relabelled 0, 1, ... in this order; ``None`` for all.
        train_samples: Largest number of training images: the first of a fixed permutation, so smaller sets are parts of
            larger ones. ``None`` for all.
        val_samples: Validation images, cut from the training set; 0 for no validation.
        test_samples: Largest number of test images, a random part that is always the same; ``None`` for all.
        split_seed: Seed of these choices.
        crop_padding: Augment training images by shifts of up to so many pixels; 0 for none.
        flip: Augment training images by mirroring half of them.
        batch_size: Images in a batch, **of each process**.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.
        validate_on: ``train`` to measure the training images, not augmented, in every validation: for quantities of
            the training set, such as its margins; never to select by.

    Raises:
        ValueError: If an argument is out of range, or a class unknown or given twice.
        FileNotFoundError: On preparing, if the files are absent and cannot be downloaded.
    """

    #: Names of the classes of the whole set.
    all_classes: Sequence[str] = ()
    #: Channels, height and width of an image.
    image_shape: tuple[int, int, int] = (1, 1, 1)

    def __init__(
        self,
        data_dir: str = "data",
        classes: list[Label] | None = None,
        train_samples: int | None = None,
        val_samples: int = 5000,
        test_samples: int | None = None,
        split_seed: int = 0,
        crop_padding: int = 0,
        flip: bool = False,
        batch_size: int = 128,
        seed: int = 0,
        num_workers: int = 0,
        validate_on: Literal["val", "train"] = "val",
    ) -> None:
        super().__init__(train_samples, val_samples, test_samples, split_seed, batch_size, seed, num_workers)
        self.check_least(0, crop_padding=crop_padding)
        self.data_dir = Path(data_dir).expanduser()
        self.kept = select_classes(type(self).__name__, classes, self.all_classes)
        self.num_classes = len(self.kept)
        self.class_names = [self.all_classes[number] for number in self.kept]
        self.input_shape = self.image_shape
        self.crop_padding = crop_padding
        self.flip = flip
        self.validate_on: Split = validate_on
        self._images: dict[Split, tuple[Tensor, Tensor]] = {}

    @abstractmethod
    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read the original training or test set: uint8 (N, C, H, W) and labels, int64 (N,)."""

    def setup(self, stage: str | None = None) -> None:
        """Read what a stage needs and cut the splits, once."""
        if stage in (None, "fit", "validate") and "train" not in self._images:
            images, labels = self._read_classes(train=True)
            train, val = self.cut_validation(len(labels))
            self._images["train"] = images[train], labels[train]
            self._images["val"] = images[val], labels[val]
        if stage in (None, "test", "predict") and "test" not in self._images:
            images, labels = self._read_classes(train=False)
            chosen = self.cut_test(len(labels))
            self._images["test"] = images[chosen], labels[chosen]

    def val_dataloader(self) -> DataLoader[ImageBatch] | list[DataLoader[ImageBatch]]:
        """Give the images of this process to validate on."""
        return self._loader("val") if self.validate_on == "train" else super().val_dataloader()

    def dataset(self, split: Split, augmented: bool = True) -> ImageDataset:
        """Give the images of a split; only training images are augmented, and only if that is asked for."""
        self.setup("test" if split == "test" else "fit")
        if split != "train" or not augmented:
            return ImageDataset(*self._images[self.validate_on if split == "val" else split])
        return ImageDataset(*self._images[split], self.crop_padding, self.flip, self.seed)

    def fingerprint(self) -> str:
        """Give a digest of all pixels and labels."""
        self.setup("fit")
        parts = [part.numpy() for split in ("train", "val") for part in self._images[split]]
        digest = hashlib.sha256(str([part.shape for part in parts]).encode())
        for part in parts:
            digest.update(part.tobytes())
        return digest.hexdigest()

    def _read_classes(self, train: bool) -> tuple[Tensor, Tensor]:
        images, labels = self.read(train)
        renumbered = torch.full((len(self.all_classes),), -1)
        renumbered[torch.tensor(self.kept)] = torch.arange(self.num_classes)
        new = renumbered[labels]
        return images[new >= 0], new[new >= 0]
