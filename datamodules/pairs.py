"""Random graphs and their noisy, shuffled copies, drawn for a whole batch at once.

Every graph has its own random generator and reads nothing else, so it does not depend on the batch it is drawn in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .edge_list import IntArray
from .sbm import to_edge_index

Generators = Sequence[np.random.Generator]

#: A table may have so many places for each key counted in it: beyond, hashing is faster than a larger table.
_PLACES = 16


class EdgeLists(NamedTuple):
    """The undirected edges of B graphs with the same nodes 0, ..., n - 1, graph after graph.

    Attributes:
        u: First node of each edge, int64 (m,), every edge once, in any order and direction.
        v: Second node of each edge, int64 (m,).
        counts: Edges of each graph, int64 (B,), of sum m.
        num_nodes: Nodes n of each graph.
    """

    u: IntArray
    v: IntArray
    counts: IntArray
    num_nodes: int

    @property
    def graph(self) -> IntArray:
        """Number of the graph of each edge, int64 (m,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @property
    def keys(self) -> IntArray:
        """One integer in [0, B n^2) for each edge, the same for both directions, int64 (m,)."""
        low, high = np.minimum(self.u, self.v), np.maximum(self.u, self.v)
        return (self.graph * self.num_nodes + low) * self.num_nodes + high

    def keep(self, mask: NDArray[np.bool_]) -> "EdgeLists":
        """Leave out the edges where ``mask`` (m,) is false."""
        counts = np.bincount(self.graph[mask], minlength=len(self.counts))
        return EdgeLists(self.u[mask], self.v[mask], counts, self.num_nodes)

    def relabel(self, permutations: IntArray) -> "EdgeLists":
        """Rename node i of graph g to ``permutations[g, i]``, for permutations (B, n)."""
        graph = self.graph
        return EdgeLists(permutations[graph, self.u], permutations[graph, self.v], self.counts, self.num_nodes)

    def edge_index(self) -> Tensor:
        """Give all graphs as one, with node i of graph g as g n + i: both directions, sorted, int64 (2, 2m)."""
        first = self.graph * self.num_nodes
        return to_edge_index(first + self.u, first + self.v, len(self.counts) * self.num_nodes)


def sample_erdos_renyi(num_nodes: int, probabilities: Sequence[float], rngs: Generators) -> EdgeLists:
    """Draw graphs G(n, p), in which every pair of nodes is an edge independently with probability p.

    The pairs are numbered and the gaps between edges are drawn, which are geometric: exact, in O(edges).

    Args:
        num_nodes: Nodes n of each graph, >= 1.
        probabilities: Edge probability of each graph, (B,), in [0, 1].
        rngs: Generator of each graph, (B,).
    """
    number = num_nodes * (num_nodes - 1) // 2
    chosen = [_draw_gaps(number, p, rng) for p, rng in zip(probabilities, rngs, strict=True)]
    # Number i + n (d - 1) stands for the nodes i and i + d mod n: once each, as there are n (n - 1) / 2 numbers.
    distance, u = np.divmod(np.concatenate(chosen), num_nodes)
    v = (u + distance + 1) % num_nodes
    return EdgeLists(u, v, np.array([len(part) for part in chosen]), num_nodes)


def _draw_gaps(number: int, probability: float, rng: np.random.Generator) -> IntArray:
    """Give those of the numbers 0, ..., number - 1 that are chosen, each with the same probability."""
    if not 0 <= probability <= 1:
        msg = f"sample_erdos_renyi: the edge probability {probability} must be in [0, 1]."
        raise ValueError(msg)
    expected = number * probability
    if expected == 0:
        return np.empty(0, np.int64)
    size = int(expected + 5 * expected**0.5) + 2
    parts = [rng.geometric(probability, size).cumsum() - 1]
    while parts[-1][-1] < number:
        parts.append(parts[-1][-1] + rng.geometric(probability, size).cumsum())
    values = np.concatenate(parts)
    return values[: np.searchsorted(values, number)]


def flip_edges(graphs: EdgeLists, noises: Sequence[float], density: float, rngs: Generators) -> EdgeLists:
    r"""Remove edges and add others, so that the expected density stays.

    From `"(Revised) Note on Learning Quadratic Assignment with Graph Neural Networks"
    <https://arxiv.org/abs/1706.07450>`_: with symmetric random 0/1 matrices Q and Q',

    .. math:: G_2 = G_1 (1 - Q) + (1 - G_1) Q', \quad P(Q = 1) = e, \quad P(Q' = 1) = \frac{p\, e}{1 - p}

    for a graph of density p at noise e, as :math:`p (1 - e) + (1 - p) \frac{p e}{1 - p} = p`. The paper prints
    :math:`p - 1` for :math:`1 - p`, which would be negative; the authors' code has it right. Takes O(edges).

    Args:
        graphs: The graphs G1.
        noises: Noise e of each graph, (B,), in [0, 1].
        density: Edge density p, in [0, 1).
        rngs: Generator of each graph, (B,).

    Returns:
        The graphs G2, on the same nodes.

    Raises:
        ValueError: If a probability leaves [0, 1].
    """
    rates = [flip_rate(noise, density) for noise in noises]
    coins = [rng.random(count) for rng, count in zip(rngs, graphs.counts, strict=True)]
    kept = graphs.keep(np.concatenate(coins) >= np.repeat(noises, graphs.counts))
    added = sample_erdos_renyi(graphs.num_nodes, rates, rngs)
    keys = np.concatenate((graphs.keys, added.keys))
    is_new = occurs_once(keys, len(noises) * graphs.num_nodes**2)[len(graphs.u) :]
    return merge(kept, added.keep(is_new))


def flip_rate(noise: float, density: float) -> float:
    """Give the probability p e / (1 - p) by which :func:`flip_edges` adds an edge.

    Raises:
        ValueError: If noise or density is out of range, or the result is above 1.
    """
    if not 0 <= density < 1:
        msg = f"flip_edges(density={density}): it must be in [0, 1); flips cannot keep the density of complete graphs."
        raise ValueError(msg)
    if not 0 <= noise <= 1:
        msg = f"noise={noise}: it must be in [0, 1], the probability by which an edge is removed."
        raise ValueError(msg)
    rate = density * noise / (1 - density)
    if rate > 1:
        msg = f"noise={noise}: at density {density:.4g} at most {(1 - density) / density:.4g} keeps the density."
        raise ValueError(msg)
    return rate


def merge(first: EdgeLists, second: EdgeLists) -> EdgeLists:
    """Join the edges of graphs on the same nodes that have no edge in common."""
    order = np.argsort(np.concatenate((first.graph, second.graph)), kind="stable")
    u, v = (np.concatenate(ends)[order] for ends in ((first.u, second.u), (first.v, second.v)))
    return EdgeLists(u, v, first.counts + second.counts, first.num_nodes)


def occurs_once(keys: IntArray, bound: int) -> NDArray[np.bool_]:
    """Tell which keys differ from all others, in linear time.

    Args:
        keys: Integers in [0, bound), (m,).
        bound: Their bound.

    Returns:
        bool (m,).
    """
    if bound <= _PLACES * len(keys):
        return np.bincount(keys, minlength=bound)[keys] == 1
    # Multiplicative hashing (Knuth): a key alone at its place is alone; the few others are compared exactly.
    bits = max(1, (len(keys) * _PLACES // 2).bit_length())
    places = ((keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits)).view(np.int64)
    once = np.bincount(places)[places] == 1
    shared = np.flatnonzero(~once)
    _, index, counts = np.unique(keys[shared], return_inverse=True, return_counts=True)
    once[shared] = counts[index] == 1
    return once
