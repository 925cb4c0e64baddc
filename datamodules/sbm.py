"""Exact samplers of the stochastic block model, and its signal-to-noise ratio."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["check_blocks", "draw_pairs", "pair_from_snr", "sample_sbm", "signal_to_noise", "to_edge_index"]

Seed = int | Sequence[int] | np.random.SeedSequence | np.random.Generator
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

#: Above this edge probability every pair of a block pair gets its own coin: the cost is still O(edges).
_DENSE = 0.25
#: The largest number of nodes: node pairs are sorted as 64-bit keys.
_MAX_NODES = 2**32


def sample_sbm(sizes: Sequence[int] | ArrayLike, probs: ArrayLike | Tensor, seed: Seed) -> Tensor:
    r"""Draw a graph from the stochastic block model.

    Every unordered pair of nodes :math:`\{i, j\}` is an edge independently with probability
    :math:`p_{g_i g_j}`, where :math:`g_i` is the community of node :math:`i`. The law is exact: for each pair of
    communities the number of edges is binomial and the edges are a uniformly random set of that size. Time and memory
    are O(edges + nodes + k^2), up to the sort of the result.

    Args:
        sizes: Community sizes, (k,), each >= 1. The nodes of community 0 come first, then those of community 1, ...
        probs: Edge probabilities, symmetric (k, k), in [0, 1].
        seed: Anything ``numpy.random.default_rng`` takes.

    Returns:
        ``edge_index``, int64 (2, E): both directions of every edge, sorted by (row, column), no self-loops, no
        duplicates.

    Raises:
        ValueError: If ``sizes`` or ``probs`` is not as above.

    Example:
        >>> sample_sbm([2, 1], [[1.0, 0.0], [0.0, 0.0]], seed=0)
        tensor([[0, 1],
                [1, 0]])
    """
    size, prob = check_blocks(sizes, probs)
    u, v = draw_pairs(size, prob, np.random.default_rng(seed))
    return to_edge_index(u, v, int(size.sum()))


def draw_pairs(size: IntArray, prob: FloatArray, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Draw the undirected edges of :func:`sample_sbm`, each once, in no particular order or direction.

    Args:
        size: Community sizes, (k,), as from :func:`check_blocks`.
        prob: Edge probabilities, (k, k), as from :func:`check_blocks`.
        rng: Source of randomness.

    Returns:
        The two nodes of each edge, two int64 arrays (m,).
    """
    first, second = np.triu_indices(len(size))
    pair_prob = prob[first, second]
    # A community of s nodes has s (s-1) / 2 pairs. One of s and s-1 is even, and half of their product fits in 63 bits.
    half = np.where(size % 2 == 0, (size // 2) * (size - 1), size * ((size - 1) // 2))
    number = np.where(first == second, half[first], size[first] * size[second])
    offset = np.concatenate([[0], np.cumsum(number)])
    dense = pair_prob > _DENSE
    chosen = _draw(rng, number, offset, pair_prob, ~dense)
    if dense.any():
        chosen = np.concatenate([chosen, _flip(rng, number, offset, pair_prob, dense)])
    block = np.searchsorted(offset, chosen, side="right") - 1
    chosen -= offset[block]
    return _decode(chosen, block, size, first, second)


def _flip(
    rng: np.random.Generator, number: IntArray, offset: IntArray, prob: FloatArray, where: NDArray[np.bool_]
) -> IntArray:
    """Give the indices of the edges in the block pairs ``where``, by one coin for each pair of nodes."""
    parts = [
        offset[b] + np.flatnonzero(rng.random(number[b]) < prob[b]) for b in np.flatnonzero(where) if number[b] > 0
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _draw(
    rng: np.random.Generator, number: IntArray, offset: IntArray, prob: FloatArray, where: NDArray[np.bool_]
) -> IntArray:
    """Give the indices of the edges in the block pairs ``where``: binomial counts, then uniform sets of these sizes.

    Indices are drawn with replacement; what is missing after removing the repeats is drawn again. Each round treats
    all indices of a block pair alike and the final count is fixed, so all sets of that size are equally likely.
    """
    block = np.flatnonzero(where & (prob > 0) & (number > 0))
    count = rng.binomial(number[block], prob[block])
    chosen = np.empty(0, np.int64)
    missing = count
    while missing.any():
        high = np.repeat(number[block], missing)
        new = distinct(np.repeat(offset[block], missing) + rng.integers(0, high))
        position = np.searchsorted(chosen, new)
        if len(chosen):
            is_new = chosen[np.minimum(position, len(chosen) - 1)] != new
            new, position = new[is_new], position[is_new]
        chosen = np.insert(chosen, position, new) if len(chosen) else new
        have = np.searchsorted(chosen, offset[block + 1]) - np.searchsorted(chosen, offset[block])
        missing = count - have
    return chosen


def distinct(values: NDArray) -> NDArray:
    """Sort in place and drop repeats.

    ``numpy.unique`` uses a hash table for integers, which is many times slower at 10^6.
    """
    values.sort()
    if len(values) < 2:
        return values
    first = np.empty(len(values), np.bool_)
    first[0] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values if first.all() else values[first]


def _decode(
    index: IntArray, block: IntArray, size: IntArray, first: IntArray, second: IntArray
) -> tuple[IntArray, IntArray]:
    """Map the index of a pair within its block pair to its two nodes, one to one.

    Between communities a and b the index is ``i + |a| j``. Inside a community of s nodes it is ``i + s (d - 1)`` for
    the pair {i, i + d mod s}: each unordered pair has one such form with index < s (s - 1) / 2. Integers only.
    """
    start = np.concatenate([[0], np.cumsum(size)[:-1]])
    a, b = first[block], second[block]
    quotient, i = np.divmod(index, size[a])
    j = np.where(a == b, (i + quotient + 1) % size[a], quotient)
    return start[a] + i, start[b] + j


def to_edge_index(u: IntArray, v: IntArray, num_nodes: int) -> Tensor:
    """Write undirected edges in both directions, sorted by (row, column).

    Args:
        u: First node of each edge, (m,), no pair twice in either direction.
        v: Second node of each edge, (m,), different from the first.
        num_nodes: Number of nodes, at most 2^32.

    Returns:
        ``edge_index``, int64 (2, 2m).
    """
    bits = np.uint64(max(1, (num_nodes - 1).bit_length()))
    m = len(u)
    key = np.empty(2 * m, np.uint64)
    for out, row, column in ((key[:m], u, v), (key[m:], v, u)):
        np.left_shift(row.view(np.uint64), bits, out=out)
        out |= column.view(np.uint64)
    key.sort()
    edge_index = np.empty((2, 2 * m), np.int64)
    out = edge_index.view(np.uint64)
    np.right_shift(key, bits, out=out[0])
    np.bitwise_and(key, (np.uint64(1) << bits) - np.uint64(1), out=out[1])
    return torch.from_numpy(edge_index)


def check_blocks(sizes: Sequence[int] | ArrayLike, probs: ArrayLike | Tensor) -> tuple[IntArray, FloatArray]:
    """Check community sizes and edge probabilities, and give them as int64 (k,) and float64 (k, k) arrays."""
    size = np.asarray(sizes)
    if size.ndim != 1 or size.size == 0 or not np.issubdtype(size.dtype, np.integer):
        msg = f"sizes={sizes!r}: must be a non-empty list of whole numbers, one size for each community."
        raise ValueError(msg)
    if size.min() < 1:
        msg = f"sizes={size.tolist()}: every community needs at least one node; leave empty communities out."
        raise ValueError(msg)
    if sum(size.tolist()) > _MAX_NODES:
        msg = f"sizes={size.tolist()}: at most 2^32 nodes in all are supported."
        raise ValueError(msg)
    prob = np.asarray(probs, dtype=np.float64)
    k = len(size)
    if prob.shape != (k, k):
        msg = f"probs has shape {prob.shape}: {k} community sizes need a {k} x {k} matrix of edge probabilities."
        raise ValueError(msg)
    if not ((prob >= 0) & (prob <= 1)).all():
        bad = prob[~((prob >= 0) & (prob <= 1))].flat[0]
        msg = f"probs contains {bad}: every edge probability must be a number in [0, 1]."
        raise ValueError(msg)
    if not np.array_equal(prob, prob.T):
        msg = "probs is not symmetric: edges are undirected, so probs[a][b] must equal probs[b][a]."
        raise ValueError(msg)
    return size.astype(np.int64), prob


def signal_to_noise(a: float, b: float, num_classes: int) -> float:
    r"""Compute the signal-to-noise ratio of k equal communities with edge probabilities a/n inside and b/n between.

    .. math:: \mathrm{SNR} = \frac{(a - b)^2}{k (a + (k-1) b)}

    Detection by polynomial algorithms is possible for SNR > 1 (the Kesten-Stigum threshold). An empty graph has SNR 0.
    """
    degree_sum = a + (num_classes - 1) * b
    return (a - b) ** 2 / (num_classes * degree_sum) if degree_sum > 0 else 0.0


def pair_from_snr(
    snr: float, average_degree: float, num_classes: int, structure: Literal["associative", "disassociative"]
) -> tuple[float, float]:
    r"""Find (a, b) with a given signal-to-noise ratio and average degree.

    With :math:`c = (a + (k-1) b)/k` and :math:`a - b = \pm k \sqrt{c\,\mathrm{SNR}}` (+ for associative),
    :math:`b = c - (a-b)/k` and :math:`a = b + (a-b)`.

    Args:
        snr: Signal-to-noise ratio, >= 0.
        average_degree: Average degree c, > 0.
        num_classes: Number of communities k, >= 2.
        structure: ``associative`` for a >= b, ``disassociative`` for a <= b.

    Returns:
        The pair (a, b).

    Raises:
        ValueError: If an argument is out of range, or the pair would have a negative member: the SNR is at most c for
            associative and c / (k-1)^2 for disassociative communities.

    Example:
        >>> pair_from_snr(3.0, average_degree=3.0, num_classes=2, structure="associative")
        (6.0, 0.0)
    """
    k, c = num_classes, average_degree
    if not (snr >= 0 and np.isfinite(snr)):
        msg = f"snr={snr}: the signal-to-noise ratio must be a finite number >= 0."
        raise ValueError(msg)
    if not (c > 0 and np.isfinite(c)):
        msg = f"average_degree={c}: must be a finite number > 0."
        raise ValueError(msg)
    if k < 2:
        msg = f"num_classes={k}: a signal-to-noise ratio needs at least 2 communities."
        raise ValueError(msg)
    largest = c if structure == "associative" else c / (k - 1) ** 2
    if snr > largest * (1 + 1e-9):
        msg = (
            f"snr={snr} cannot be reached by {k} {structure} communities of average degree {c}: "
            f"the largest is {largest:.6g}; raise average_degree or lower snr."
        )
        raise ValueError(msg)
    difference = k * float(np.sqrt(c * snr)) * (1 if structure == "associative" else -1)
    b = max(0.0, c - difference / k)
    a = max(0.0, b + difference)
    return a, b
