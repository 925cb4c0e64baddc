"""Exact quantiles and histograms of numbers that are spread over processes, exchanging counts only."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["histogram", "order_statistics", "quantiles"]

Reduce = Callable[[Tensor], Tensor]

_DIGIT = 8
_SIZE = 2**_DIGIT
_MAGNITUDE = 2**63 - 1


def order_statistics(values: Tensor, ranks: Sequence[int], reduce: Reduce) -> list[float]:
    """Give the k-th smallest of the numbers of all processes, exactly, by radix selection.

    The 64 bits of a number, read as an integer of the same order, are found eight at a time: every process counts its
    numbers in 256 bins, and the counts are added. So 8 sums of 256 counts a statistic are exchanged, whatever the
    number of samples.

    Args:
        values: This process's numbers, float64 (n,), n may be 0; NaN sorts last.
        ranks: Which ones, 0 the smallest, the same on every process, less than the number of all values.
        reduce: Adds an int64 tensor over the processes.

    Returns:
        The numbers, the same on every process.
    """
    keys = _to_keys(values).sort().values
    left = torch.tensor(list(ranks), dtype=torch.int64)
    base = torch.full_like(left, -(2**63))
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        lows = base[:, None] + torch.arange(_SIZE)[None] * 2**shift
        upto = torch.searchsorted(keys, lows + (2**shift - 1), right=True)
        counts = reduce(upto - torch.searchsorted(keys, lows))
        before = counts.cumsum(1) - counts
        digit = (before + counts <= left[:, None]).sum(1)  # the bins that end before it
        left = left - before.gather(1, digit[:, None])[:, 0]
        base = lows.gather(1, digit[:, None])[:, 0]
    return _to_values(base).tolist()


def quantiles(values: Tensor, levels: Sequence[float], total: int, reduce: Reduce) -> list[float]:
    """Give exact quantiles of the numbers of all processes, interpolated linearly between neighbours, as NumPy does.

    Args:
        values: This process's numbers, float64 (n,), n may be 0.
        levels: In [0, 1].
        total: Number of values of all processes, > 0.
        reduce: Adds an int64 tensor over the processes.
    """
    places = [level * (total - 1) for level in levels]
    ranks = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    found = dict(zip(ranks, order_statistics(values, ranks, reduce), strict=True))
    return [_between(found[math.floor(place)], found[math.ceil(place)], place % 1) for place in places]


def histogram(values: Tensor, bins: int, reduce: Reduce) -> tuple[list[int], list[float]]:
    """Count the finite numbers of all processes in equal bins from the smallest to the largest.

    Args:
        values: This process's numbers, float64 (n,), n may be 0; what is not finite is left out.
        bins: Number of bins, >= 1.
        reduce: Adds an int64 tensor over the processes.

    Returns:
        Counts (bins,) and edges (bins + 1,), the same on every process; the last bin includes its right edge. Empty
        lists if no number is finite.
    """
    finite = values[values.isfinite()]
    total = int(reduce(torch.tensor(len(finite))))
    if total == 0:
        return [], []
    low, high = order_statistics(finite, [0, total - 1], reduce)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    index = (torch.searchsorted(edges, finite, right=True) - 1).clamp(0, bins - 1)
    return reduce(torch.bincount(index, minlength=bins)).tolist(), edges.tolist()


def _to_keys(values: Tensor) -> Tensor:
    """Map float64 to int64 of the same order, NaN above infinity."""
    values = torch.where(values.isnan(), torch.nan, values.double() + 0.0)  # one NaN, one zero
    bits = values.view(torch.int64)
    return torch.where(bits < 0, bits ^ _MAGNITUDE, bits)


def _to_values(keys: Tensor) -> Tensor:
    return torch.where(keys < 0, keys ^ _MAGNITUDE, keys).view(torch.float64)


def _between(low: float, high: float, part: float) -> float:
    return low if part == 0 or low == high else low + part * (high - low)
