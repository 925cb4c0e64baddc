"""Find a path between two networks, or between many pairs at once, by any method."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from .alignment import aligned
from .batch_norm import batch_norms
from .curves import bezier
from .dynamic_string import dynamic_strings
from .elastic_band import elastic_band
from .landscape import Landscape, LossFunction, ModelLandscape, as_measured, flat, loss_of
from .path import Path, segment_lengths
from .profile import certify
from .settings import Settings

__all__ = ["Method", "check_same_buffers", "check_same_parameters", "connect", "find_paths", "higher_end"]

Method = Literal["dss", "linear", "bezier", "neb"]


def connect(
    model_a: nn.Module,
    model_b: nn.Module,
    batches: Sequence[Any],
    level: float,
    method: Method = "dss",
    settings: Settings | None = None,
    *,
    loss_fn: LossFunction | None = None,
    level_fn: LossFunction | None = None,
    level_batches: Sequence[Any] | None = None,
    level_scale: Callable[[Tensor], Tensor] | None = None,
    count: Literal["all", "weights"] = "all",
    align: bool = False,
    state: FilePath | None = None,
) -> Path:
    """Search for a path between two networks on which a quantity stays at or below a level.

    Both are evaluated in evaluation mode and left as they are.

    Args:
        model_a: First end.
        model_b: Second end, with the same parameters by name and shape.
        batches: Batches that beads are trained on.
        level: The level, in units of the quantity.
        method: ``dss`` (dynamic string sampling), ``linear`` (the straight line), ``bezier`` (curve finding) or ``neb``
            (nudged elastic band).
        settings: Budget and convention; ``None`` for the defaults.
        loss_fn: Training loss of (module, batch), a mean over samples; ``None`` calls ``module.loss(batch)``.
        level_fn: The quantity, e.g. an error rate, a mean over samples; ``None`` for the training loss.
        level_batches: Batches the quantity is averaged over; ``None`` for ``batches``.
        level_scale: Applied to that average, e.g. ``torch.exp`` for a perplexity.
        count: Parameters that lengths count.
        align: Exchange hidden units of B first, to bring its weights close to A's (:func:`aligned`): the path ends at a
            network with B's function and other weights.
        state: File for going on after a kill (``dss``).

    Returns:
        The path; its maximum is certified on a refined grid by every method.

    Raises:
        ValueError: If the networks differ in their parameters or buffers, an end is above the level or not a number,
            the level or the method is none, or the network cannot be aligned.
    """
    check_same_parameters(model_a, model_b)
    check_same_buffers(model_a, model_b.state_dict())
    landscape = ModelLandscape(
        model_a,
        batches,
        loss_fn=loss_fn,
        level_fn=level_fn,
        level_batches=level_batches,
        level_scale=level_scale,
        count=count,
    )
    with as_measured(model_a):
        start, end = flat(model_a), flat(model_b).to(flat(model_a))
        if align:
            moved = aligned(model_a, model_b.state_dict(), batches[0], loss_of(model_a, loss_fn))
            end = flat(model_a, moved)
        return find_paths(landscape, start[None], end[None], level, method, settings, state=state)[0]


def find_paths(
    landscape: Landscape,
    starts: Tensor,
    ends: Tensor,
    level: float,
    method: Method = "dss",
    settings: Settings | None = None,
    *,
    state: FilePath | None = None,
) -> list[Path]:
    """Search for paths between Q pairs of points at once.

    Args:
        landscape: The loss.
        starts: First ends, (Q, P).
        ends: Second ends, (Q, P).
        level: The level.
        method: As in :func:`connect`.
        settings: As in :func:`connect`.
        state: As in :func:`connect`.

    Returns:
        One path a pair.

    Raises:
        ValueError: As in :func:`connect`.
    """
    settings = settings or Settings()
    if method not in get_args(Method):
        msg = f"connect(method={method!r}): choose from {', '.join(get_args(Method))}."
        raise ValueError(msg)
    _check_ends(landscape, torch.cat([starts, ends]), level, settings)
    match method:
        case "dss":
            found = dynamic_strings(landscape, starts, ends, level, settings, state)
        case "linear":
            found = [(torch.stack(pair), True) for pair in zip(starts, ends, strict=True)]
        case "bezier":
            found = [(bezier(landscape, *pair, settings), True) for pair in zip(starts, ends, strict=True)]
        case "neb":
            found = [(elastic_band(landscape, *pair, settings), True) for pair in zip(starts, ends, strict=True)]
    return [_tested(landscape, beads, passed, level, method, settings) for beads, passed in found]


def higher_end(landscape: Landscape, ends: Tensor) -> float:
    """Give the largest value of points (n, P), and its rounding more: evaluated with others it may come out higher."""
    worst = float(landscape.values_together(ends).max())
    return worst + min(64 * torch.finfo(ends.dtype).eps, 1e-4) * abs(worst)


def _tested(
    landscape: Landscape, beads: Tensor, passed: bool, level: float, method: Method, settings: Settings
) -> Path:
    """Certify the highest value along a polyline, on the refined grid whatever the search tested."""
    tolerance = settings.tolerance * abs(level)
    profiles = certify(landscape, beads[:-1], beads[1:], grid=settings.grid, tolerance=tolerance)
    lengths = segment_lengths(beads)
    total = lengths.sum().clamp_min(torch.finfo(beads.dtype).tiny)
    starts = (lengths.cumsum(0) - lengths) / total
    position = torch.cat([start + profile.t * (length / total) for start, length, profile in zip(
        starts, lengths, profiles, strict=True)])  # fmt: skip
    values = torch.cat([profile.values for profile in profiles])
    accepted = settings.accepted(level)
    connected = passed and (method == "dss" or bool((values <= accepted).all()))
    return Path(beads, position.clamp(0, 1), values, level, accepted, connected, method, landscape.counted)


def _check_ends(landscape: Landscape, ends: Tensor, level: float, settings: Settings) -> None:
    values = landscape.values_together(ends)
    worst = float(values.max())
    if math.isnan(worst):
        msg = "connect: the value of an end is not a number; check its weights (a diverged training?) and the batches."
        raise ValueError(msg)
    if not math.isfinite(level):
        msg = f"connect(level={level}): must be a finite number, in units of what it bounds."
        raise ValueError(msg)
    if worst > settings.accepted(level):
        msg = (
            f"connect(level={level:g}): an end has the value {worst:g}, so no path can stay below; train the "
            "networks further or give a higher level."
        )
        raise ValueError(msg)


def check_same_parameters(model_a: nn.Module, model_b: nn.Module) -> None:
    """Refuse two networks whose parameters differ in name or shape.

    Raises:
        ValueError: Naming the first difference.
    """
    first, second = ({name: tuple(p.shape) for name, p in model.named_parameters()} for model in (model_a, model_b))
    for name in [*first, *second]:
        if first.get(name) != second.get(name):
            shapes = [str(shapes.get(name, "absent")) for shapes in (first, second)]
            msg = f"connect: the networks differ in {name}: {shapes[0]} and {shapes[1]}; give two of one architecture."
            raise ValueError(msg)


def check_same_buffers(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse another network whose buffers differ: a path moves parameters alone, so it would not end there.

    Statistics of batch normalisation may differ: they are re-estimated at every point.

    Args:
        module: The network that is evaluated.
        state: ``state_dict`` of the other; buffers that it has not are taken for the same.

    Raises:
        ValueError: Naming the first difference.
    """
    re_estimated = {id(buffer) for norm in batch_norms(module) for buffer in norm.buffers()}
    for name, buffer in module.named_buffers():
        other = state.get(name)
        if other is not None and id(buffer) not in re_estimated and not torch.equal(buffer, other.to(buffer)):
            msg = (
                f"connect: the networks differ in the buffer {name}, which no path moves, so it would not end at the "
                "second one; give two networks with the same."
            )
            raise ValueError(msg)
