"""Solvers of quadratic assignment problems by swaps: descent, and tabu search within a time budget."""

import math
import time

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .assignment import assign
from .base import GraphPairs, MatchingNetwork, Refiner
from .faq import faq, permutation_matrix, random_doubly_stochastic
from .local_search import TabuSearch, qap_cost, shuffle_some, swap_deltas
from .metrics import objective

__all__ = ["QAPSolver", "TwoOpt"]


class TwoOpt(Refiner):
    """Swap the matches of two nodes as long as that improves the objective, the best swap first.

    A smaller first graph is padded by isolated nodes, so that its nodes can move to free ones too. O(n^3) time a swap,
    all pairs of a batch at once.

    Args:
        restarts: Number of random starts of :meth:`forward`, of which the best result by objective counts.
        seed: Seed of the random starts, together with each pair's ``sample_id``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, restarts: int = 1, seed: int = 0) -> None:
        super().__init__()
        for name, value, least in (("restarts", restarts, 1), ("seed", seed, 0)):
            if value < least:
                msg = f"TwoOpt({name}={value}): must be at least {least}."
                raise ValueError(msg)
        self.restarts = restarts
        self.seed = seed

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the permutation matrix of the best start, (B, N1, N2)."""
        starts = torch.arange(pairs.second.max_size).repeat(self.restarts, pairs.num_pairs, 1)
        for number, (sample, size) in enumerate(
            zip(pairs.sample_id.tolist(), pairs.second.sizes.tolist(), strict=True)
        ):
            rng = np.random.default_rng((self.seed, sample))
            for restart in range(self.restarts):
                starts[restart, number, :size] = torch.from_numpy(rng.permutation(size))
        found = torch.stack([self._descend(pairs, start.to(pairs.second.sizes.device)) for start in starts])
        values = torch.stack([objective(matching, pairs) for matching in found])
        best = values.argmin(0) if pairs.minimize else values.argmax(0)
        return permutation_matrix(found[best, torch.arange(pairs.num_pairs)], pairs)

    @torch.no_grad()
    def refine(self, pairs: GraphPairs, scores: Tensor) -> Tensor:
        """Start from the best assignment of given scores, (B, N1, N2); give the permutation matrix found."""
        return permutation_matrix(self._descend(pairs, _completed(assign(scores, pairs), pairs)), pairs)

    def _descend(self, pairs: GraphPairs, permutation: Tensor) -> Tensor:
        """Descend from permutations of the second graphs' places, (B, N2), to matchings, (B, N1)."""
        first, second = _matrices(pairs)
        size = first.shape[1]
        nodes = pairs.second.node_mask
        outside = ~(nodes.unsqueeze(1) & nodes.unsqueeze(2))
        # Of other matrices than integers rounding leaves changes that are not quite zero.
        least = 1e-12 * qap_cost(first.abs(), second.abs(), permutation).clamp(min=1e-300)
        permutation, active = permutation.clone(), torch.arange(len(permutation), device=permutation.device)
        while len(active):
            deltas = swap_deltas(first[active], second[active], permutation[active]).masked_fill(outside[active], 0)
            change, swap = deltas.flatten(1).min(1)
            improves = change < -least[active]
            active, swap = active[improves], swap[improves]
            pair = torch.stack([swap // size, swap % size], 1)
            permutation[active] = permutation[active].scatter(1, pair, permutation[active].gather(1, pair.flip(1)))
        return permutation[:, : pairs.first.max_size].masked_fill(~pairs.first.node_mask, -1)


class QAPSolver(MatchingNetwork):
    r"""Solve quadratic assignment problems by iterated tabu search from many starts.

    Half of the starts, up to 8, come from FAQ (the barycentre and random doubly stochastic matrices), the others are
    random permutations. Rounds follow: :class:`TabuSearch` takes 10 n steps from each start; what it finds replaces the
    start's incumbent if it is no worse; a random 3 to max(3, 0.3 n) places of the incumbent are shuffled for the next
    round (iterated tabu search, after Misevicius, OR Spectrum 2012). Every 8 rounds the best quarter of the incumbents
    replaces the worst. Objectives of integer matrices are exact (float64).

    Pairs are solved one after another on the CPU; a smaller first graph is padded by isolated nodes. O(starts n^2) time
    a step and memory.

    Args:
        seconds: Time for each pair. The result depends on the machine's speed then.
        iterations: Steps of each start, instead of a time: reproducible.
        starts: Number of starts.
        seed: Seed, together with each pair's ``sample_id``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        seconds: float = 30.0,
        iterations: int | None = None,
        starts: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not seconds > 0:
            msg = f"QAPSolver(seconds={seconds}): must be above 0, e.g. 30 for each pair."
            raise ValueError(msg)
        for name, value, least in (("iterations", iterations, 1), ("starts", starts, 1), ("seed", seed, 0)):
            if value is not None and value < least:
                msg = f"QAPSolver({name}={value}): must be at least {least}."
                raise ValueError(msg)
        self.seconds = seconds
        self.iterations = iterations
        self.starts = starts
        self.seed = seed

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the permutation matrix of the best solution found, (B, N1, N2)."""
        matching = torch.full((pairs.num_pairs, pairs.first.max_size), -1, device=pairs.first.sizes.device)
        first, second = (side.cpu() for side in _matrices(pairs))
        for number, sample in enumerate(pairs.sample_id.tolist()):
            n, m = int(pairs.first.sizes[number]), int(pairs.second.sizes[number])
            rng = np.random.default_rng((self.seed, sample))
            matching[number, :n] = self._solve(first[number, :m, :m], second[number, :m, :m], rng)[:n].to(matching)
        return permutation_matrix(matching, pairs)

    def _solve(self, first: Tensor, second: Tensor, rng: np.random.Generator) -> Tensor:
        """Minimise the cost of one problem of matrices (n, n); give the permutation, (n,) int64."""
        timed = self.iterations is None
        deadline = time.monotonic() + self.seconds if timed else math.inf
        left = self.iterations if self.iterations is not None else 1 << 62
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        search = TabuSearch(first, second, self._first_starts(first, second, rng), generator)
        best, cost = search.best.clone(), search.best_cost.clone()
        size, quarter, rounds = len(first), self.starts // 4, 0
        while True:
            left -= search.run(min(left, 10 * size), deadline)
            found = qap_cost(*search.matrices, search.best)
            better = found <= cost
            best[better], cost[better] = search.best[better], found[better]
            if left == 0 or time.monotonic() > deadline:
                return best[cost.argmin()]
            rounds += 1
            if rounds % 8 == 0 and quarter:
                order = cost.argsort()
                best[order[-quarter:]], cost[order[-quarter:]] = best[order[:quarter]], cost[order[:quarter]]
            most = max(min(3, size), int(0.3 * size))
            counts = torch.randint(min(3, size), most + 1, (self.starts,), generator=generator)
            search.restart(shuffle_some(best, counts, generator))

    def _first_starts(self, first: Tensor, second: Tensor, rng: np.random.Generator) -> Tensor:
        size = len(first)
        relaxed = [np.full((size, size), 1 / size)]
        while len(relaxed) < min(8, (self.starts + 1) // 2):
            relaxed.append((relaxed[0] + random_doubly_stochastic(size, rng)) / 2)
        number = len(relaxed)
        inner = torch.from_numpy(np.stack(relaxed))
        found = faq(first.expand(number, -1, -1), second.expand(number, -1, -1), inner, maximize=False)
        random = [torch.from_numpy(rng.permutation(size)) for _ in range(self.starts - number)]
        return torch.cat([found, torch.stack(random)]) if random else found


def _matrices(pairs: GraphPairs) -> tuple[Tensor, Tensor]:
    """Give both sides as costs to minimise, (B, N2, N2) float64 each, the first graphs padded by isolated nodes."""
    missing = pairs.second.max_size - pairs.first.max_size
    first = F.pad(pairs.first.dense.double(), (0, missing, 0, missing))
    return first if pairs.minimize else -first, pairs.second.dense.double()


def _completed(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Extend matchings (B, N1) to permutations (B, N2): padding takes the free nodes in order."""
    free = torch.ones(matching.shape[0], pairs.second.max_size, dtype=torch.bool, device=matching.device)
    permutation = torch.empty_like(free, dtype=torch.int64)
    for number, size in enumerate(pairs.first.sizes.tolist()):
        free[number, matching[number, :size]] = False
        permutation[number, :size] = matching[number, :size]
        permutation[number, size:] = free[number].nonzero().squeeze(1)
    return permutation
