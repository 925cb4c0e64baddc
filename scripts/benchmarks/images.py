"""What it costs to make batches of images, beside a training step on them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...datamodules.images import ImageBatch, ImageDataModule
from ...modules.classification import SmallCNN
from .timing import median_times, row

__all__ = ["run"]


class _Colours(ImageDataModule):
    """Random images of CIFAR-10's shape."""

    all_classes, image_shape = tuple("0123456789"), (3, 32, 32)

    def read(self, train: bool) -> tuple[Tensor, Tensor]:
        """Draw as many images as a few hundred batches take."""
        generator = torch.Generator().manual_seed(int(train))
        images = torch.randint(0, 256, (20_000, *self.image_shape), dtype=torch.uint8, generator=generator)
        return images, torch.arange(len(images)) % 10


class _Digits(_Colours):
    """Random images of MNIST's shape."""

    image_shape = (1, 28, 28)


def run(repeats: int = 20) -> list[dict[str, Any]]:
    """Time batches of 128 from memory and steps of a small network on them, in turn, in this process without workers.

    Args:
        repeats: Batches and steps of each kind.

    Returns:
        Rows of name, value, unit, bound and met.
    """
    colours = _Colours(val_samples=0, crop_padding=4, flip=True)
    rows = []
    for name, data in (("3x32x32, crops and flips", colours), ("1x28x28", _Digits(val_samples=0))):
        batches = iter(data.train_dataloader())
        step = _step(data, next(batches))
        seconds = median_times({"load": lambda batches=batches: next(batches), "step": step}, repeats)
        share = 100 * seconds["load"] / seconds["step"]
        rows.append(row(f"time of loading / of a step of SmallCNN, 128 x {name}", share, "%", at_most=5))
    return rows


def _step(data: ImageDataModule, batch: ImageBatch) -> Callable[[], None]:
    """Give a function that takes one training step on the batch."""
    network = SmallCNN(data.num_classes, data.input_shape)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(batch.x), batch.y).backward()
        optimizer.step()

    return step
