"""Losses along a segment, a whole search, curve finding, and a search on two processes."""

import copy
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.func import functional_call

from ...callbacks.geodesics import (
    AUTHORS,
    Landscape,
    ModelLandscape,
    Settings,
    as_measured,
    find_paths,
    flat,
    unflat,
)
from ...callbacks.geodesics.curves import bezier, control_gradient
from ...callbacks.geodesics.descent import snapshots
from ...callbacks.geodesics.dynamic_string import dynamic_strings
from ...callbacks.geodesics.training import Training
from ...callbacks.level_set_geodesics import fresh_points
from ...datamodules.regression_datamodule import RegressionDataset
from ...modules.classification import ImageClassifier, MNISTTutorialCNN
from ...modules.regression import FeedForward, Regression
from .timing import median_times, row

__all__ = ["run"]


def run(repeats: int = 9) -> list[dict[str, Any]]:
    """Compare times with one thread, interleaved.

    Args:
        repeats: Rounds of each comparison.

    Returns:
        Rows of name, value, unit, bound and met.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            _segment(
                Regression(FeedForward()).double(),
                _samples(200),
                100,
                repeats,
                "1-4-4-1 network, 200 samples",
                at_least=8,
            ),
            _segment(
                Regression(FeedForward()).double(),
                _samples(10_000),
                100,
                repeats,
                "1-4-4-1 network, 10,000 samples",
                at_least=0.95,
            ),
            _segment(_convnet(), _images(16), 100, repeats, "MNIST convnet, 16 images", at_least=0.95),
            *_search(),
            *_bezier_steps(repeats),
            _two_processes(),
        ]
    finally:
        torch.set_num_threads(threads)


def _segment(module: nn.Module, batch: Any, points: int, repeats: int, what: str, at_least: float) -> dict[str, Any]:
    """Give the speed of a segment's losses over one ``functional_call`` a point."""
    landscape = ModelLandscape(module, [batch])
    start = flat(module)
    t = torch.linspace(0, 1, points).to(start)[:, None]
    with as_measured(module), torch.no_grad():
        line = torch.lerp(start, start.roll(1), t)
        objective = _Loss(module)

        def one_by_one() -> Tensor:
            return torch.stack([functional_call(objective, unflat(p, module, "module."), (batch,)) for p in line])

        torch.testing.assert_close(landscape.values(line), one_by_one(), rtol=1e-4, atol=1e-5)
        seconds = median_times({"ours": lambda: landscape.values(line), "loop": one_by_one}, repeats)
    name = f"losses at {points} points of a segment over one call a point, {what}"
    return row(name, seconds["loop"] / seconds["ours"], "x", at_least=at_least)


