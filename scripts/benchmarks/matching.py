"""FAQ on a batch of pairs beside SciPy's, one pair at a time, with as many threads."""

import time
from importlib import import_module
from typing import Any
from unittest import mock

import numpy as np
from scipy.optimize import quadratic_assignment

from ...datamodules.qap_datamodule import QAPDataset
from ...modules.matching import FAQ, GraphPairs, assign, objective
from .timing import median_times, row

__all__ = ["run"]


def run(num_pairs: int = 64, noise: float = 0.1, repeats: int = 7) -> list[dict[str, Any]]:
    """Compare time and objective from the barycentre, and give the share that linear assignments take of ours.

    The pairs are Erdos-Renyi graphs, n = 50 and p = 0.2. Both sides stop by the same rule; where vertices tie, as they
    do for graphs, each takes its own, so that objectives differ from pair to pair and agree in the mean.

    Args:
        num_pairs: Number of pairs, one batch.
        noise: Noise of the second graphs.
        repeats: Runs of each side, in turn.

    Returns:
        Rows of name, value, unit, bound and met.
    """
    pairs = QAPDataset([noise], num_pairs, "test").__getitems__(list(range(num_pairs)))
    first, second = (side.dense.double().numpy() for side in (pairs.first, pairs.second))

    def theirs() -> float:
        results = [quadratic_assignment(a, b, options={"maximize": True}) for a, b in zip(first, second, strict=True)]
        return float(np.mean([result.fun for result in results]))

    def ours() -> float:
        return float(objective(assign(FAQ()(pairs), pairs), pairs).mean())

    means = {"ours": ours(), "theirs": theirs()}
    seconds = median_times({"ours": ours, "theirs": theirs}, repeats)
    setting = f"{num_pairs} pairs, n=50, noise {noise:g}"
    return [
        row(f"FAQ, pairs per second over SciPy's, {setting}", seconds["theirs"] / seconds["ours"], "x", at_least=2),
        row(f"FAQ, mean objective over SciPy's, {setting}", means["ours"] / means["theirs"], "x", at_least=0.95),
        row(f"FAQ, mean objective, {setting}", means["ours"], "edges twice"),
        row(f"SciPy's FAQ, mean objective, {setting}", means["theirs"], "edges twice"),
        row("FAQ, share of time in linear assignments", _assignment_share(pairs), ""),
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
