"""What an image datamodule hands out: pixels, labels and the samples' numbers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["ImageBatch", "as_is"]


@dataclass
class ImageBatch:
    """Images with labels, that unpack as ``x, y = batch``; the samples' numbers ride along as ``batch.sample_id``.

    A LightningModule that knows nothing of theodolite takes it for the pair (x, y); a measurement finds each sample's
    number. It is no tuple, because ``DistributedDataParallel`` rebuilds tuples and would lose the numbers.

    Args:
        x: Pixels in [0, 1], float32 (B, C, H, W).
        y: Labels in 0 .. num_classes - 1, int64 (B,).
        sample_id: Number of each sample in its split, int64 (B,).
    """

    x: Tensor
    y: Tensor
    sample_id: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        """Give x, then y."""
        return iter((self.x, self.y))

    def __getitem__(self, part: int) -> Tensor:
        """Give x for 0 and y for 1."""
        return (self.x, self.y)[part]

    def __len__(self) -> int:
        """Give 2: the parts that unpack. The number of images is ``len(batch.x)``."""
        return 2

    def to(self, device: torch.device | str) -> "ImageBatch":
        """Copy to a device, without waiting where the memory is pinned."""
        wait = not self.x.is_pinned()
        return ImageBatch(*(part.to(device, non_blocking=not wait) for part in (self.x, self.y, self.sample_id)))

    def pin_memory(self) -> "ImageBatch":
        """Copy to page-locked memory, from where a GPU reads faster."""
        return ImageBatch(*(part.pin_memory() for part in (self.x, self.y, self.sample_id)))


def as_is(batch: Any) -> Any:
    """Give a batch that the dataset has made already: the collate function of image loaders."""
    return batch