def _search(pairs: int = 20, level: float = 0.01, steps: int = 300) -> list[dict[str, Any]]:
    """Give the wall time of a search like `geodesics-quadratic` at a level, and its speed over beads one after another.

    The latter is the number of steps that all beads took, times the time of a step of one bead alone.
    """
    module = Regression(FeedForward(output="sigmoid", bias=False, initial="uniform"), error="absolute").double()
    landscape = _Counted(ModelLandscape(module, [_samples(200, "quadratic")], count="weights"))
    settings = Settings(**{**vars(AUTHORS), "max_steps": 20_000})
    with as_measured(module):
        networks, reached = snapshots(landscape, fresh_points(module, 3 * pairs, seed=0), [level], lr=1e-3,
                                      max_steps=20_000)  # fmt: skip
        ends = networks[0][reached[0]]
        pairs = min(pairs, len(ends) // 2)
        landscape.steps = 0
        start = time.perf_counter()
        paths = find_paths(landscape, ends[:pairs], ends[pairs : 2 * pairs], level, "dss", settings)
        seconds, taken = time.perf_counter() - start, landscape.steps
        connected = sum(path.connected for path in paths)
        alone = Training(landscape, 0.0, Settings(block=steps, max_steps=steps))
        alone.add([0], networks[0][:1])
        start = time.perf_counter()
        alone.advance()
        step = (time.perf_counter() - start) / steps
    what = f"search between {pairs} pairs of 1-4-4-1 networks at the level {level:g}"
    return [
        row(f"{what}, a connected pair", seconds / max(connected, 1), "s"),
        row(f"{what}, over its beads' steps taken one after another", taken * step / seconds, "x", at_least=5),
    ]


class _Counted(Landscape):
    """Counts the steps of points."""

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.counted, self.period = landscape.counted, landscape.period
        self.level_is_loss = landscape.level_is_loss
        self.steps = 0

    def gradient(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        self.steps += len(points)
        return self.landscape.gradient(points, step)

    def values(self, points: Tensor) -> Tensor:
        return self.landscape.values(points)


def _bezier_steps(repeats: int) -> list[dict[str, Any]]:
    """Give what a step of curve finding costs over a step of the plain network, without and with the optimizer."""
    module, batch = _convnet(), _images(64)
    landscape = ModelLandscape(module, [batch])
    start = flat(module)
    end, control = start.roll(1), start.roll(2)
    settings = Settings(max_steps=30, images=3)
    parameters = list(module.parameters())

    def plain() -> None:
        torch.autograd.grad(module.loss(batch), parameters)

    def plain_steps() -> None:
        trained = copy.deepcopy(module)
        optimizer = torch.optim.Adam(trained.parameters(), lr=settings.lr, fused=True)
        for _ in range(settings.max_steps):
            optimizer.zero_grad()
            trained.loss(batch).backward()
            optimizer.step()

    with as_measured(module):
        passes = median_times(
            {"plain": plain, "ours": lambda: control_gradient(landscape, start, control, end, 1)}, 5 * repeats
        )
        steps = median_times({"plain": plain_steps, "ours": lambda: bezier(landscape, start, end, settings)}, repeats)
    what = "of a Bezier curve over {} of the plain network, MNIST convnet, 64 images"
    return [
        row("gradient " + what.format("forward and backward"), passes["ours"] / passes["plain"], "x", at_most=1.1),
        row("30 steps " + what.format("30 steps") + ", Adam in both", steps["ours"] / steps["plain"], "x", at_most=1.1),
    ]


def _two_processes() -> dict[str, Any]:
    """Give the speed of a search on two processes of one thread each over one. On one free core it cannot be met."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, args=(folder,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
        ratio = float((Path(folder) / "ratio").read_text())
    return row("search with 8 open segments, 2 processes over 1, 1-64-64-1 network, 2,000 samples", ratio, "x",
               at_least=1.6)  # fmt: skip


def _process(rank: int, folder: str, rounds: int = 5) -> None:
    """Search in turn on rank 0 alone and on both, which wait for each other to begin; rank 0 writes the ratio."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.manual_seed(0)
    module = Regression(FeedForward((1, 64, 64, 1)))
    landscape = ModelLandscape(module, [tuple(part.float() for part in _samples(2000)[:2])])
    starts, ends = fresh_points(module, 16, seed=0).chunk(2)
    # no bead gets so low: all take 60 steps, and that ends the search
    settings = Settings(first_bead=True, max_passes=1, max_steps=60)
    ratios = []
    for number in range(rounds + 1):
        seconds = []
        for both in (False, True):
            if both:
                dist.init_process_group("gloo", init_method=f"file://{folder}/{number}", rank=rank, world_size=2)
            start = time.perf_counter()
            if both or rank == 0:
                dynamic_strings(landscape, starts, ends, 1e-12, settings)
            seconds.append(time.perf_counter() - start)
        dist.destroy_process_group()
        ratios.append(seconds[0] / seconds[1])
    if rank == 0:
        (Path(folder) / "ratio").write_text(str(statistics.median(ratios[1:])))  # the first round warms up


class _Loss(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Any) -> Tensor:
        return self.module.loss(batch)  # pyright: ignore[reportCallIssue]


def _convnet() -> ImageClassifier:
    return ImageClassifier(MNISTTutorialCNN(), 10)


def _samples(number: int, function: Any = "cubic") -> tuple[Tensor, Tensor, Tensor]:
    x, y, index = RegressionDataset(function, number).__getitems__(list(range(number)))
    return x.double(), y.double(), index


def _images(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, 1, 28, 28, generator=generator), torch.arange(number) % 10
