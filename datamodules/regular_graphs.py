r"""Uniformly random regular graphs of any size and degree, by edge switches made in parallel.

The state of the Markov chain is a simple d-regular graph whose m edges lie, oriented, in m slots. In each round the
slots are paired in a fixed order that depends on neither graph nor draw. A pair with the edges (a, b) and (c, d) draws
one of three proposals: stay; swap b and c, to (a, c) and (b, d); or swap b and d, to (a, d) and (c, b). All pairs move
at once, but a pair moves only if

    its two edges and its two proposed edges are no loops, and each occurs only once among all present and proposed
    edges of the graph (staying proposes the present edges, so it occupies them).

**The law is uniform.** Take the proposals of a round as given; then the round is a map F of states, and F(F(x)) = x, so
F is a bijection and keeps the uniform law, which makes all graphs equally likely as each has m! 2^m states. To see it,
let y = F(x), with the same proposals. A pair that moved has its old and new edges exchanged in y. The others have the
same old and new edges. (1) A pair that moved moves back: its old edges are absent from y, since each was present once
and nobody proposed it; for the same reason none of the pairs that stayed proposes it, and the proposals of those that
moved, being their old edges, are others. Its new edges are proposed by nobody in y: not by pairs that moved (they
propose edges that were present, these were absent) nor by those that stayed (they propose the same as in x). (2) A
pair that did not move does not: if its proposal was present in x in a pair that moved, that pair's old edge would have
been proposed, and the pair could not have moved, so the edge is still there; if it was proposed by another too, or its
own edge was proposed by another, then neither moved and both still propose it.

Without the condition on a pair's present edges step (2) fails, and the law is not uniform (at n = 6, d = 2 two
triangles come with probability .1525 instead of 1/7). Any two regular graphs are joined by single switches (Taylor
1981), which have positive probability as the others may stay; so the law converges.
"""

import math

import numpy as np

from .edge_list import IntArray
from .pairs import EdgeLists, Generators, occurs_once

#: Mean number of switches of each edge, plus ln(m): then about e^-10 edges are expected never to have been switched.
_SWITCHES = 10


def sample_regular(num_nodes: int, degree: int, rngs: Generators) -> EdgeLists:
    """Draw graphs uniformly from all simple graphs on n nodes in which every node has the same degree.

    The chain of this module starts at a circulant graph with shuffled nodes and runs for :func:`num_rounds` rounds.
    Degrees above (n - 1) / 2 are drawn as complements, whose edges are fewer.

    Args:
        num_nodes: Nodes n of each graph, >= 1.
        degree: Degree d of every node, in [0, n - 1], with n d even.
        rngs: Generator of each graph, (B,).

    Raises:
        ValueError: If no such graph exists.
    """
    check_regular(num_nodes, degree)
    if 2 * degree > num_nodes - 1:
        return _complement(sample_regular(num_nodes, num_nodes - 1 - degree, rngs))
    steps = np.arange(1, degree // 2 + 1)
    u = np.tile(np.arange(num_nodes), len(steps))
    v = (u + np.repeat(steps, num_nodes)) % num_nodes
    if degree % 2:
        half = np.arange(num_nodes // 2)
        u, v = np.concatenate((u, half)), np.concatenate((v, half + num_nodes // 2))
    labels = np.stack([rng.permutation(num_nodes) for rng in rngs], axis=1)
    ends = _switch(labels[u], labels[v], num_nodes, degree, rngs)
    return EdgeLists(ends[0].T.ravel(), ends[1].T.ravel(), np.full(len(rngs), len(u)), num_nodes)


def check_regular(num_nodes: int, degree: int) -> None:
    """Raise a ValueError if there is no regular graph of this size and degree."""
    if not 0 <= degree < num_nodes:
        msg = f"degree={degree}: it must be in [0, num_nodes - 1 = {num_nodes - 1}]."
        raise ValueError(msg)
    if num_nodes * degree % 2:
        msg = f"degree={degree} with num_nodes={num_nodes}: their product must be even; change one of them by 1."
        raise ValueError(msg)


def num_rounds(num_nodes: int, degree: int) -> int:
    """Give the number of rounds of the chain: each edge is switched at least 10 + ln(m) times on average.

    Of the pairs of slots 2/3 propose a switch. At density q = d / (n - 1) the two new edges are absent with probability
    (1 - q)^2; that no other pair interferes is about as likely (measured: never less, from n = 6 to 500, q <= 1/2).
    """
    accepted = 2 / 3 * (1 - degree / (num_nodes - 1)) ** 4
    return math.ceil((_SWITCHES + math.log(num_nodes * degree / 2)) / accepted)


def _switch(a: IntArray, b: IntArray, num_nodes: int, degree: int, rngs: Generators) -> tuple[IntArray, IntArray]:
    """Run the chain on the ends of the edges, (m, B) each: slots first, so that a round moves whole rows."""
    slots, batch = a.shape
    half = slots // 2
    if half == 0:
        return a, b
    rounds = num_rounds(num_nodes, degree)
    proposals = np.stack([rng.integers(3, size=(rounds, half), dtype=np.uint8) for rng in rngs], axis=2)
    first = np.arange(batch) * num_nodes**2
    pairing = np.random.default_rng(0)
    for proposal in proposals:
        order = pairing.permutation(slots)
        a, b = a[order], b[order]
        a1, b0, b1 = a[half : 2 * half], b[:half], b[half : 2 * half]
        # x ^ (x ^ y) = y: an exchange of two ends where the mask is -1, nothing where it is 0
        exchange_a = (b0 ^ a1) & -(proposal == 1).astype(np.int64)
        exchange_b = (b0 ^ b1) & -(proposal == 2).astype(np.int64)
        new_a = np.concatenate((a, a[:half], a1 ^ exchange_a))
        new_b = np.concatenate((b, b0 ^ exchange_a ^ exchange_b, b1 ^ exchange_b))
        keys = np.minimum(new_a, new_b) * num_nodes + np.maximum(new_a, new_b) + first
        fine = occurs_once(keys.ravel(), batch * num_nodes**2).reshape(keys.shape) & (new_a != new_b)
        present, proposed = fine[: 2 * half], fine[slots:]
        accept = -(present[:half] & present[half:] & proposed[:half] & proposed[half:]).astype(np.int64)
        exchange_a &= accept
        exchange_b &= accept
        a1 ^= exchange_a
        b1 ^= exchange_b
        b0 ^= exchange_a ^ exchange_b
    return a, b


def _complement(graphs: EdgeLists) -> EdgeLists:
    """Give the graphs with just the edges that these have not."""
    n, batch = graphs.num_nodes, len(graphs.counts)
    absent = np.triu(np.ones((n, n), dtype=np.bool_), 1)[None].repeat(batch, axis=0)
    absent.reshape(-1)[graphs.keys] = False
    _, u, v = absent.nonzero()
    return EdgeLists(u, v, n * (n - 1) // 2 - graphs.counts, n)
