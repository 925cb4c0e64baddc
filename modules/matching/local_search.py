"""Local search for quadratic assignment: the change of cost of every swap, and tabu search from many starts at once."""

import math
import time

import torch
from torch import Tensor

__all__ = ["TabuSearch", "qap_cost", "shuffle_some", "swap_deltas"]

#: As a step number: the swap of a node with itself.
NEVER = torch.iinfo(torch.int32).max


def qap_cost(first: Tensor, second: Tensor, permutation: Tensor) -> Tensor:
    r"""Compute :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}`, (...,) in float64: exact for integers up to 2^53.

    Args:
        first: A, (..., n, n) or (n, n).
        second: B, likewise.
        permutation: p, (..., n) int64.
    """
    return (first.double() * _permuted(second.double(), permutation)).sum((-2, -1))


def _permuted(matrix: Tensor, permutation: Tensor) -> Tensor:
    """Give B[p][:, p], (..., n, n)."""
    n = permutation.shape[-1]
    matrix = matrix.expand(*permutation.shape[:-1], n, n)
    rows = matrix.gather(-2, permutation.unsqueeze(-1).expand(matrix.shape))
    return rows.gather(-1, permutation.unsqueeze(-2).expand(matrix.shape))


def swap_deltas(first: Tensor, second: Tensor, permutation: Tensor) -> Tensor:
    r"""Compute by how much every swap of two values of p changes :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}`.

    For matrices with zero diagonal, B already in the order of p and :math:`C = A B^T + A^T B` the change of swapping
    p(u) and p(v) is :math:`C_{uv} + C_{vu} - C_{uu} - C_{vv} + (A + A^T)_{uv} (B + B^T)_{uv}`; diagonals add
    :math:`-(A_{uu} - A_{vv}) (B_{uu} - B_{vv})`. O(n^3) time, for any matrices.

    Args:
        first: A, (..., n, n) or (n, n).
        second: B, likewise.
        permutation: p, (..., n) int64.

    Returns:
        The changes, (..., n, n) in the dtype of the matrices, symmetric, zero on the diagonal.
    """
    second = _permuted(second, permutation)
    first = first.expand(second.shape)
    diagonals = _differences(first) * _differences(second)
    first, second = _hollow(first), _hollow(second)
    products = first @ second.mT + first.mT @ second
    own = products.diagonal(dim1=-2, dim2=-1)
    products = products + products.mT - own.unsqueeze(-1) - own.unsqueeze(-2)
    return products + (first + first.mT) * (second + second.mT) - diagonals


def _differences(matrix: Tensor) -> Tensor:
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    return diagonal.unsqueeze(-1) - diagonal.unsqueeze(-2)


def _hollow(matrix: Tensor) -> Tensor:
    return matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))


