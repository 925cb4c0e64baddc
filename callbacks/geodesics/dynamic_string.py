"""Dynamic String Sampling: a polyline that gets a trained bead wherever it rises above the level."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from .kept import read, write
from .landscape import Landscape
from .profile import certify
from .ranks import rank_and_size
from .settings import Settings
from .status import stage
from .training import Training

__all__ = ["dynamic_strings"]

#: A segment of a pair's string: number of the pair, and the places of the segment's two ends.
_Segment = tuple[int, int, int]


class _String:
    """The polyline of one pair: beads by their place, which segments passed, and whether the search goes on.

    The ends are at places 0 and ``size``, the bead of a segment is half way between the places of its ends.
    """

    def __init__(self, start: Tensor, end: Tensor, size: int) -> None:
        self.beads = {0: start, size: end}
        self.passed: set[tuple[int, int]] = set()
        self.alive = True

    def segments(self) -> list[tuple[int, int]]:
        return list(pairwise(sorted(self.beads)))

    def polyline(self) -> Tensor:
        return torch.stack([self.beads[place] for place in sorted(self.beads)])

    def complete(self) -> bool:
        return self.alive and self.passed.issuperset(self.segments())


def dynamic_strings(
    landscape: Landscape,
    starts: Tensor,
    ends: Tensor,
    level: float,
    settings: Settings,
    state: FilePath | None = None,
) -> list[tuple[Tensor, bool]]:
    """Search for paths between Q pairs at once; the open segments of all pairs have their beads trained together.

    From `"Topology and Geometry of Half-Rectified Network Optimization" <https://arxiv.org/abs/1611.01540>`_, algorithm
    1. A segment passes when its highest value is at most ``accept`` times the level; one that does not gets a bead
    between its ends, which is trained to ``bead`` times the level. As soon as a bead is done its two segments are
    tested: slow beads hold up nobody else. A bead that stays above what is accepted, or a segment that fails after
    ``max_passes`` halvings, ends the search of its pair. On several processes beads and tested points are shared
    out; the result is that of one, to rounding.

    Args:
        landscape: The loss.
        starts: First ends, (Q, P).
        ends: Second ends, (Q, P).
        level: The level.
        settings: Budget and convention.
        state: File that holds the beads that are done; a search finds it and goes on. Deleted at the end.

    Returns:
        The beads of each pair, (K, P), and whether all of its segments passed.

    Raises:
        ValueError: If the file holds another search.
    """
    strings = [_String(*pair, 2**settings.max_passes) for pair in zip(starts, ends, strict=True)]
    kept = None if state is None else _State(state, landscape, strings, level, settings)
    training = Training(landscape, settings.target(level), settings)
    waiting: dict[int, _Segment] = {}
    number = 0
    untested = [(pair, *ends) for pair, s in enumerate(strings) for ends in s.segments() if ends not in s.passed]
    while True:
        beads, connected = sum(len(s.beads) for s in strings), sum(s.complete() for s in strings)
        stage(f"level {level:g}: {connected} of {len(strings)} pairs connected, {beads} beads.")
        splits = _test(landscape, strings, untested, level, settings)
        labels = range(number, number + len(splits))
        number += len(splits)
        waiting.update(zip(labels, (segment for segment, _ in splits), strict=True))
        if splits:
            training.add(labels, torch.stack([_between(strings, *split) for split in splits]))
        training.drop([label for label in training.owners if not strings[waiting[label][0]].alive])
        if not training.owners:
            break
        done = [(waiting.pop(label), bead, value) for label, bead, value in training.advance()]
        untested = _insert(strings, done, settings.accepted(level))
        if done and kept is not None:
            kept.store(strings)
    if kept is not None:
        kept.forget()
    return [(string.polyline(), string.complete()) for string in strings]


def _test(
    landscape: Landscape, strings: Sequence[_String], segments: Sequence[_Segment], level: float, settings: Settings
) -> list[tuple[_Segment, float]]:
    """Mark the segments that pass, and list the others with the place of their bead between the ends."""
    todo = [segment for segment in segments if strings[segment[0]].alive]
    splits = [(segment, 0.5) for segment in todo if settings.first_bead and len(strings[segment[0]].beads) == 2]
    if tested := todo if not splits else [segment for segment in todo if len(strings[segment[0]].beads) > 2]:
        splits += _failing(landscape, strings, tested, level, settings)
    for (pair, first, last), _ in splits:
        if last - first == 1:
            strings[pair].alive = False
    return [split for split in splits if strings[split[0][0]].alive]


def _failing(
    landscape: Landscape, strings: Sequence[_String], todo: Sequence[_Segment], level: float, settings: Settings
) -> list[tuple[_Segment, float]]:
    """Test segments, and list those that fail with the place of their bead."""
    if settings.accept == float("inf"):  # everything passes: nothing to be tested
        for pair, first, last in todo:
            strings[pair].passed.add((first, last))
        return []
    profiles = certify(
        landscape,
        torch.stack([strings[pair].beads[first] for pair, first, _ in todo]),
        torch.stack([strings[pair].beads[last] for pair, _, last in todo]),
        grid=settings.grid,
        tolerance=settings.tolerance * abs(level) if settings.refine else None,
        ceiling=settings.accepted(level),
    )
    splits = []
    for segment, profile in zip(todo, profiles, strict=True):
        pair, *ends = segment
        if profile.maximum <= settings.accepted(level):
            strings[pair].passed.add((ends[0], ends[1]))
        else:
            splits.append((segment, 0.5 if settings.split == "middle" else profile.highest))
    return splits


def _between(strings: Sequence[_String], segment: _Segment, t: float) -> Tensor:
    pair, first, last = segment
    return torch.lerp(strings[pair].beads[first], strings[pair].beads[last], t)


def _insert(
    strings: Sequence[_String], done: Sequence[tuple[_Segment, Tensor, float]], accepted: float
) -> list[_Segment]:
    """Put beads into their segments, and list the halves, which are untested."""
    halves: list[_Segment] = []
    for (pair, first, last), bead, value in done:
        string, middle = strings[pair], (first + last) // 2
        if not math.isfinite(value):  # it diverged, and would leave no path to look at
            string.alive = False
            continue
        string.beads[middle] = bead.to(string.beads[0])
        string.alive = string.alive and value <= accepted
        halves += [(pair, first, middle), (pair, middle, last)]
    return halves


class _State:
    """The file of a search: what was asked for, and the beads that are done; restores the strings if it is there.

    What was asked for: the settings, the ends, the level, and the values of the ends, by which another metric, or
    other batches, are noticed.
    """

    def __init__(
        self, file: FilePath, landscape: Landscape, strings: Sequence[_String], level: float, settings: Settings
    ) -> None:
        self.file = file
        pairs = torch.stack([string.polyline() for string in strings])
        values = landscape.values_together(pairs.flatten(0, 1))
        self.asked: dict[str, Any] = {"settings": {**vars(settings)}, "level": level, "ends": pairs, "values": values}
        if not file.is_file():
            return
        saved = read(file, pairs.device)
        if other := self._other(saved):
            msg = f"{file} holds {other}; delete it, or give another file."
            raise ValueError(msg)
        for string, (places, beads, passed, alive) in zip(strings, saved["strings"], strict=True):
            string.beads, string.passed, string.alive = dict(zip(places, beads, strict=True)), set(passed), alive

    def _other(self, saved: Any) -> str:
        """Say what the file holds if it is not this search."""
        if not isinstance(saved, dict) or saved.keys() != {*self.asked, "strings"}:
            return "no search"
        if saved["settings"] != self.asked["settings"]:
            return "a search with other settings"
        if saved["ends"].dtype != self.asked["ends"].dtype or not torch.equal(saved["ends"], self.asked["ends"]):
            return "a search between other networks"
        # to rounding: the values may come from another number of processes
        if not math.isclose(saved["level"], self.asked["level"], rel_tol=1e-5):
            return f"a search at the level {saved['level']:g}, not {self.asked['level']:g}"
        if not torch.allclose(saved["values"], self.asked["values"], rtol=1e-4):
            return "a search on other batches or of another quantity"
        return ""

    def store(self, strings: Sequence[_String]) -> None:
        if rank_and_size()[0] == 0:
            beads = [(sorted(s.beads), s.polyline(), sorted(s.passed), s.alive) for s in strings]
            write(self.file, {**self.asked, "strings": beads})

    def forget(self) -> None:
        if rank_and_size()[0] == 0:
            self.file.unlink(missing_ok=True)
