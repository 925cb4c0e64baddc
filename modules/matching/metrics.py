"""How good a matching is: against the planted one, and by the edges it preserves. All float64, one value a pair."""

import torch
from torch import Tensor

from .base import GraphPairs

__all__ = [
    "argmax_accuracy",
    "assignment_accuracy",
    "common_edges",
    "exact_recovery",
    "gap",
    "objective",
    "permute_second",
]


def permute_second(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Give the second matrices in the order of the first graphs' nodes, B[p][:, p], (B, N1, N1), zero beyond a size."""
    nodes = pairs.first.node_mask
    places = matching.clamp(min=0)
    second = pairs.second.dense
    rows = second.gather(1, places.unsqueeze(2).expand(-1, -1, second.shape[2]))
    moved = rows.gather(2, places.unsqueeze(1).expand(-1, places.shape[1], -1))
    return moved * (nodes.unsqueeze(1) & nodes.unsqueeze(2)) if pairs.first.padded else moved


def objective(matching: Tensor, pairs: GraphPairs) -> Tensor:
    r"""Compute :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}` of each pair, (B,): the cost of a quadratic assignment problem.

    Args:
        matching: Node of the second graph for each of the first, p, (B, N1) int64; -1 beyond a graph's size.
        pairs: The pairs.
    """
    return (pairs.first.dense.double() * permute_second(matching, pairs).double()).sum((1, 2))


def common_edges(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Count the edges of 0/1 graphs that a matching preserves, (B,): half of :func:`objective`."""
    return objective(matching, pairs) / 2


def assignment_accuracy(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Give the share of the first graph's nodes matched as planted, (B,) in [0, 1]; chance is 1 / n."""
    nodes = pairs.first.node_mask
    return ((matching == _planted(pairs)) & nodes).sum(1).double() / pairs.first.sizes


def argmax_accuracy(scores: Tensor, pairs: GraphPairs) -> Tensor:
    """Give the share of nodes whose best column is the planted one, (B,), whether or not others choose it too."""
    if pairs.mask is not None:
        scores = scores.masked_fill(~pairs.second.node_mask.unsqueeze(1), -torch.inf)
    return assignment_accuracy(scores.argmax(2), pairs)


def gap(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Give how much worse than the best known the objective is, (B,), in per cent of it (of 1 if that is 0).

    Raises:
        ValueError: If no best objective is known.
    """
    if pairs.best_known is None:
        msg = "gap: no best objective of these pairs is known; measure the objective instead."
        raise ValueError(msg)
    excess = objective(matching, pairs) - pairs.best_known
    scale = torch.where(pairs.best_known == 0, 1.0, pairs.best_known.abs())
    return 100 * (excess if pairs.minimize else -excess) / scale


def exact_recovery(matching: Tensor, pairs: GraphPairs) -> Tensor:
    """Tell which pairs are matched as planted without a mistake, (B,), 0 or 1."""
    return (assignment_accuracy(matching, pairs) == 1).double()


def _planted(pairs: GraphPairs) -> Tensor:
    if pairs.permutation is None:
        msg = "the pairs have no planted matching to compare with; measure the objective instead."
        raise ValueError(msg)
    return pairs.permutation