class TabuSearch:
    r"""Robust tabu search of one problem from R starts, all moved together.

    From `"Robust taboo search for the quadratic assignment problem"
    <https://doi.org/10.1016/S0167-8191(05)80147-4>`_ (Taillard 1991). Every step takes of each start the best swap
    that is not tabu, even if it raises the cost. A swap is tabu if both nodes would return to places they left fewer
    steps ago than a tenure drawn from [0.9 n, 1.1 n], unless it gives the best cost of this start so far. The paper's
    second aspiration (moves forced if unused for long) is left out: restarts diversify.

    The changes of all swaps are kept. With x = A_r - A_s and y = B_s - B_r (rows; B in the order of p) a swap of p(r)
    and p(s) changes those of other pairs by :math:`-2 (x_u - x_v) (y_u - y_v)`, a matrix product of rank 4; rows r and
    s are computed anew: O(n^2) a step. This needs symmetric matrices, and is true of each term of
    :math:`\langle A, B \rangle = \langle S, S' \rangle + \langle K, K' \rangle` where S and K are the symmetric and
    the skew part of any others: T = 2 terms if both A and B have a skew part, else 1. Memory O(R n^2); CPU only.

    Args:
        first: A, (n, n).
        second: B, (n, n).
        starts: Permutations, (R, n) int64.
        generator: Draws the tenures.

    Attributes:
        permutation: Where the starts are now, (R, n) int64, and its ``cost``, (R,) float64.
        best: The best permutation of each start since :meth:`restart`, (R, n), and its ``best_cost``, (R,).
        deltas: Change of cost of every swap, (R, n, n).
    """

    def __init__(self, first: Tensor, second: Tensor, starts: Tensor, generator: torch.Generator) -> None:
        self.matrices = first.double(), second.double()
        self.generator = generator
        skew = [(matrix - matrix.T) / 2 for matrix in self.matrices]
        symmetric = [_hollow(matrix + matrix.T) / 2 for matrix in self.matrices]
        both = bool(skew[0].any()) and bool(skew[1].any())
        self.dtype = _exact_dtype(*self.matrices, plain=not (bool(skew[0].any()) or bool(skew[1].any())))
        # (T, n, n) each
        self.first, self.second = (
            torch.stack([s, k] if both else [s]).to(self.dtype) for s, k in zip(symmetric, skew, strict=True)
        )
        self.diagonals = [matrix.diagonal().to(self.dtype) for matrix in self.matrices]
        self.has_diagonal = all(bool(diagonal.any()) for diagonal in self.diagonals)
        self.numbers = torch.arange(len(starts))
        #: Step until which node u may not return to place j, and until which the swap of u and v is tabu, (R, n, n).
        self.left = torch.zeros(len(starts), starts.shape[1], starts.shape[1], dtype=torch.int32)
        self.until = torch.zeros_like(self.left)
        self.restart(starts)

    def restart(self, starts: Tensor) -> None:
        """Go on from other permutations, (R, n); what was tabu is forgotten."""
        self.permutation = starts.clone()
        self.inverse = starts.argsort(1)
        self.deltas = swap_deltas(*self.matrices, starts).to(self.dtype)
        moved = _permuted(self.second.unsqueeze(1), starts.expand(len(self.first), -1, -1))
        #: What each node contributes to the cost, (R, n).
        self.own = (self.first.unsqueeze(1) * moved).sum((0, 3))
        self.cost = qap_cost(*self.matrices, starts)
        self.best, self.best_cost = starts.clone(), self.cost.clone()
        self.left.zero_()
        self.until.zero_()
        self.until.diagonal(dim1=1, dim2=2).fill_(NEVER)
        self.number = 0

    def run(self, steps: int, deadline: float = math.inf) -> int:
        """Take a number of steps, fewer if `time.monotonic` passes the deadline; give how many."""
        n = self.permutation.shape[1]
        size = (steps, len(self.numbers), 2)
        tenures = torch.randint(int(0.9 * n), int(1.1 * n) + 2, size, generator=self.generator, dtype=torch.int32)
        for taken, tenure in enumerate(tenures):
            if time.monotonic() > deadline:
                return taken
            self.number += 1
            chosen = self._choose()
            pair = torch.stack([chosen // n, chosen % n], 1)
            self._swap(pair)
            self._forbid(pair, tenure)
            better = (self.cost < self.best_cost).nonzero().squeeze(1)
            if len(better):
                self.best_cost[better] = self.cost[better]
                self.best[better] = self.permutation[better]
        return steps

    def _choose(self) -> Tensor:
        """Choose the swap of each start and count its cost, (R,): its number u n + v."""
        allowed = torch.where(self.until >= self.number, torch.inf, self.deltas).flatten(1)
        deltas = self.deltas.flatten(1)
        aspired = self.cost + deltas.amin(1) < self.best_cost
        if bool(aspired.any()):
            allowed[aspired] = deltas[aspired]
        chosen = torch.from_numpy(allowed.numpy().argmin(1))  # NumPy's argmin is vectorised, torch's is not
        self.cost += deltas[self.numbers, chosen]
        return chosen

    def _swap(self, pair: Tensor) -> None:
        """Swap p(r) and p(s) for the pair (r, s) of each start, (R, 2), and bring the changes up to date."""
        start = self.numbers.unsqueeze(1)
        places = self.permutation[start, pair]
        rows = self.first[:, pair]  # A_r and A_s, (T, R, 2, n)
        others = self.second[:, places].gather(3, self._wide(self.permutation))
        x, y = rows[:, :, 0] - rows[:, :, 1], others[:, :, 1] - others[:, :, 0]
        product = (x * y).sum(0)
        ones = torch.ones_like(product)
        self.deltas.baddbmm_(
            torch.stack([product, ones, *x, *y], 2), torch.stack([ones, product, *-y, *-x], 1), alpha=-2
        )
        places = places.flip(1)
        self.permutation[start, pair] = places
        self.inverse[start, places] = pair
        # The rows of r and s: C_wv, C_vw and C_vv of `swap_deltas`.
        wide = self._wide(self.permutation)
        others = self.second[:, places].gather(3, wide)
        by_place = rows.gather(3, self._wide(self.inverse)).flatten(1, 2)
        forth = (by_place @ self.second.mT).view_as(rows).gather(3, wide)
        back = (others.flatten(1, 2) @ self.first.mT).view_as(rows)
        self.own += product
        self.own[start, pair] = (rows * others).sum((0, 3))
        deltas = (forth + back).sum(0) - self.own.unsqueeze(1) - self.own[start, pair].unsqueeze(2)
        deltas = 2 * deltas + 4 * rows[0] * others[0]
        if self.has_diagonal:
            first, second = self.diagonals[0].expand(len(pair), -1), self.diagonals[1][self.permutation]
            deltas -= _against(first, pair) * _against(second, pair)
        self.deltas[start, pair] = deltas
        self.deltas.mT[start, pair] = deltas

    def _wide(self, permutation: Tensor) -> Tensor:
        """Repeat permutations (R, n) for the terms and both nodes of a pair, (T, R, 2, n)."""
        return permutation.unsqueeze(1).expand(len(self.first), -1, 2, -1)

    def _forbid(self, pair: Tensor, tenure: Tensor) -> None:
        """Make tabu, after a swap, that nodes return to what they left."""
        start = self.numbers.unsqueeze(1)
        places = self.permutation[start, pair]
        self.left[start, pair, places.flip(1)] = self.number + tenure
        there = self.left[start, pair].gather(2, self.permutation.unsqueeze(1).expand(-1, 2, -1))
        until = torch.minimum(there, self.left.mT[start, places])
        until.scatter_(2, pair.unsqueeze(2), NEVER)
        self.until[start, pair] = until
        self.until.mT[start, pair] = until


def _against(values: Tensor, pair: Tensor) -> Tensor:
    """Give the differences of a pair's values to all others, (R, 2, n)."""
    return values.gather(1, pair).unsqueeze(2) - values.unsqueeze(1)


def _exact_dtype(first: Tensor, second: Tensor, plain: bool) -> torch.dtype:
    """Give float32 if the search meets only integers it holds exactly (quarters, where matrices are not ``plain``)."""
    largest = (16 if plain else 64) * len(first) * float(first.abs().max()) * float(second.abs().max())
    whole = torch.equal(first, first.round()) and torch.equal(second, second.round())
    return torch.float32 if whole and largest < 1 << 24 else torch.float64


def shuffle_some(permutation: Tensor, counts: Tensor, generator: torch.Generator) -> Tensor:
    """Move the values at random places of permutations round in a cycle.

    Args:
        permutation: (R, n) int64.
        counts: Number of places, drawn anew for each permutation, (R,) in 1..n.
        generator: Draws the places.

    Returns:
        The new permutations, (R, n).
    """
    order = torch.rand(permutation.shape, generator=generator).argsort(1)
    place, count = torch.arange(order.shape[1]), counts.unsqueeze(1)
    source = torch.where(place < count, (place + 1) % count, place)
    return permutation.scatter(1, order, permutation.gather(1, order.gather(1, source)))
