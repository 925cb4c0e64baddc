"""Dynamic String Sampling: a polyline that gets a trained bead wherever it rises above the level."""

import os
from collections.abc import Sequence
from pathlib import Path as FilePath

import torch
from torch import Tensor

from .descent import descend
from .landscape import Landscape
from .profile import Profile, certify
from .ranks import share
from .settings import Settings

__all__ = ["dynamic_strings"]


class _String:
    """The polyline of one pair: its beads, which segments passed, and whether the search goes on."""

    def __init__(self, beads: Tensor, passed: list[bool] | None = None, alive: bool = True) -> None:
        self.beads = beads
        self.passed = [False] * (len(beads) - 1) if passed is None else passed
        self.alive = alive

    def open(self) -> list[int]:
        return [i for i, passed in enumerate(self.passed) if not passed] if self.alive else []

    def insert(self, new: dict[int, Tensor]) -> None:
        """Put a bead into each of these segments; both halves are then untested."""
        beads, passed = [self.beads[0]], []
        for i, old in enumerate(self.passed):
            beads += [new[i], self.beads[i + 1]] if i in new else [self.beads[i + 1]]
            passed += [False, False] if i in new else [old]
        self.beads, self.passed = torch.stack(beads), passed


def dynamic_strings(
    landscape: Landscape,
    starts: Tensor,
    ends: Tensor,
    level: float,
    settings: Settings,
    state: FilePath | None = None,
) -> list[tuple[Tensor, bool]]:
    """Search for paths between Q pairs at once, breadth first: all open segments of all pairs get their bead together.

    From `"Topology and Geometry of Half-Rectified Network Optimization" <https://arxiv.org/abs/1611.01540>`_, algorithm
    1. A segment passes when its highest value is at most ``accept`` times the level; one that does not gets a bead
    between its ends, which is trained to ``bead`` times the level. A bead that stays above what is accepted ends the
    search of its pair. On several processes beads and segments are shared out; the result is that of one.

    Args:
        landscape: The loss.
        starts: First ends, (Q, P).
        ends: Second ends, (Q, P).
        level: The level.
        settings: Budget and convention.
        state: File that holds the strings after each pass; a search finds it and goes on. Deleted at the end.

    Returns:
        The beads of each pair, (K, P), and whether all of its segments passed.
    """
    strings, done = _restore(state, starts, ends)
    for number in range(done, settings.max_passes + 1):
        splits = _test(landscape, strings, level, settings, forced=settings.first_bead and number == 0)
        if not splits or number == settings.max_passes:
            break
        _split(landscape, strings, splits, level, settings)
        _store(state, strings, number + 1)
    _forget(state)
    return [(string.beads, string.alive and all(string.passed)) for string in strings]


def _test(
    landscape: Landscape, strings: Sequence[_String], level: float, settings: Settings, forced: bool
) -> list[tuple[_String, int, float]]:
    """Mark the segments that pass, and list the others with the place of their bead."""
    todo = [(string, i) for string in strings for i in string.open()]
    if forced or not todo:
        return [(string, i, 0.5) for string, i in todo]
    if settings.accept == float("inf"):  # everything passes: nothing to be tested
        for string, i in todo:
            string.passed[i] = True
        return []
    profiles = _profiles(landscape, todo, level, settings)
    splits = []
    for (string, i), profile in zip(todo, profiles, strict=True):
        string.passed[i] = profile.maximum <= settings.accept * level
        if not string.passed[i]:
            splits.append((string, i, 0.5 if settings.split == "middle" else profile.highest))
    return splits


def _profiles(
    landscape: Landscape, todo: Sequence[tuple[_String, int]], level: float, settings: Settings
) -> list[Profile]:
    """Test segments, each process its share: of each come the highest value and where it is."""

    def work(rows: Tensor) -> tuple[Tensor, ...]:
        starts, ends = rows.chunk(2, dim=1)
        profiles = certify(
            landscape,
            starts,
            ends,
            grid=settings.grid,
            tolerance=settings.tolerance * abs(level) if settings.refine else None,
            ceiling=settings.accept * level,
        )
        places = rows.new_tensor([[profile.highest, profile.maximum] for profile in profiles])
        return (places,)

    rows = torch.stack([torch.cat([string.beads[i], string.beads[i + 1]]) for string, i in todo])
    (places,) = share(work, rows)
    return [Profile(place[:1], place[1:]) for place in places]


def _split(
    landscape: Landscape,
    strings: Sequence[_String],
    splits: Sequence[tuple[_String, int, float]],
    level: float,
    settings: Settings,
) -> None:
    """Train a bead for each open segment, and insert it."""

    def work(rows: Tensor) -> tuple[Tensor, ...]:
        return descend(
            landscape,
            rows,
            settings.bead * level,
            lr=settings.lr,
            block=settings.block,
            max_steps=settings.max_steps,
            optimizer=settings.optimizer,
            clip=settings.clip,
        )

    points = torch.stack([torch.lerp(string.beads[i], string.beads[i + 1], t) for string, i, t in splits])
    beads, values = share(work, points)
    new: dict[int, dict[int, Tensor]] = {}
    for (string, i, _), bead, value in zip(splits, beads, values, strict=True):
        new.setdefault(id(string), {})[i] = bead
        if not float(value) <= settings.accept * level:
            string.alive = False
    for string in strings:
        if id(string) in new:
            string.insert(new[id(string)])


def _restore(state: FilePath | None, starts: Tensor, ends: Tensor) -> tuple[list[_String], int]:
    if state is None or not state.is_file():
        return [_String(torch.stack(pair)) for pair in zip(starts, ends, strict=True)], 0
    saved = torch.load(state, map_location=starts.device, weights_only=True)
    strings = [_String(*fields) for fields in saved["strings"]]
    if not torch.equal(torch.stack([s.beads[[0, -1]] for s in strings]), torch.stack([starts, ends], dim=1)):
        msg = f"{state} holds a search between other networks; delete it, or give another file."
        raise ValueError(msg)
    return strings, saved["passes"]


def _store(state: FilePath | None, strings: Sequence[_String], passes: int) -> None:
    if state is None or _rank() != 0:
        return
    state.parent.mkdir(parents=True, exist_ok=True)
    partial = state.with_suffix(".tmp")
    torch.save({"strings": [(s.beads, s.passed, s.alive) for s in strings], "passes": passes}, partial)
    os.replace(partial, state)  # noqa: PTH105  # atomic: a killed search never leaves half a file


def _forget(state: FilePath | None) -> None:
    if state is not None and _rank() == 0:
        state.unlink(missing_ok=True)


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
