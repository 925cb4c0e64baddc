"""Edge swaps: the published procedure, degrees kept."""

import numpy as np
import pytest

from theodolite.datamodules.edge_swaps import swap_edges
from theodolite.datamodules.pairs import sample_erdos_renyi
from theodolite.datamodules.regular_graphs import sample_regular


def generators(batch, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(batch)]


def degrees(graphs):
    size = len(graphs.counts) * graphs.num_nodes
    first = graphs.graph * graphs.num_nodes
    return np.bincount(np.concatenate((first + graphs.u, first + graphs.v)), minlength=size)


def literal_swaps(edges, noise, rng):
    """Do what the published code does, entry by entry."""
    now = {frozenset(edge) for edge in edges}
    entries = edges + [(v, u) for u, v in edges]
    for u, v in entries:
        if rng.random() >= noise:
            continue
        for s, t in entries:
            if rng.random() >= noise or u == t or s == v:
                continue
            if {frozenset((u, v)), frozenset((s, t))} <= now and not now & {frozenset((u, t)), frozenset((s, v))}:
                now -= {frozenset((u, v)), frozenset((s, t))}
                now |= {frozenset((u, t)), frozenset((s, v))}
    return now


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_common_edges_agree_with_the_literal_procedure(noise):
    """Mean and spread over 300 small graphs; a walk that may start anywhere in the list would differ."""
    batch = 300
    graphs = sample_regular(14, 4, generators(batch))
    ours = swap_edges(graphs, [noise] * batch, generators(batch, seed=1))
    kept = np.bincount(graphs.graph[np.isin(graphs.keys, ours.keys)], minlength=batch)
    literal = []
    for i in range(batch):
        u, v = graphs.u[graphs.graph == i], graphs.v[graphs.graph == i]
        edges = sorted((min(edge), max(edge)) for edge in zip(u.tolist(), v.tolist()))
        now = literal_swaps(edges, noise, np.random.default_rng([2, i]))
        literal.append(sum(frozenset(edge) in now for edge in edges))
    error = ((np.var(kept) + np.var(literal)) / batch) ** 0.5
    assert abs(kept.mean() - np.mean(literal)) < 4 * error
    assert 0.7 < np.std(kept) / np.std(literal) < 1.4


@pytest.mark.parametrize(("noise", "planted"), [(0.05, 2027), (0.10, 1607), (0.15, 1236), (0.20, 911)])
def test_planted_common_edges_of_the_published_set(noise, planted):
    """Of 2500 edges (n = 500, d = 10), by 30 to 150 runs of the literal procedure and of ours; one draw's sd is 40."""
    batch = 12
    graphs = sample_regular(500, 10, generators(batch))
    common = len(np.intersect1d(graphs.keys, swap_edges(graphs, [noise] * batch, generators(batch, 1)).keys)) / batch
    assert abs(common - planted) < 4 * 40 / batch**0.5


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.7])
def test_degrees_are_kept_and_graphs_stay_simple(noise):
    for graphs in (sample_regular(30, 5, generators(8)), sample_erdos_renyi(30, [0.0, 0.1, 0.5, 1.0], generators(4))):
        batch = len(graphs.counts)
        noisy = swap_edges(graphs, [noise] * batch, generators(batch, 1))
        assert np.array_equal(degrees(noisy), degrees(graphs))
        assert len(np.unique(noisy.keys)) == len(noisy.u) == len(graphs.u)
        assert (noisy.u != noisy.v).all()
        assert np.array_equal(np.sort(noisy.keys), np.sort(graphs.keys)) == (noise == 0)


def test_the_order_of_the_edges_does_not_matter():
    graphs = sample_regular(20, 4, generators(1))
    other = graphs._replace(u=graphs.v[::-1], v=graphs.u[::-1])
    a, b = (swap_edges(each, [0.2], generators(1, 1)) for each in (graphs, other))
    assert np.array_equal(a.keys, b.keys)
