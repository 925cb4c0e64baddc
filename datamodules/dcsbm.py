"""Exact sampler of the degree-corrected stochastic block model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .sbm import FloatArray, IntArray, Seed, check_blocks, distinct, to_edge_index

__all__ = ["draw_degree_corrected_pairs", "power_law_propensities", "sample_dcsbm"]

#: Pairs that are joined with a higher probability than this get a coin each; there are at most two per expected edge.
_HEAVY = 0.5


def sample_dcsbm(sizes: Sequence[int] | ArrayLike, probs: ArrayLike | Tensor, theta: ArrayLike, seed: Seed) -> Tensor:
    r"""Draw a graph from the degree-corrected stochastic block model with simple edges.

    Every unordered pair :math:`\{i, j\}` is an edge independently with probability
    :math:`w_{ij} = \theta_i \theta_j p_{g_i g_j}`. From `"Stochastic blockmodels and community structure in networks"
    <https://arxiv.org/abs/1008.3926>`_, with Bernoulli instead of Poisson edges.

    The law is exact up to float64 rounding: proposals are a Poisson process of rate :math:`C w_{ij}`, so a pair is
    proposed at least once with probability :math:`1 - e^{-C w}`, and is kept with probability
    :math:`w / (1 - e^{-C w}) \le 1`. Pairs with w > 1/2 get a coin each instead, which allows w = 1 and keeps
    :math:`C \le 2 \ln 2`. Time and memory are O(edges + nodes + k^2), up to sorting.

    Args:
        sizes: Community sizes, (k,), each >= 1. The nodes of community 0 come first, then those of community 1, ...
        probs: Edge probabilities at theta = 1, symmetric (k, k), in [0, 1].
        theta: Degree propensities, (n,), >= 0, such that no :math:`w_{ij}` exceeds 1.
        seed: Anything ``numpy.random.default_rng`` takes.

    Returns:
        ``edge_index``, int64 (2, E): both directions of every edge, sorted by (row, column), no self-loops, no
        duplicates.

    Raises:
        ValueError: If an argument is not as above.
    """
    size, prob = check_blocks(sizes, probs)
    propensity = np.asarray(theta, dtype=np.float64)
    num_nodes = int(size.sum())
    if propensity.shape != (num_nodes,):
        msg = f"theta has shape {propensity.shape}: one degree propensity for each of the {num_nodes} nodes is needed."
        raise ValueError(msg)
    if num_nodes > 2**31:
        msg = f"sizes sum to {num_nodes}: at most 2^31 nodes are supported with degree correction."
        raise ValueError(msg)
    if not (np.isfinite(propensity) & (propensity >= 0)).all():
        bad = propensity[~(np.isfinite(propensity) & (propensity >= 0))][0]
        msg = f"theta contains {bad}: degree propensities must be finite and >= 0."
        raise ValueError(msg)
    largest = _largest_probability(size, prob, propensity)
    if largest > 1:
        msg = (
            f"theta gives an edge probability theta_i theta_j probs = {largest:.6g} > 1; "
            "lower probs or cut the largest theta."
        )
        raise ValueError(msg)
    u, v = draw_degree_corrected_pairs(size, prob, propensity, np.random.default_rng(seed))
    return to_edge_index(u, v, num_nodes)


def draw_degree_corrected_pairs(
    size: IntArray, prob: FloatArray, theta: FloatArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Draw the undirected edges of :func:`sample_dcsbm`, each once, in no particular order or direction.

    Args:
        size: Community sizes, (k,), as from ``check_blocks``.
        prob: Edge probabilities, (k, k), as from ``check_blocks``.
        theta: Degree propensities, (n,), >= 0, such that no edge probability exceeds 1.
        rng: Source of randomness.

    Returns:
        The two nodes of each edge, two int64 arrays (m,).
    """
    end = np.cumsum(size)
    start = end - size
    label = np.repeat(np.arange(len(size)), size)
    largest = min(_HEAVY, _largest_probability(size, prob, theta))
    rate = -np.log1p(-largest) / largest if largest > 0 else 1.0

    cumulative = np.concatenate([[0.0], np.cumsum(theta)])
    mass = cumulative[end] - cumulative[start]
    first, second = np.triu_indices(len(size))
    # Inside a community both ends are drawn alike: {i, j} comes in two orders, so half the rate; loops are dropped.
    expected = rate * prob[first, second] * mass[first] * mass[second] * np.where(first == second, 0.5, 1.0)
    block = np.repeat(np.arange(len(first)), rng.poisson(expected))

    def pick(community: IntArray) -> IntArray:
        point = cumulative[start[community]] + rng.random(len(community)) * mass[community]
        return np.clip(np.searchsorted(cumulative, point, side="right") - 1, start[community], end[community] - 1)

    u, v = pick(first[block]), pick(second[block])
    bits = max(1, (len(theta) - 1).bit_length())
    key = distinct((np.minimum(u, v)[u != v] << bits) | np.maximum(u, v)[u != v])
    u, v = key >> bits, key & ((1 << bits) - 1)
    weight = theta[u] * theta[v] * prob[label[u], label[v]]
    proposed = -np.expm1(-rate * weight)
    keep = (rng.random(len(u)) * proposed < weight) & (weight <= _HEAVY)

    heavy_u, heavy_v = _heavy_pairs(size, prob, theta)
    weight = theta[heavy_u] * theta[heavy_v] * prob[label[heavy_u], label[heavy_v]]
    keep_heavy = (rng.random(len(heavy_u)) < weight) & (weight > _HEAVY)
    return np.concatenate([u[keep], heavy_u[keep_heavy]]), np.concatenate([v[keep], heavy_v[keep_heavy]])


