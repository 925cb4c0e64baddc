"""Check what is proved about level sets, on random instances."""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import pairwise
from typing import Literal, get_args

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from .geodesics.examples import curvy_valley, two_unit_relu
from .geodesics.linear_networks import linear_path
from .geodesics.search import Method, find_paths
from .geodesics.settings import Settings
from .geodesics.two_layer import TwoLayer, permutation_path, wide_path
from .training_batches import away_from_inference

__all__ = ["LevelSetTheorems", "Theorem"]

Theorem = Literal["curvy_valley", "counterexample_relu", "linear_networks", "wide_two_layer", "permutation_spare_unit"]


class LevelSetTheorems(Callback):
    """Measure in ``test``, on random instances, what theorems say of level sets; module and data are not looked at.

    Logs under ``test/<theorem>/``:

    - ``curvy_valley``: ``saddle_dss`` and ``saddle_neb``, the maxima of the paths found below 1.001 (the saddle is 1),
      and ``connected_below``, 1 if dynamic strings "connect" below .999.
    - ``counterexample_relu``: ``connected``, the number of instances that any method connects below 1/2, and
      ``lowest``, the least maximum of any path tried (at least 1/2 by the proof).
    - ``linear_networks``, ``wide_two_layer``, ``permutation_spare_unit``: ``excess``, the largest loss on any of the
      explicit paths less that of the path's higher end, and ``line_barrier``, the least barrier of the straight lines.

    Sources: `Freeman & Bruna 2017 <https://arxiv.org/abs/1611.01540>`_, proposition 2.2 and section 2.3.1; Venturi,
    Bandeira & Bruna, `JMLR 20 <https://jmlr.org/papers/v20/18-674.html>`_. On several ranks each does all of it.

    Args:
        theorem: Which one.
        instances: Number of random instances, >= 1.
        seed: Of the instances.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, theorem: Theorem, instances: int = 50, seed: int = 0) -> None:
        if theorem not in get_args(Theorem):
            msg = f"LevelSetTheorems(theorem={theorem!r}): choose from {', '.join(get_args(Theorem))}."
            raise ValueError(msg)
        if instances < 1:
            msg = f"LevelSetTheorems(instances={instances}): must be at least 1."
            raise ValueError(msg)
        self.theorem: Theorem = theorem
        self.instances = instances
        self.seed = seed

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and log."""
        del trainer
        seeds = range(self.seed, self.seed + self.instances)
        with away_from_inference():
            match self.theorem:
                case "curvy_valley":
                    values = _valley()
                case "counterexample_relu":
                    values = _counterexample(seeds)
                case "linear_networks":
                    values = _explicit(_linear, seeds)
                case "wide_two_layer":
                    values = _explicit(_wide, seeds)
                case "permutation_spare_unit":
                    values = _explicit(_permuted, seeds)
        for name, value in values.items():
            pl_module.log(f"test/{self.theorem}/{name}", value, sync_dist=True, batch_size=1)


def _valley() -> dict[str, float]:
    surface, start, end = curvy_valley()
    settings = Settings(bead=0.999, lr=0.03, max_steps=300, images=60, tolerance=1e-5)
    (string,) = find_paths(surface, start, end, 1.001, "dss", settings)
    (band,) = find_paths(surface, start, end, 1.001, "neb", Settings(**{**vars(settings), "max_steps": 1500}))
    (below,) = find_paths(surface, start, end, 0.999, "dss", settings)
    return {
        "saddle_dss": string.maximum if string.connected else float("inf"),
        "saddle_neb": band.maximum,
        "connected_below": float(below.connected),
    }


