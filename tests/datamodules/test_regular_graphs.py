"""Random regular graphs: every one of them equally likely."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from theodolite.datamodules.regular_graphs import num_rounds, sample_regular


def generators(batch, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(batch)]


def adjacency(graphs):
    n = graphs.num_nodes
    matrices = np.zeros((len(graphs.counts), n, n), dtype=int)
    np.add.at(matrices, (graphs.graph, graphs.u, graphs.v), 1)
    np.add.at(matrices, (graphs.graph, graphs.v, graphs.u), 1)
    return matrices


def all_regular(n, d):
    """List all labelled d-regular graphs: the first node with free places takes every set of later nodes."""

    def extend(edges, free):
        node = next((i for i in range(n) if free[i]), None)
        if node is None:
            yield edges
            return
        others = [j for j in range(node + 1, n) if free[j]]
        for chosen in itertools.combinations(others, free[node]):
            left = [0 if i == node else free[i] - (i in chosen) for i in range(n)]
            yield from extend(edges + [(node, j) for j in chosen], left)

    return [frozenset(edges) for edges in extend([], [d] * n)]


@pytest.mark.parametrize(
    ("n", "d"), [(1, 0), (2, 1), (5, 0), (5, 2), (7, 4), (8, 3), (8, 7), (50, 10), (51, 10), (9, 6)]
)
def test_graphs_are_simple_and_regular(n, d):
    matrices = adjacency(sample_regular(n, d, generators(20)))
    assert matrices.shape == (20, n, n)
    assert matrices.max(initial=0) <= 1
    assert not matrices.diagonal(axis1=1, axis2=2).any()
    assert (matrices.sum(axis=1) == d).all()


@pytest.mark.parametrize(("n", "d", "number"), [(6, 3, 70), (6, 2, 70), (5, 2, 12), (4, 1, 3), (7, 2, 465)])
def test_all_labelled_graphs_are_equally_likely(n, d, number):
    """Chi-square at level 1e-4, over as many classes as there are graphs."""
    graphs = dict.fromkeys(all_regular(n, d), 0)
    assert len(graphs) == number
    draws = 200 * number if number < 100 else 40 * number
    sample = sample_regular(n, d, generators(draws))
    ends = np.sort(np.stack((sample.u, sample.v), axis=1).reshape(draws, -1, 2), axis=2)
    for edges in ends.tolist():
        graphs[frozenset(map(tuple, edges))] += 1
    assert chisquare(list(graphs.values())).pvalue > 1e-4


def test_two_triangles_have_their_share():
    """10 of the 70 two-regular graphs on six nodes. Without the condition on present edges the share is .1525."""
    draws = 60_000
    matrices = adjacency(sample_regular(6, 2, generators(draws, seed=2)))
    share = (np.trace(matrices @ matrices @ matrices, axis1=1, axis2=2) == 12).mean()
    assert abs(share - 1 / 7) < 4 * (1 / 7 * 6 / 7 / draws) ** 0.5


def test_cubic_graphs_on_eight_nodes_have_their_shares():
    """All 19,355 labelled graphs fall into six shapes, which closed walks tell apart."""

    def shapes(matrices):
        powers = [np.linalg.matrix_power(matrices, k) for k in (3, 4, 5, 6)]
        return Counter(map(tuple, np.stack([np.trace(p, axis1=1, axis2=2) for p in powers], axis=1).tolist()))

    graphs = np.array([sorted(graph) for graph in all_regular(8, 3)])
    matrices = np.zeros((len(graphs), 8, 8), dtype=int)
    for a, b in ((0, 1), (1, 0)):
        matrices[np.arange(len(graphs))[:, None], graphs[:, :, a], graphs[:, :, b]] = 1
    expected = shapes(matrices)
    assert sorted(expected.values()) == [35, 840, 2520, 2520, 3360, 10080]
    draws = 20_000
    observed = shapes(adjacency(sample_regular(8, 3, generators(draws, seed=1))))
    assert observed.keys() <= expected.keys()
    share = np.array(list(expected.values())) / len(graphs)
    assert chisquare([observed[shape] for shape in expected], draws * share).pvalue > 1e-4


@pytest.mark.parametrize(("n", "d"), [(500, 4), (500, 10)])
def test_triangles_are_poisson_with_the_known_mean(n, d):
    """Mean and variance tend to (d - 1)^3 / 6; relative corrections are O(d / n)."""
    matrices = adjacency(sample_regular(n, d, generators(30))).astype(np.float32)
    triangles = np.einsum("bij,bji->b", matrices @ matrices, matrices) / 6
    mean = (d - 1) ** 3 / 6
    error = (mean / len(triangles)) ** 0.5
    assert abs(triangles.mean() - mean) < 4 * error + mean * d / n
    assert 0.4 < triangles.var() / mean < 2


@pytest.mark.parametrize(("n", "d"), [(6, 2), (10, 3), (16, 7), (50, 10), (500, 3)])
def test_there_are_enough_rounds_for_every_edge_to_move(n, d, monkeypatch):
    """No edge of the start is left beyond chance, even in half the rounds."""
    monkeypatch.setattr("theodolite.datamodules.regular_graphs.num_rounds", lambda n, d: num_rounds(n, d) // 2)
    batch = 400 if n < 100 else 40
    start = adjacency_of_start(n, d, batch)
    kept = (adjacency(sample_regular(n, d, generators(batch))) & start).sum() / start.sum()
    chance = d / (n - 1)
    deviation = (chance * (1 - chance) / (start.sum() / 2)) ** 0.5
    assert abs(kept - chance) < 5 * deviation


def adjacency_of_start(n, d, batch):
    """Repeat the first draw of each generator, the labels of the circulant graph."""
    labels = np.stack([rng.permutation(n) for rng in generators(batch)])
    distance = (labels.argsort()[:, :, None] - labels.argsort()[:, None, :]) % n
    distance = np.minimum(distance, n - distance)
    near = (distance >= 1) & (distance <= d // 2)
    return (near | (distance * 2 == n) if d % 2 else near).astype(int)


def test_a_graph_does_not_depend_on_its_batch():
    whole = adjacency(sample_regular(12, 5, generators(6)))
    for i in range(6):
        alone = adjacency(sample_regular(12, 5, generators(6)[i : i + 1]))
        assert (alone[0] == whole[i]).all()


def test_ten_thousand_nodes_are_drawn_without_a_dense_matrix():
    graphs = sample_regular(10_000, 3, generators(1))
    assert (np.bincount(np.concatenate((graphs.u, graphs.v))) == 3).all()
    assert len(np.unique(graphs.keys)) == 15_000


@pytest.mark.parametrize(
    ("n", "d", "message"),
    [(5, 3, "product must be even"), (5, 5, r"degree=5: it must be in \[0, num_nodes - 1 = 4\]"), (5, -1, "degree=-1")],
)
def test_impossible_degrees_are_errors(n, d, message):
    with pytest.raises(ValueError, match=message) as error:
        sample_regular(n, d, generators(1))
    assert "\n" not in str(error.value)
