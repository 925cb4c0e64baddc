"""Exact quantiles and histograms of numbers that are spread over processes, exchanging counts only."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Summary", "order_statistics", "summaries"]

Reduce = Callable[[Tensor], Tensor]

_DIGIT = 8
_SIZE = 2**_DIGIT
_MAGNITUDE = 2**63 - 1


class Summary(NamedTuple):
    """Quantiles of all numbers, and a histogram of the finite ones: counts (bins,) and edges (bins + 1,), or empty."""

    quantiles: list[float]
    counts: list[int]
    edges: list[float]


def order_statistics(values: Tensor, ranks: Tensor, reduce: Reduce) -> Tensor:
    """Give the k-th smallest numbers of each quantity over all processes, exactly, by radix selection.

    The 64 bits of a number, read as an integer of the same order, are found eight at a time: every process counts its
    numbers in 256 bins, and the counts are added. So 8 sums are exchanged, of 256 counts a statistic each, whatever the
    number of samples.

    Args:
        values: This process's numbers, float64 (n, quantities), n may be 0; NaN sorts last.
        ranks: Which ones of each quantity, int64 (quantities, statistics), 0 the smallest, the same on every process,
            less than the number of all its values.
        reduce: Adds an int64 tensor over the processes.

    Returns:
        The numbers, float64 (quantities, statistics), the same on every process.
    """
    keys = _to_keys(values.T.contiguous()).sort(dim=1).values
    left = ranks.clone()
    base = torch.full_like(left, -(2**63))
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        lows = base[..., None] + torch.arange(_SIZE) * 2**shift
        upto = torch.searchsorted(keys, lows.flatten(1) + (2**shift - 1), right=True)
        counts = reduce((upto - torch.searchsorted(keys, lows.flatten(1))).view_as(lows))
        before = counts.cumsum(2) - counts
        digit = (before + counts <= left[..., None]).sum(2, keepdim=True)  # the bins that end before it
        left = left - before.gather(2, digit)[..., 0]
        base = lows.gather(2, digit)[..., 0]
    return _to_values(base)


def summaries(values: Tensor, levels: Sequence[float], bins: int, reduce: Reduce) -> list[Summary]:
    """Give exact quantiles and a histogram of each quantity, over the samples of all processes.

    Quantiles are interpolated linearly between neighbours, as NumPy does. A histogram has equal bins from the smallest
    to the largest finite number, its last bin with the right edge. All quantities go together: 10 sums are exchanged.

    Args:
        values: This process's numbers, float64 (n, quantities), n may be 0.
        levels: Of the quantiles, in [0, 1].
        bins: Number of bins, >= 1.
        reduce: Adds an int64 tensor over the processes.

    Returns:
        One summary a quantity, the same on every process.

    Raises:
        ValueError: If no process has a sample.
    """
    finite = values.isfinite()
    own = torch.stack([torch.ones_like(finite), values == -torch.inf, finite]).sum(1)
    totals, below, within = reduce(own)
    if not int(totals[0]):
        msg = "There are no samples to summarise: give at least one process one."
        raise ValueError(msg)
    places = [level * (int(totals[0]) - 1) for level in levels]
    ends = sorted({rank for place in places for rank in (math.floor(place), math.ceil(place))})
    extremes = torch.stack([below, below + within - 1], dim=1).clamp(min=0).minimum(totals[:, None] - 1)
    ranks = torch.cat([torch.tensor(ends).expand(len(totals), -1), extremes], dim=1)
    found = order_statistics(values, ranks, reduce)
    low, high = found[:, -2], found[:, -1]
    half = torch.where(low == high, 0.5, 0.0)
    edges = torch.stack(
        [
            torch.linspace(float(start), float(end), bins + 1, dtype=torch.float64)
            for start, end in zip(low - half, high + half, strict=True)
        ]
    )
    bin_of = (torch.searchsorted(edges, values.T.contiguous(), right=True) - 1).clamp(0, bins - 1)
    counts = reduce(torch.zeros_like(edges[:, 1:], dtype=torch.int64).scatter_add_(1, bin_of, finite.T.long()))
    result = []
    for number, column in enumerate(found.tolist()):
        known = dict(zip(ends, column, strict=False))
        between = [_between(known[math.floor(place)], known[math.ceil(place)], place % 1) for place in places]
        some = bool(within[number])
        histogram = (counts[number].tolist(), edges[number].tolist()) if some else ([], [])
        result.append(Summary(between, *histogram))
    return result


def _to_keys(values: Tensor) -> Tensor:
    """Map float64 to int64 of the same order, NaN above infinity."""
    values = torch.where(values.isnan(), torch.nan, values.double() + 0.0)  # one NaN, one zero
    bits = values.view(torch.int64)
    return torch.where(bits < 0, bits ^ _MAGNITUDE, bits)


def _to_values(keys: Tensor) -> Tensor:
    return torch.where(keys < 0, keys ^ _MAGNITUDE, keys).view(torch.float64)


def _between(low: float, high: float, part: float) -> float:
    return low if part == 0 or low == high else low + part * (high - low)
