"""Erdos-Renyi graphs and the noise of Nowak et al.: exact laws, in O(edges)."""

import numpy as np
import pytest
from scipy.stats import chisquare

from theodolite.datamodules.pairs import EdgeLists, flip_edges, merge, occurs_once, sample_erdos_renyi


def generators(batch, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(batch)]


def codes(graphs):
    """Number each graph on few nodes by its set of edges."""
    n = graphs.num_nodes
    place = np.full((n, n), -1)
    upper = np.triu_indices(n, 1)
    place[upper] = place.T[upper] = np.arange(len(upper[0]))
    return np.bincount(graphs.graph, 2.0 ** place[graphs.u, graphs.v], len(graphs.counts)).astype(int)


def law(present, p_present, p_absent, pairs):
    """Give the probability of each graph, whose pairs are edges independently."""
    probability = np.where(present[:, None], p_present, p_absent)
    bits = (np.arange(2**pairs) >> np.arange(pairs)[:, None]) & 1
    return np.where(bits == 1, probability, 1 - probability).prod(axis=0)


@pytest.mark.parametrize("p", [0.03, 0.3, 0.8])
def test_all_graphs_on_four_nodes_have_their_probability(p):
    draws = 40_000
    observed = np.bincount(codes(sample_erdos_renyi(4, [p] * draws, generators(draws))), minlength=64)
    expected = draws * law(np.zeros(6, dtype=bool), p, p, 6)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_number_and_place_of_edges_at_size():
    n, p, batch = 3000, 0.002, 30
    graphs = sample_erdos_renyi(n, [p] * batch, generators(batch))
    pairs = n * (n - 1) // 2
    sd = (batch * pairs * p * (1 - p)) ** 0.5
    assert abs(graphs.counts.sum() - batch * pairs * p) < 4 * sd
    assert len(np.unique(graphs.keys)) == len(graphs.u)
    assert (graphs.u != graphs.v).all()
    halves = np.bincount((graphs.u < n // 2).astype(int) + (graphs.v < n // 2))
    inside = (n // 2) * (n // 2 - 1) / 2
    assert chisquare(halves, halves.sum() * np.array([inside, (n // 2) ** 2, inside]) / pairs).pvalue > 1e-4


def test_certain_and_impossible_edges():
    graphs = sample_erdos_renyi(7, [0.0, 1.0, 0.0], generators(3))
    assert graphs.counts.tolist() == [0, 21, 0]
    assert len(np.unique(graphs.keys)) == 21
    assert sample_erdos_renyi(1, [0.5], generators(1)).counts.tolist() == [0]


def test_flips_have_the_published_law_pair_by_pair():
    """G1 is a path on four nodes: its edges stay with 1 - e, the other pairs appear with p e / (1 - p)."""
    draws, noise, density = 40_000, 0.3, 0.4
    u, v = np.tile([0, 1, 2], draws), np.tile([1, 2, 3], draws)
    path = EdgeLists(u, v, np.full(draws, 3), 4)
    noisy = flip_edges(path, [noise] * draws, density, generators(draws))
    present = np.array([True, False, False, True, False, True])  # 01 02 03 12 13 23
    expected = draws * law(present, 1 - noise, density * noise / (1 - density), 6)
    assert chisquare(np.bincount(codes(noisy), minlength=64), expected).pvalue > 1e-4


def test_flips_keep_the_density_and_the_expected_common_edges():
    n, p, noise, batch = 50, 0.2, 0.15, 2000
    rngs = generators(batch)
    first = sample_erdos_renyi(n, [p] * batch, rngs)
    second = flip_edges(first, [noise] * batch, p, rngs)
    pairs = batch * n * (n - 1) / 2
    assert abs(second.counts.sum() / pairs - p) < 4 * (p * (1 - p) / pairs) ** 0.5
    common = len(np.intersect1d(first.keys, second.keys))
    m = len(first.u)
    assert abs(common - m * (1 - noise)) < 4 * (m * noise * (1 - noise)) ** 0.5
    assert len(np.unique(second.keys)) == len(second.u)


def test_no_noise_changes_nothing():
    rngs = generators(5)
    first = sample_erdos_renyi(20, [0.3] * 5, rngs)
    assert np.array_equal(np.sort(flip_edges(first, [0.0] * 5, 0.3, rngs).keys), np.sort(first.keys))


@pytest.mark.parametrize(
    ("noise", "density", "message"),
    [
        (-0.1, 0.2, r"noise=-0.1: it must be in \[0, 1\]"),
        (1.5, 0.2, "noise=1.5"),
        (0.1, 1.0, "density=1.0"),
        (0.9, 0.6, "at most 0.6667"),
        (float("nan"), 0.2, "noise=nan"),
    ],
)
def test_impossible_noise_is_an_error(noise, density, message):
    graphs = sample_erdos_renyi(5, [0.5], generators(1))
    with pytest.raises(ValueError, match=message) as error:
        flip_edges(graphs, [noise], density, generators(1))
    assert "\n" not in str(error.value)


def test_impossible_edge_probability_is_an_error():
    with pytest.raises(ValueError, match=r"1\.5 must be in"):
        sample_erdos_renyi(5, [1.5], generators(1))


def test_relabel_moves_node_i_to_its_number():
    graphs = EdgeLists(np.array([0, 0]), np.array([1, 2]), np.array([1, 1]), 3)
    moved = graphs.relabel(np.array([[2, 0, 1], [1, 2, 0]]))
    assert moved.edge_index().tolist() == [[0, 2, 3, 4], [2, 0, 4, 3]]


def test_merge_keeps_the_edges_of_each_graph_together():
    first = EdgeLists(np.array([0, 1]), np.array([1, 2]), np.array([2, 0]), 3)
    second = EdgeLists(np.array([0, 0]), np.array([2, 1]), np.array([1, 1]), 3)
    merged = merge(first, second)
    assert merged.counts.tolist() == [3, 1]
    assert merged.keys.tolist() == [1, 5, 2, 10]


@pytest.mark.parametrize("bound", [50, 5_000, 10**12])
def test_occurs_once_agrees_with_counting(bound):
    rng = np.random.default_rng(0)
    keys = rng.integers(0, bound, 300)
    keys[:40] = keys[40:80]
    values, counts = np.unique(keys, return_counts=True)
    assert np.array_equal(occurs_once(keys, bound), np.isin(keys, values[counts == 1]))
