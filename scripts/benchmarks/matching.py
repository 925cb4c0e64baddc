"""FAQ on a batch of pairs beside SciPy's, one pair at a time, with as many threads."""

import time
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.optimize import quadratic_assignment

from ...datamodules.qap_datamodule import QAPDataset
from ...modules.matching import FAQ, GraphPairs, assign, objective
from .timing import median_times, row

__all__ = ["run"]


def run(num_pairs: int = 64, noise: float = 0.1, repeats: int = 7, num_batches: int = 8) -> list[dict[str, Any]]:
    """Compare time and objective from the barycentre, and give the share that linear assignments take of ours.

    The pairs are Erdos-Renyi graphs, n = 50 and p = 0.2. Both sides stop by the same rule; where vertices tie, as they
    do for graphs, each takes its own, so that objectives differ from pair to pair and agree in the mean.

    Args:
        num_pairs: Number of pairs, one batch.
        noise: Noise of the second graphs.
        repeats: Runs of each side, in turn.
        num_batches: Batches whose objectives are averaged.

    Returns:
        Rows of name, value, unit, bound and met.
    """
    dataset = QAPDataset([noise], num_pairs * num_batches, "test")
    batches = [dataset.__getitems__(list(range(i, i + num_pairs))) for i in range(0, len(dataset), num_pairs)]

    def theirs(pairs: GraphPairs) -> float:
        first, second = (side.dense.double().numpy() for side in (pairs.first, pairs.second))
        options = {"maximize": True, "rng": np.random.default_rng(0)}
        results = [quadratic_assignment(a, b, options=options) for a, b in zip(first, second, strict=True)]
        return float(np.mean([result.fun for result in results]))

    def ours(pairs: GraphPairs) -> float:
        return float(objective(assign(FAQ()(pairs), pairs), pairs).mean())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as SciPy's: products this small gain nothing from a second
    try:
        means = [np.mean([side(pairs) for pairs in batches]) for side in (ours, theirs)]
        pairs = batches[0]
        seconds = median_times({"ours": lambda: ours(pairs), "theirs": lambda: theirs(pairs)}, repeats)
        share = _assignment_share(pairs)
    finally:
        torch.set_num_threads(threads)
    setting = f"{num_pairs} pairs, n=50, noise {noise:g}"
    more = f"{len(dataset)} pairs, n=50, noise {noise:g}"
    return [
        row(f"FAQ, pairs per second over SciPy's, {setting}", seconds["theirs"] / seconds["ours"], "x", at_least=2),
        row(f"FAQ, mean objective over SciPy's, {more}", means[0] / means[1], "x", at_least=1),
        row("FAQ, share of time in linear assignments", share, ""),
    ]


def _assignment_share(pairs: GraphPairs) -> float:
    """Give the share of FAQ's time that SciPy's linear assignment takes."""
    module = import_module(f"{FAQ.__module__.rpartition('.')[0]}.assignment")
    solve, inside = module.linear_sum_assignment, 0.0

    def timed(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal inside
        start = time.perf_counter()
        result = solve(costs)
        inside += time.perf_counter() - start
        return result

    start = time.perf_counter()
    with mock.patch.object(module, "linear_sum_assignment", timed):
        FAQ()(pairs)
    return inside / (time.perf_counter() - start)
