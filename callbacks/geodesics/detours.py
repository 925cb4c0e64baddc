"""Paths of matrices that stay away from a deficient rank: straight lines, or two by way of a random middle."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["bent", "middle", "product"]

#: A product counts as well conditioned above this ratio of its least to its largest singular value.
_CONDITION = 0.05


def middle(first: Sequence[Tensor], second: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Choose a point between two lists of matrices by way of which the product keeps its rank: the middle, if it does.

    Args:
        first: Matrices, the rightmost factor first.
        second: Matrices of the same shapes.
        generator: Of the random points that are tried.
    """
    fine = torch.linspace(0, 1, 401).to(first[0])
    chosen = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    best = _condition(bent(first, chosen, second, fine))
    for _ in range(200):
        if best >= _CONDITION:
            break
        size = [(a.norm() + b.norm()) / 2 / a.numel() ** 0.5 for a, b in zip(first, second, strict=True)]
        trial = [torch.randn(m.shape, generator=generator).to(m) * scale for m, scale in zip(chosen, size, strict=True)]
        quality = _condition(bent(first, trial, second, fine))
        if quality > best:
            chosen, best = trial, quality
    return chosen


def bent(first: Sequence[Tensor], middle: Sequence[Tensor], second: Sequence[Tensor], t: Tensor) -> list[Tensor]:
    """Move on straight lines to a point in the middle, and on to the other end, at places t (T,) in [0, 1]."""
    near, far = (2 * t).clamp(max=1)[:, None, None], (2 * t - 1).clamp(min=0)[:, None, None]
    parts = zip(first, middle, second, strict=True)
    return [torch.where(far > 0, torch.lerp(m, b, far), torch.lerp(a, m, near)) for a, m, b in parts]


def product(weights: Sequence[Tensor]) -> Tensor:
    """Multiply stacks of matrices, the first layer rightmost, (T, n_out, n_in)."""
    result = weights[0]
    for weight in weights[1:]:
        result = weight @ result
    return result


def _condition(weights: Sequence[Tensor]) -> float:
    """Give the least ratio of smallest to largest singular value of the product along a path."""
    values = torch.linalg.svdvals(product(weights))
    return float((values[:, -1] / values[:, 0].clamp_min(torch.finfo(values.dtype).tiny)).min())
