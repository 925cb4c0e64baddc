"""The highest value along segments, on a grid that is refined until it can be trusted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .landscape import Landscape
from .path import Path

__all__ = ["Profile", "along", "certify"]


@dataclass(frozen=True)
class Profile:
    """Values along one segment: ``t`` (n,) ascending in [0, 1], ``values`` (n,)."""

    t: Tensor
    values: Tensor

    @property
    def maximum(self) -> float:
        """Highest value; infinite if any is not a number."""
        return float(self.values.nan_to_num(nan=float("inf")).max())

    @property
    def highest(self) -> float:
        """Where the value is highest strictly between the ends (0.5 if nothing was tested there)."""
        inside = (self.t > 0) & (self.t < 1)
        if not inside.any():
            return 0.5
        return float(self.t[inside][self.values[inside].nan_to_num(nan=float("inf")).argmax()])


def certify(
    landscape: Landscape,
    starts: Tensor,
    ends: Tensor,
    *,
    grid: int = 33,
    tolerance: float | None = None,
    ceiling: float = float("inf"),
    max_rounds: int = 40,
) -> list[Profile]:
    r"""Test S segments on a grid, and refine it where the value may be higher than what was seen.

    Between two neighbours a function of slope at most L is at most :math:`(v_i + v_{i+1} + L h_i) / 2`; L is taken as
    the steepest of the difference quotients of the interval and its two neighbours. Intervals whose bound exceeds the
    highest value by more than ``tolerance`` are halved, until there are none. A bump of constant slopes that is at
    least four grid steps wide cannot be missed; what is narrower than a step can, by any finite test.

    On several processes each evaluates its share of the points; all must call it, with the same segments.

    Args:
        landscape: Gives the values.
        starts: First ends, (S, P).
        ends: Second ends, (S, P).
        grid: Points of the first grid, both ends included, >= 2.
        tolerance: How much the bound may exceed the maximum, in units of the value; ``None`` for no refinement.
        ceiling: A segment already above it is not refined.
        max_rounds: Most halvings of an interval.

    Returns:
        One profile a segment.
    """
    base = torch.linspace(0, 1, grid, dtype=starts.dtype, device=starts.device)
    values = _along(landscape, starts, ends, [base] * len(starts))
    profiles = [Profile(base, value) for value in values]
    if tolerance is None:
        return profiles
    todo = list(range(len(profiles)))
    for _ in range(max_rounds):
        new = {i: _midpoints(profiles[i], tolerance, ceiling) for i in todo}
        todo = [i for i in todo if len(new[i])]
        if not todo:
            break
        values = _along(landscape, starts[todo], ends[todo], [new[i] for i in todo])
        for i, value in zip(todo, values, strict=True):
            t, order = torch.cat([profiles[i].t, new[i]]).sort()
            profiles[i] = Profile(t, torch.cat([profiles[i].values, value])[order])
    return profiles


def along(landscape: Landscape, path: Path) -> Tensor:
    """Evaluate another quantity where a path was tested, (T,)."""
    segment, t = path.place(path.position)
    return _interpolated(landscape, path.beads[:-1], path.beads[1:], segment, t)


def _midpoints(profile: Profile, tolerance: float, ceiling: float) -> Tensor:
    """Give the middles of the intervals that may hide a higher value, (m,)."""
    t, v = profile.t, profile.values
    highest = v.max()
    if not bool(v.isfinite().all()) or float(highest) > ceiling:
        return t[:0]
    steps = t.diff()
    slopes = (v.diff() / steps).abs()
    padded = torch.nn.functional.pad(slopes, (1, 1))
    steepest = torch.maximum(torch.maximum(padded[:-2], padded[2:]), slopes)
    bound = (v[:-1] + v[1:] + steepest * steps) / 2
    chosen = bound > highest + tolerance
    return ((t[:-1] + t[1:]) / 2)[chosen]


def _along(landscape: Landscape, starts: Tensor, ends: Tensor, places: list[Tensor]) -> list[Tensor]:
    """Evaluate each segment at its own places, all in one call."""
    sizes = [len(place) for place in places]
    segment = torch.repeat_interleave(
        torch.arange(len(sizes), device=starts.device), torch.tensor(sizes).to(starts.device)
    )
    return list(_interpolated(landscape, starts, ends, segment, torch.cat(places)).split(sizes))


def _interpolated(landscape: Landscape, starts: Tensor, ends: Tensor, segment: Tensor, t: Tensor) -> Tensor:
    """Evaluate n points, each at a place t (n,) of one of S segments: ``segment`` (n,) says which; gives (n,)."""
    # slices bound the memory of the points themselves, which for a large network exceeds that of its activations
    rows = max(2**26 // max(starts.shape[1] * starts.element_size(), 1), 1)
    values = [
        landscape.values_together(torch.lerp(starts[s], ends[s], part[:, None]))
        for s, part in zip(segment.split(rows), t.split(rows), strict=True)
    ]
    return torch.cat(values)
