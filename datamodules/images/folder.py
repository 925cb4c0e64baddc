"""Images in folders, one folder a class, as ImageNet is kept."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..sampling import Split
from .augmentation import counter_uniforms
from .batch import ImageBatch
from .splits import ImageSplits, Label, select_classes

__all__ = ["RESTRICTED_IMAGENET", "ImageFolderDataModule"]

#: First and last number of the ImageNet classes of each super-class, inclusive: `tools/constants.py` of MadryLab's
#: `robustness` library, in its order.
RESTRICTED_IMAGENET = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


class FolderDataset(Dataset[ImageBatch]):
    """Images read from their files, cut to a square.

    Evaluated: the shorter side is resized to 8/7 of the size and the middle cut out. Augmented: a random part of 8 to
    100 per cent of the area, of an aspect between 3/4 and 4/3, is resized, and half are mirrored; a pure function of
    (seed, epoch, sample) as in :class:`ImageDataset`.

    Args:
        paths: The files.
        labels: int64 (N,).
        size: Height and width in pixels.
        augment: Whether to augment.
        seed: Of the augmentation.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, size: int, augment: bool = False, seed: int = 0) -> None:
        self.paths = paths
        self.labels = labels
        self.size = size
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        """Give the number of images."""
        return len(self.paths)

    def __getitems__(self, numbers: Sequence[int]) -> ImageBatch:
        """Make a batch."""
        counters = torch.as_tensor(numbers, dtype=torch.int64)
        sample_id = counters % len(self)
        uniforms = counter_uniforms(self.seed, counters, 5)
        images = [self._read(self.paths[i], u) for i, u in zip(sample_id.tolist(), uniforms, strict=True)]
        return ImageBatch(torch.stack(images).float().div_(255), self.labels[sample_id], sample_id)

    def __getitem__(self, number: int) -> ImageBatch:
        """Give one image, without the batch axis."""
        batch = self.__getitems__([number])
        return ImageBatch(batch.x[0], batch.y[0], batch.sample_id[0])

    def _read(self, path: Path, uniforms: np.ndarray) -> Tensor:
        from PIL import Image

        with Image.open(path) as file:
            image = file.convert("RGB")
        box = random_box(image.size, uniforms) if self.augment else middle_box(image.size)
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box, reducing_gap=None)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.flip(2) if self.augment and uniforms[4] < 0.5 else pixels


