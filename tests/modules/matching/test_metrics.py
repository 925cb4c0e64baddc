"""Measures of matchings against direct loops."""

import math

import pytest
import torch

from theodolite.modules.matching import (
    GraphPairs,
    Graphs,
    argmax_accuracy,
    assignment_accuracy,
    common_edges,
    exact_recovery,
    objective,
)
from theodolite.modules.matching.metrics import permute_second


def unequal_pairs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(4, 4), (3, 6), (5, 7)]
    first, second = torch.zeros(3, 5, 5), torch.zeros(3, 7, 7)
    permutation = torch.full((3, 5), -1)
    for i, (n, m) in enumerate(sizes):
        first[i, :n, :n] = torch.randint(-3, 9, (n, n), generator=generator).float()
        second[i, :m, :m] = torch.randint(-3, 9, (m, m), generator=generator).float()
        permutation[i, :n] = torch.randperm(m, generator=generator)[:n]
    ns, ms = torch.tensor(sizes).T
    return GraphPairs(Graphs(ns, dense=first), Graphs(ms, dense=second), permutation), sizes


def test_objective_is_the_double_sum():
    pairs, sizes = unequal_pairs()
    p = pairs.permutation
    for k, (n, _) in enumerate(sizes):
        a, b = pairs.first.dense[k].tolist(), pairs.second.dense[k].tolist()
        expected = sum(a[i][j] * b[p[k, i]][p[k, j]] for i in range(n) for j in range(n))
        assert objective(p, pairs)[k] == expected
        assert common_edges(p, pairs)[k] == expected / 2
        for i in range(5):
            for j in range(5):
                moved = b[p[k, i]][p[k, j]] if max(i, j) < n else 0
                assert permute_second(p, pairs)[k, i, j] == moved


def test_objective_is_the_trace_and_completes_the_distance_of_matched_graphs():
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(2, 6, 6, generator=generator, dtype=torch.float64)
    p = torch.randperm(6, generator=generator)
    x = torch.eye(6, dtype=torch.float64)[p]
    value = objective(p.unsqueeze(0), GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0)))[0]
    torch.testing.assert_close(value, (a.T @ x @ b @ x.T).trace())
    torch.testing.assert_close((a @ x - x @ b).square().sum(), a.square().sum() + b.square().sum() - 2 * value)


def test_cycle_against_distances_is_twice_the_length_of_the_tour():
    n = 9
    cycle = torch.roll(torch.eye(n), 1, 0) + torch.roll(torch.eye(n), -1, 0)
    angles = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    points = torch.stack([angles.cos(), angles.sin()], 1)
    pairs = GraphPairs.from_dense(cycle.unsqueeze(0), torch.cdist(points, points).unsqueeze(0))
    tour = torch.arange(n).unsqueeze(0)
    assert objective(tour, pairs).item() / 2 == pytest.approx(2 * n * math.sin(math.pi / n))


def test_accuracies_count_nodes_within_each_size():
    pairs, sizes = unequal_pairs()
    matching = pairs.permutation.clone()
    assert assignment_accuracy(matching, pairs).tolist() == [1, 1, 1]
    matching[0, 0], matching[0, 1] = pairs.permutation[0, 1], pairs.permutation[0, 0]
    matching[2, 4] = -1
    assert assignment_accuracy(matching, pairs).tolist() == [0.5, 1.0, 0.8]
    assert exact_recovery(matching, pairs).tolist() == [0, 1, 0]


def test_argmax_accuracy_ignores_columns_beyond_a_size():
    pairs, sizes = unequal_pairs()
    scores = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    for k, (_, m) in enumerate(sizes):
        scores[k, :, m:] = 10
    hits = [
        sum(int(scores[k, i, :m].argmax()) == int(pairs.permutation[k, i]) for i in range(n)) / n
        for k, (n, m) in enumerate(sizes)
    ]
    assert argmax_accuracy(scores, pairs).tolist() == hits


def test_accuracy_without_a_planted_matching_is_refused():
    pairs = GraphPairs.from_dense(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="no planted matching"):
        assignment_accuracy(torch.zeros(1, 3, dtype=torch.int64), pairs)
