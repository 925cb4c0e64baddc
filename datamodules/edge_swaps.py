"""Noise that keeps every degree: swaps of the ends of edges."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

import numpy as np

from .edge_list import IntArray
from .pairs import EdgeLists, Generators

_BUFFER = 256


def swap_edges(graphs: EdgeLists, noises: Sequence[float], rngs: Generators) -> EdgeLists:
    """Swap ends of edges at random, by the procedure of the published experiments.

    It is that of `"Expressive Power of Invariant and Equivariant Graph Neural Networks"
    <https://arxiv.org/abs/2006.15646>`_ (the authors' code): list every edge in both directions. For each entry (u, v)
    of the list, with probability nu, walk over the whole list; at each entry (s, t), with probability nu, replace
    {u, v} and {s, t} by {u, t} and {s, v} if the first two are still edges and the last two are neither loops nor
    edges; stop after one replacement. So nu is **not** the share of edges that change: of 2500 edges (n = 500, d = 10)
    2016, 1583, 1262 and 898 stay on average at nu = .05, .10, .15 and .20. As the walks begin at the front of the list,
    the edges there change most: the order of the edges matters.

    The entries that are still edges are kept in a sorted list and the gaps between trials are drawn, so the cost is
    that of the trials: about 2 nu m walks of one or two trials each.

    Args:
        graphs: The graphs.
        noises: Noise nu of each graph, (B,), in [0, 1].
        rngs: Generator of each graph, (B,).

    Returns:
        The graphs after the swaps, with the same degrees.
    """
    ends = np.cumsum(graphs.counts)
    u, v = [], []
    for end, count, noise, rng in zip(ends, graphs.counts, noises, rngs, strict=True):
        part = slice(end - count, end)
        new_u, new_v = _swap(graphs.u[part], graphs.v[part], graphs.num_nodes, noise, rng)
        u.append(new_u)
        v.append(new_v)
    return EdgeLists(np.concatenate(u), np.concatenate(v), graphs.counts, graphs.num_nodes)


def _swap(
    u: IntArray, v: IntArray, num_nodes: int, noise: float, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Swap ends of the edges of one graph."""
    walkers = np.flatnonzero(rng.random(2 * len(u)) < noise)
    if not len(walkers):
        return u, v
    n = num_nodes
    entries = np.concatenate((u * n + v, v * n + u)).tolist()  # both directions of an edge (u, v), as u n + v
    place = {entry: i for i, entry in enumerate(entries)}
    edges = set(entries)
    alive = list(range(len(entries)))  # the entries that are edges now, in order
    gaps = _gaps(noise, rng)
    for walker in walkers.tolist():
        if entries[walker] not in edges:
            continue
        a, b = divmod(entries[walker], n)
        position = next(gaps) - 1
        while position < len(alive):
            s, t = divmod(entries[alive[position]], n)
            if a != t and s != b and a * n + t not in edges and s * n + b not in edges:
                for old in (a * n + b, b * n + a, s * n + t, t * n + s):
                    edges.remove(old)
                    if old in place:
                        del alive[bisect_left(alive, place[old])]
                for new in (a * n + t, t * n + a, s * n + b, b * n + s):
                    edges.add(new)
                    if new in place:  # an edge of the given graph is back
                        insort(alive, place[new])
                break
            position += next(gaps)
    keys = np.fromiter(edges, np.int64, len(edges))
    new_u, new_v = np.divmod(np.sort(keys), n)
    forward = new_u < new_v
    return new_u[forward], new_v[forward]


def _gaps(noise: float, rng: np.random.Generator) -> Iterator[int]:
    """Yield the numbers of steps from one trial to the next."""
    while True:
        yield from rng.geometric(noise, _BUFFER).tolist()
