"""MNIST, Fashion-MNIST and CIFAR-10 as LightningDataModules."""

from typing import Any

import torch
from torch import Tensor

from .base import ImageDataModule

__all__ = ["CIFAR10DataModule", "FashionMNISTDataModule", "MNISTDataModule"]

#: Names of the classes, as in the sets' own documentation.
DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class TorchvisionDataModule(ImageDataModule):
    """A set that torchvision downloads, checks and reads."""

    #: Name of torchvision's class.
    source = ""

    def prepare_data(self) -> None:
        """Download what is not in ``data_dir``, checked by torchvision's own checksums."""
        self._open(train=True, download=True)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Read the original training or test set."""
        data = self._open(train, download=False)
        images, labels = torch.as_tensor(data.data), torch.as_tensor(data.targets)
        images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return images.contiguous(), labels.long()

    def _open(self, train: bool, download: bool) -> Any:
        from torchvision import datasets  # half a second that --help need not wait for

        try:
            return getattr(datasets, self.source)(self.data_dir, train=train, download=download)
        except (RuntimeError, OSError, EOFError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            msg = (
                f"{type(self).__name__}(data_dir={str(self.data_dir)!r}): {self.source} is not there, or damaged, and "
                f"could not be downloaded ({reason}); put torchvision's files there, or give another data_dir."
            )
            raise FileNotFoundError(msg) from error


class MNISTDataModule(TorchvisionDataModule):
    """Handwritten digits, 28x28 grey: 60,000 to train and validate, 10,000 to test.

    Arguments and splits: :class:`ImageDataModule`. Files: ``MNIST/raw/`` in ``data_dir``.

    Example:
        >>> data = MNISTDataModule("data", batch_size=100)
        >>> x, y = next(iter(data.test_dataloader()))
        >>> x.shape, y.shape
        (torch.Size([100, 1, 28, 28]), torch.Size([100]))
    """

    all_classes, image_shape, source = DIGITS, (1, 28, 28), "MNIST"


class FashionMNISTDataModule(TorchvisionDataModule):
    """Photographs of clothes, 28x28 grey: 60,000 to train and validate, 10,000 to test.

    Arguments and splits: :class:`ImageDataModule`. Files: ``FashionMNIST/raw/`` in ``data_dir``.
    """

    all_classes, image_shape, source = CLOTHES, (1, 28, 28), "FashionMNIST"


class CIFAR10DataModule(TorchvisionDataModule):
    """Photographs of ten kinds of animals and vehicles, 32x32 in colour: 50,000 to train and validate, 10,000 to test.

    Arguments and splits: :class:`ImageDataModule`. Files: ``cifar-10-batches-py/`` in ``data_dir``. Dogs against cats
    is ``classes=["dog", "cat"]``.
    """

    all_classes, image_shape, source = OBJECTS, (3, 32, 32), "CIFAR10"
