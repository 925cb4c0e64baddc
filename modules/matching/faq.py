"""FAQ: the quadratic assignment problem by Frank-Wolfe on doubly stochastic matrices, many problems at a time."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .assignment import assign, assign_all
from .base import GraphPairs, Refiner
from .metrics import objective

__all__ = ["FAQ", "faq", "permutation_matrix", "random_doubly_stochastic"]

#: Matrix entries of the problems held at a time: more restarts are solved in blocks.
MAX_ENTRIES = 1 << 24


class _Problem(NamedTuple):
    """Weight matrices of P problems, (P, N, N) each, their sizes, (P,), and which places are within, (P, N).

    Symmetric matrices need one product.
    """

    first: Tensor
    second: Tensor
    sizes: Tensor
    inside: Tensor
    symmetric: bool

    def select(self, keep: Tensor) -> "_Problem":
        first, second, sizes, inside = (tensor.index_select(0, keep) for tensor in self[:4])
        return _Problem(first, second, sizes, inside, self.symmetric)

    def at(self, matrix: Tensor, columns: Tensor) -> Tensor:
        """Sum the entries of permutations within each size: <M, Q>, (P,)."""
        return (matrix.gather(2, columns.unsqueeze(2)).squeeze(2) * self.inside).sum(1)

    def gradient(self, apply: Callable[[Tensor], Tensor]) -> Tensor:
        """Give A^T X B + A X B^T, where X is known by what it makes of a matrix."""
        back = self.first @ apply(self.second.transpose(1, 2) if not self.symmetric else self.second)
        return back.mul_(2) if self.symmetric else back + self.first.transpose(1, 2) @ apply(self.second)


def faq(
    first: Tensor,
    second: Tensor,
    start: Tensor,
    *,
    sizes: Tensor | None = None,
    maximize: bool = True,
    iterations: int = 30,
    tolerance: float = 0.03,
) -> Tensor:
    r"""Solve quadratic assignment problems approximately, all at once.

    From `"Fast approximate quadratic programming for graph matching" <https://arxiv.org/abs/1112.5507>`_ (Vogelstein et
    al. 2015). Frank-Wolfe on :math:`f(P) = \mathrm{tr}(A^T P B P^T)` over doubly stochastic P: the gradient
    :math:`A P B^T + A^T P B` gives by linear assignment the vertex Q to go to, and f on the line from P to Q is a
    parabola. The permutation nearest to the last P is the result. The gradient is linear in P, so an iteration costs
    only that at Q: for symmetric matrices one matrix product. Problems that stand still leave the batch.

    Args:
        first: A of each problem, (P, N, N) float.
        second: B of each problem, (P, N, N) float.
        start: Doubly stochastic matrices within each problem's size, (P, N, N) float.
        sizes: Size of each problem, (P,) int64; ``None`` for N.
        maximize: Maximise f (matching of graphs) or minimise it (costs).
        iterations: Largest number of iterations.
        tolerance: A problem stops when P moves by less than this times sqrt(n) in the Frobenius norm.

    Returns:
        Column of each row, (P, N) int64; beyond a size the row's own number.
    """
    if sizes is None:
        sizes = torch.full((len(first),), first.shape[1], device=first.device)
    symmetric = torch.equal(first, first.transpose(1, 2)) and torch.equal(second, second.transpose(1, 2))
    inside = torch.arange(first.shape[1], device=first.device) < sizes.unsqueeze(1)
    problem = _Problem(first, second, sizes, inside, symmetric)
    sign = 1.0 if maximize else -1.0
    result, current = start.clone(), start.clone()
    which = torch.arange(len(first), device=first.device)
    gradient = problem.gradient(lambda matrix: start @ matrix)
    value, norm = (gradient * current).sum((1, 2)) / 2, current.square().sum((1, 2))
    for _ in range(iterations):
        columns = assign_all(sign * gradient, problem.sizes)
        vertex_gradient = problem.gradient(lambda matrix, rows=columns: _take_rows(matrix, rows))
        # f at the vertex Q, and the products <gradient, Q> and <P, Q>: sums over the entries of a permutation
        vertex_value = problem.at(vertex_gradient, columns) / 2
        slope = problem.at(gradient, columns)
        product = problem.at(current, columns)
        square, linear = value - slope + vertex_value, slope - 2 * value
        step = _line_search(sign * square, sign * linear)
        value = value + step * linear + step.square() * square
        moved = step * (norm - 2 * product + problem.sizes).clamp(min=0).sqrt()
        norm = (1 - step).square() * norm + 2 * step * (1 - step) * product + step.square() * problem.sizes
        current *= (1 - step)[:, None, None]
        current.scatter_add_(2, columns.unsqueeze(2), (step.unsqueeze(1) * problem.inside).unsqueeze(2))
        gradient = gradient.lerp_(vertex_gradient, step[:, None, None])
        active = moved >= tolerance * problem.sizes.sqrt()
        if not bool(active.all()):
            result[which[~active]] = current[~active]
            keep = active.nonzero().squeeze(1)
            if len(keep) == 0:
                return assign_all(result, sizes)
            problem = problem.select(keep)
            current, gradient = current.index_select(0, keep), gradient.index_select(0, keep)
            which, value, norm = which[keep], value[keep], norm[keep]
    result[which] = current
    return assign_all(result, sizes)


def _take_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Give Q M for the permutation matrices Q with Q[i, rows[i]] = 1."""
    starts = torch.arange(len(rows), device=rows.device).unsqueeze(1) * rows.shape[1]
    return matrix.flatten(0, 1).index_select(0, (rows + starts).flatten()).view_as(matrix)  # 10x faster than gather