def power_law_propensities(
    size: IntArray, exponent: float, largest_prob: float, rng: np.random.Generator
) -> FloatArray:
    """Draw degree propensities from a power law, scaled to mean 1 in each community.

    The density is proportional to ``theta^-exponent`` above its minimum. After scaling, propensities are cut at
    ``1 / sqrt(largest_prob)``, the largest that keeps all edge probabilities at most 1.

    Args:
        size: Community sizes, (k,).
        exponent: Exponent of the density, above 2.
        largest_prob: Largest edge probability of the uncorrected model.
        rng: Source of randomness.

    Returns:
        Propensities, (n,), float64.
    """
    theta = (1.0 - rng.random(size.sum())) ** (-1.0 / (exponent - 1.0))
    start = np.cumsum(size) - size
    theta /= np.repeat(np.add.reduceat(theta, start) / size, size)
    # A hair below the limit, so that rounding does not lift a product above 1.
    limit = (1.0 - 1e-12) / np.sqrt(largest_prob) if largest_prob > 0 else np.inf
    return np.minimum(theta, limit)


def _largest_probability(size: IntArray, prob: FloatArray, theta: FloatArray) -> float:
    """Give the largest edge probability over all pairs of different nodes."""
    parts = np.split(theta, np.cumsum(size)[:-1])
    top = np.array([part.max() for part in parts])
    product = np.outer(top, top)
    for c, part in enumerate(parts):
        product[c, c] = top[c] * np.partition(part, -2)[-2] if len(part) > 1 else 0.0
    return float((product * prob).max())


def _heavy_pairs(size: IntArray, prob: FloatArray, theta: FloatArray) -> tuple[IntArray, IntArray]:
    """List all pairs with a probability above ``_HEAVY``, each once, and possibly some a rounding error below it."""
    start = np.cumsum(size) - size
    order = [s + np.argsort(-part, kind="stable") for s, part in zip(start, np.split(theta, start[1:]), strict=True)]
    top = np.array([theta[nodes[0]] for nodes in order])
    lists: list[tuple[IntArray, IntArray]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for a, b in zip(*np.nonzero(np.triu(np.outer(top, top) * prob > _HEAVY * (1 - 1e-9))), strict=True):
        strength = theta[order[a]] * prob[a, b]
        strength = strength[: np.searchsorted(-strength * top[b], -_HEAVY * (1 - 1e-9))]
        # Partners of a node are the strongest nodes of b, down to where the product passes the limit.
        partners = np.searchsorted(-theta[order[b]], -_HEAVY * (1 - 1e-9) / strength)
        i = np.repeat(np.arange(len(strength)), partners)
        j = np.arange(len(i)) - np.repeat(np.cumsum(partners) - partners, partners)
        once = i < j if a == b else slice(None)
        lists.append((order[a][i[once]], order[b][j[once]]))
    return np.concatenate([u for u, _ in lists]), np.concatenate([v for _, v in lists])