def middle_box(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Give the middle square of 7/8 of the shorter side, as (left, top, right, bottom), of an image (width, height)."""
    width, height = size
    side = min(size) * 7 / 8
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_box(size: tuple[int, int], uniforms: np.ndarray) -> tuple[float, float, float, float]:
    """Give a random part of an image: 8 to 100 % of its area, aspect 3/4 to 4/3, cut where it would stick out.

    Args:
        size: Width and height of the image.
        uniforms: At least four numbers in [0, 1): area, aspect, left, top.

    Returns:
        (left, top, right, bottom), in pixels.
    """
    width, height = size
    area = (0.08 + 0.92 * uniforms[0]) * width * height
    aspect = (3 / 4) ** (1 - 2 * uniforms[1])
    wide, high = min((area * aspect) ** 0.5, width), min((area / aspect) ** 0.5, height)
    left, top = (width - wide) * uniforms[2], (height - high) * uniforms[3]
    return left, top, left + wide, top + high


class ImageFolderDataModule(ImageSplits):
    """Photographs in folders, one folder a class, read by the loader's workers; pixels in [0, 1], in colour.

    The files are ``<data_dir>/<train_folder>/<class>/<any name>.jpg`` (or another image format) and the same in
    ``test_folder``; classes are numbered in the order of their folders' names. Of ImageNet, whose test labels are not
    public, the folder ``val`` is the test set. Batches and splits are those of :class:`ImageDataModule`.

    Args:
        data_dir: Folder of the folders.
        preset: ``restricted_imagenet`` joins classes of ImageNet's thousand to nine super-classes (dog, cat, frog,
            turtle, bird, primate, fish, crab, insect) and leaves out the others, as in
            `Tsipras et al. 2019 <https://arxiv.org/abs/1805.12152>`_.
        classes: Numbers or names of the (super-)classes to keep, relabelled 0, 1, ... in this order; ``None`` for all.
        image_size: Height and width of the images, in pixels.
        train_folder: Folder to train and validate on.
        test_folder: Folder to test on.
        train_samples: Largest number of training images, as in :class:`ImageDataModule`.
        val_samples: Validation images, cut from the training set; 0 for no validation.
        test_samples: Largest number of test images, a random part that is always the same; ``None`` for all.
        split_seed: Seed of these choices.
        augment: Train on random parts of the images, half of them mirrored.
        batch_size: Images in a batch, **of each process**.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.

    Raises:
        FileNotFoundError: If a folder is absent or has no images.
        ValueError: If an argument is out of range, a class is unknown, or the preset does not fit the folders.
    """

    def __init__(
        self,
        data_dir: str,
        preset: Literal["restricted_imagenet"] | None = None,
        classes: list[Label] | None = None,
        image_size: int = 224,
        train_folder: str = "train",
        test_folder: str = "val",
        train_samples: int | None = None,
        val_samples: int = 5000,
        test_samples: int | None = None,
        split_seed: int = 0,
        augment: bool = True,
        batch_size: int = 128,
        seed: int = 0,
        num_workers: int = 4,
    ) -> None:
        super().__init__(train_samples, val_samples, test_samples, split_seed, batch_size, seed, num_workers)
        self.check_least(1, image_size=image_size)
        self.data_dir = Path(data_dir).expanduser()
        self.folders = (train_folder, test_folder)
        #: For each class to keep, its name and the folders it joins.
        self.groups = self._groups(preset, classes)
        self.num_classes = len(self.groups)
        self.class_names = [name for name, _ in self.groups]
        self.input_shape = (3, image_size, image_size)
        self.augment = augment
        self._files: dict[str, tuple[list[Path], Tensor]] = {}

    def dataset(self, split: Split, augmented: bool = True) -> FolderDataset:
        """Give the images of a split; only training images are augmented, and only if that is asked for."""
        paths, labels = self._list(self.folders[split == "test"])
        chosen = self.cut_test(len(paths)) if split == "test" else self.cut_validation(len(paths))[split == "val"]
        augment = augmented and self.augment and split == "train"
        return FolderDataset(
            [paths[i] for i in chosen.tolist()], labels[chosen], self.input_shape[1], augment, self.seed
        )

    def fingerprint(self) -> str:
        """Give a digest of the files' names, sizes and labels, and of the images' size."""
        digest = hashlib.sha256(str(self.input_shape).encode())
        for split in ("train", "val"):
            data = self.dataset(split)
            for path, label in zip(data.paths, data.labels.tolist(), strict=True):
                digest.update(f"{path.relative_to(self.data_dir)} {path.stat().st_size} {label}\n".encode())
            digest.update(split.encode())
        return digest.hexdigest()

    def _groups(self, preset: str | None, classes: list[Label] | None) -> list[tuple[str, list[str]]]:
        root = self.data_dir / self.folders[0]
        names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        if not names:
            msg = f"ImageFolderDataModule(data_dir={str(self.data_dir)!r}): no folders of classes in {root}."
            raise FileNotFoundError(msg)
        if preset is None:
            groups = [(name, [name]) for name in names]
        elif len(names) == 1000:
            groups = [(name, names[first : last + 1]) for name, (first, last) in RESTRICTED_IMAGENET.items()]
        else:
            msg = (
                f"ImageFolderDataModule(preset={preset!r}): {root} has {len(names)} folders; it must be ImageNet's "
                "1000 classes."
            )
            raise ValueError(msg)
        kept = select_classes(type(self).__name__, classes, [name for name, _ in groups])
        return [groups[number] for number in kept]

    def _list(self, folder: str) -> tuple[list[Path], Tensor]:
        """Give the files of the kept classes and their labels, in a fixed order."""
        if folder not in self._files:
            paths: list[Path] = []
            labels: list[int] = []
            for label, (_, members) in enumerate(self.groups):
                for member in members:
                    found = sorted(
                        p for p in (self.data_dir / folder / member).rglob("*") if p.suffix.lower() in _SUFFIXES
                    )
                    paths += found
                    labels += [label] * len(found)
            if not paths:
                msg = f"ImageFolderDataModule(data_dir={str(self.data_dir)!r}): no images of these classes in {folder}."
                raise FileNotFoundError(msg)
            self._files[folder] = paths, torch.tensor(labels)
        return self._files[folder]
