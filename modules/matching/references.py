"""SciPy's solvers of quadratic assignment problems behind the common interface, to compare with."""

import math
import time
from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import quadratic_assignment
from torch import Tensor

from .base import GraphPairs, MatchingNetwork
from .faq import permutation_matrix

__all__ = ["ScipyFAQ", "ScipyTwoOpt"]


class ScipyFAQ(MatchingNetwork):
    """Match by SciPy's FAQ (`scipy.optimize.quadratic_assignment`, method "faq"), one start and one pair at a time.

    The first start is the barycentre, each further one SciPy's "randomized". The best by objective counts. A smaller
    first graph is padded by isolated nodes.

    Args:
        restarts: Number of starts.
        seconds: Time for each pair, instead of a number: starts as long as it lasts, and one at least.
        seed: Seed of the random starts, together with each pair's ``sample_id``.

    Raises:
        ValueError: If an argument is out of range.
    """

    method: ClassVar[str] = "faq"

    def __init__(self, restarts: int = 1, seconds: float | None = None, seed: int = 0) -> None:
        super().__init__()
        name = type(self).__name__
        for argument, value, least in (("restarts", restarts, 1), ("seed", seed, 0)):
            if value < least:
                msg = f"{name}({argument}={value}): must be at least {least}."
                raise ValueError(msg)
        if seconds is not None and not seconds > 0:
            msg = f"{name}(seconds={seconds}): must be above 0, or null for a number of restarts."
            raise ValueError(msg)
        self.restarts = restarts
        self.seconds = seconds
        self.seed = seed

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the permutation matrix of the best start, (B, N1, N2)."""
        matching = torch.full((pairs.num_pairs, pairs.first.max_size), -1, device=pairs.first.sizes.device)
        for number, sample in enumerate(pairs.sample_id.tolist()):
            n, m = int(pairs.first.sizes[number]), int(pairs.second.sizes[number])
            first = np.zeros((m, m))
            first[:n, :n] = pairs.first.dense[number, :n, :n].cpu().numpy()
            second = pairs.second.dense[number, :m, :m].cpu().double().numpy()
            rng = np.random.default_rng((self.seed, sample))
            found = self._solve(first, second, rng, maximize=not pairs.minimize)
            matching[number, :n] = torch.from_numpy(found[:n]).to(matching)
        return permutation_matrix(matching, pairs)

    def _solve(self, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, *, maximize: bool) -> np.ndarray:
        deadline = math.inf if self.seconds is None else time.monotonic() + self.seconds
        restarts = self.restarts if self.seconds is None else math.inf
        best, best_value, number = np.arange(len(first)), -math.inf, 0
        while number < restarts and (number == 0 or time.monotonic() < deadline):
            options = {"maximize": maximize, "rng": rng, **self._start(number)}
            result = quadratic_assignment(first, second, method=self.method, options=options)
            value = float((first * second[result.col_ind][:, result.col_ind]).sum()) * (1 if maximize else -1)
            if value > best_value:
                best, best_value = result.col_ind, value
            number += 1
        return best

    def _start(self, number: int) -> dict[str, str]:
        return {"P0": "barycenter" if number == 0 else "randomized"}


class ScipyTwoOpt(ScipyFAQ):
    """Match by SciPy's 2-opt from random permutations (method "2opt"), one start and one pair at a time.

    Args:
        restarts: Number of starts.
        seconds: Time for each pair, instead of a number: starts as long as it lasts, and one at least.
        seed: Seed of the random starts, together with each pair's ``sample_id``.

    Raises:
        ValueError: If an argument is out of range.
    """

    method = "2opt"

    def _start(self, number: int) -> dict[str, str]:  # noqa: ARG002
        return {}