def _line_search(square: Tensor, linear: Tensor) -> Tensor:
    """Maximise square a^2 + linear a over a in [0, 1]."""
    inside = torch.where(square < 0, -linear / (2 * square.clamp(max=-1e-30)), torch.inf)
    at_one = (square + linear > 0).to(square.dtype)
    return torch.where((inside >= 0) & (inside <= 1), inside, at_one)


def random_doubly_stochastic(size: int, rng: np.random.Generator, iterations: int = 10) -> np.ndarray:
    """Draw a doubly stochastic matrix: uniform random numbers, rows and columns normalised in turn, (n, n) float64."""
    matrix = rng.random((size, size))
    for _ in range(iterations):
        matrix /= matrix.sum(1, keepdims=True)
        matrix /= matrix.sum(0, keepdims=True)
    return matrix


class FAQ(Refiner):
    r"""Match two graphs, or solve a quadratic assignment problem, by FAQ from one or several starts.

    The first start is the barycentre :math:`J / n`; each further one is halfway between it and a random doubly
    stochastic matrix. The best by objective counts, never by accuracy; the pairs say whether it is to be
    large (common edges) or small (a cost). Scores are permutation matrices. A smaller first
    graph is padded by isolated nodes. See :func:`faq` for the method; memory O(restarts B n^2).

    Args:
        restarts: Number of starts.
        iterations: Largest number of iterations of one start.
        tolerance: See :func:`faq`.
        weight: Share of a given matching in the start that :meth:`refine` makes of it, the rest is the barycentre.
        seed: Seed of the random starts, together with each pair's ``sample_id``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        restarts: int = 1,
        iterations: int = 30,
        tolerance: float = 0.03,
        weight: float = 0.7,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (("restarts", restarts, 1), ("iterations", iterations, 1), ("seed", seed, 0)):
            if value < least:
                msg = f"FAQ({name}={value}): must be at least {least}."
                raise ValueError(msg)
        if tolerance < 0:
            msg = f"FAQ(tolerance={tolerance}): must be 0 or more, e.g. 0.03."
            raise ValueError(msg)
        if not 0 < weight <= 1:
            msg = f"FAQ(weight={weight}): must be in (0, 1], e.g. 0.7."
            raise ValueError(msg)
        self.restarts = restarts
        self.iterations = iterations
        self.tolerance = tolerance
        self.weight = weight
        self.seed = seed

    @property
    def name(self) -> str:
        """What tables call it."""
        return "FAQ" if self.restarts == 1 else f"FAQ, {self.restarts} starts"

    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the permutation matrix of the best start, (B, N1, N2)."""
        return self._best(pairs, _barycentre(pairs))

    def refine(self, pairs: GraphPairs, scores: Tensor) -> Tensor:
        """Begin with the best assignment of given scores, (B, N1, N2), in place of the barycentre."""
        vertex = permutation_matrix(assign(scores, pairs), pairs)
        free = pairs.second.node_mask.to(vertex) - vertex.sum(1)
        spare = pairs.second.node_mask.clone()
        spare[:, : pairs.first.max_size] &= ~pairs.first.node_mask
        # Padding of a smaller first graph takes the columns that are left, in equal parts.
        padding = spare.unsqueeze(2) * free.unsqueeze(1) / spare.sum(1).clamp(min=1)[:, None, None]
        padding[:, : pairs.first.max_size] += vertex
        return self._best(pairs, self.weight * padding + (1 - self.weight) * _barycentre(pairs))

    def _best(self, pairs: GraphPairs, first_start: Tensor) -> Tensor:
        """Give the permutation matrix of the best of all starts."""
        at_once = max(1, MAX_ENTRIES // (pairs.num_pairs * pairs.second.max_size**2))
        found: list[Tensor] = []
        for first in range(0, self.restarts, at_once):
            numbers = range(first, min(first + at_once, self.restarts))
            starts = [self._random_start(pairs, number) if number else first_start for number in numbers]
            found += self.solve(pairs, torch.stack(starts))
        values = torch.stack([objective(matching, pairs) for matching in found])
        best = values.argmin(0) if pairs.minimize else values.argmax(0)
        return permutation_matrix(torch.stack(found)[best, torch.arange(pairs.num_pairs)], pairs)

    def solve(self, pairs: GraphPairs, starts: Tensor) -> Tensor:
        """Run FAQ from doubly stochastic starts, (R, B, N2, N2); give their matchings, (R, B, N1) int64."""
        number, batch, size, _ = starts.shape
        first, second = pairs.first.dense, pairs.second.dense
        missing = size - first.shape[1]
        first = F.pad(first, (0, missing, 0, missing)) if missing else first
        columns = faq(
            first.repeat(number, 1, 1),
            second.repeat(number, 1, 1),
            starts.flatten(0, 1).to(first),
            sizes=pairs.second.sizes.repeat(number),
            maximize=not pairs.minimize,
            iterations=self.iterations,
            tolerance=self.tolerance,
        )
        return columns.view(number, batch, size)[:, :, : pairs.first.max_size].masked_fill(~pairs.first.node_mask, -1)

    def _random_start(self, pairs: GraphPairs, number: int) -> Tensor:
        """Give start ``number`` of every pair, halfway between the barycentre and chance, (B, N2, N2)."""
        start = _barycentre(pairs)
        for i, (sample, size) in enumerate(zip(pairs.sample_id.tolist(), pairs.second.sizes.tolist(), strict=True)):
            rng = np.random.default_rng((self.seed, sample, number))
            random = torch.from_numpy(random_doubly_stochastic(size, rng)).to(start)
            start[i, :size, :size] = (start[i, :size, :size] + random) / 2
        return start


def _barycentre(pairs: GraphPairs) -> Tensor:
    """Give J / n within each second graph's size, (B, N2, N2)."""
    nodes = pairs.second.node_mask.to(pairs.first.dense.dtype)
    return nodes.unsqueeze(2) * nodes.unsqueeze(1) / pairs.second.sizes[:, None, None]


def permutation_matrix(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Write matchings (B, N1) as permutation matrices (B, N1, N2), zero beyond a size."""
    matrix = torch.zeros(*matching.shape, pairs.second.max_size, dtype=pairs.first.dense.dtype, device=matching.device)
    matrix.scatter_(2, matching.clamp(min=0).unsqueeze(2), 1.0)
    return matrix * pairs.first.node_mask.unsqueeze(2)