def _counterexample(seeds: Sequence[int]) -> dict[str, float]:
    """Search below .49 with inputs spread by up to .1, where the ends have a loss of up to .015."""
    connected, lowest = 0, float("inf")
    for seed in seeds:
        spread = 0.1 * float(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
        surface, first, second = two_unit_relu(spread, 200, seed)
        split = "middle" if seed % 2 else "highest"
        settings = Settings(lr=0.01, max_steps=300, max_passes=3, split=split, tolerance=1e-5)
        paths = [find_paths(surface, first, second, 0.49, method, settings)[0] for method in get_args(Method)]
        connected += any(path.connected for path in paths)
        lowest = min(lowest, *(path.maximum for path in paths))
    return {"connected": float(connected), "lowest": lowest}


def _explicit(instance: Callable[[torch.Generator], tuple[Tensor, Tensor]], seeds: Sequence[int]) -> dict[str, float]:
    """Take the worst of all instances: losses along the explicit path, and along the straight line."""
    excess, barrier = -float("inf"), float("inf")
    for seed in seeds:
        path, line = instance(torch.Generator().manual_seed(seed))
        excess = max(excess, float(path.max() - torch.maximum(path[0], path[-1])))
        barrier = min(barrier, float(line.max() - torch.maximum(line[0], line[-1])))
    return {"excess": excess, "line_barrier": barrier}


def _linear(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two to four layers of random widths; both ends near an optimum, in different bases of the hidden layers."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    inputs, outputs = whole(2, 6), whole(2, 6)
    widths = [inputs, *(min(inputs, outputs) + whole(1, 3) for _ in range(whole(1, 3))), outputs]
    ends = []
    x, target = draw(inputs, 50), draw(outputs, inputs)
    for _ in range(2):
        weights = [draw(b, a) / a**0.5 for a, b in pairwise(widths)]
        near = target + 0.03 * draw(outputs, inputs)
        if outputs <= inputs:  # one layer fits the target: the first, or the last of a tall network
            weights[0] = torch.linalg.pinv(reduce(lambda below, above: above @ below, weights[1:])) @ near
        else:
            weights[-1] = near @ torch.linalg.pinv(reduce(lambda below, above: above @ below, weights[:-1]))
        ends.append(weights)

    def losses(stack: Sequence[Tensor]) -> Tensor:
        return (reduce(lambda below, above: above @ below, stack, x) - target @ x).square().sum(1).mean(1)

    t = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None, None]
    return losses(linear_path(*ends)), losses([torch.lerp(a, b, t) for a, b in zip(*ends, strict=True)])


def _wide(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ten samples and twenty units, all fitted to the same targets."""
    x = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    activation = (torch.relu, torch.sigmoid, torch.square, torch.sin)[int(torch.randint(4, (1,), generator=generator))]
    ends: list[TwoLayer] = []
    for _ in range(2):
        w = torch.randn(20, 3, generator=generator, dtype=torch.float64)
        v = torch.linalg.lstsq(activation(x @ w.T), y, driver="gelsd").solution
        ends.append((w, v + 0.01 * torch.randn(20, 2, generator=generator, dtype=torch.float64)))
    return _losses(x, y, activation, wide_path(x, activation, *ends)), _losses(x, y, activation, ends)


def _permuted(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A ReLU network of eight units, the last without weight, and its permuted copy; its outputs are the targets."""
    x = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    w = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    v = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    v[7] = 0
    y = torch.relu(x @ w.T) @ v
    order = [*torch.randperm(7, generator=generator).tolist(), 7]
    corners = permutation_path((w, v), order, spare=7)
    line = [(w, v), (w[order], v[order])]
    return _losses(x, y, torch.relu, corners), _losses(x, y, torch.relu, line)


def _losses(x: Tensor, y: Tensor, activation: Callable[[Tensor], Tensor], corners: Sequence[TwoLayer]) -> Tensor:
    """Give the mean squared errors at 21 places of every leg of a path."""
    t = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None, None]
    losses = []
    for (w0, v0), (w1, v1) in pairwise(corners):
        hidden = activation(torch.einsum("ld,nud->nlu", x, torch.lerp(w0, w1, t)))
        losses.append((hidden @ torch.lerp(v0, v1, t) - y).square().sum(2).mean(1))
    return torch.cat(losses)
