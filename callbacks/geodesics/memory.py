"""A landscape that evaluates no point twice."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from .landscape import Landscape

__all__ = ["Remembered"]


class Remembered(Landscape):
    """Remember the values of a landscape of large networks, by a digest of the parameters.

    A segment that passed is certified on the grid it was tested on, and neighbours share a bead: of a search
    every second evaluation is spared. A digest takes milliseconds, an evaluation of a large network seconds.

    Args:
        landscape: Its values must depend on the point alone.
    """

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.counted = landscape.counted
        self.period = landscape.period
        self.level_is_loss = landscape.level_is_loss
        self._own: dict[bytes, Tensor] = {}
        self._common: dict[bytes, Tensor] = {}  # the same on all processes

    def gradient(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Give the landscape's own."""
        return self.landscape.gradient(points, step)

    def values(self, points: Tensor) -> Tensor:
        """Evaluate the points that are new."""
        return self._remember(self._own, self.landscape.values, points)

    def values_together(self, points: Tensor) -> Tensor:
        """Evaluate together the points that no such call had."""
        return self._remember(self._common, self.landscape.values_together, points)

    def _remember(self, known: dict[bytes, Tensor], evaluate: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        keys = [hashlib.blake2b(point.cpu().numpy().tobytes()).digest() for point in points.detach().contiguous()]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip((keys[i] for i in new), evaluate(points[new]), strict=True))
        return torch.stack([known[key] for key in keys])
