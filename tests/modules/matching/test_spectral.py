"""Spectral matching: formulas, equivariance, recovery without noise, chance on regular graphs."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch

from theodolite.datamodules.qap_datamodule import QAPDataset
from theodolite.modules.matching import (
    GRAMPA,
    GraphPairs,
    Graphs,
    LowRankAlign,
    Umeyama,
    assign,
    assignment_accuracy,
    objective,
)

ALL = [GRAMPA, Umeyama, LowRankAlign]


def pairs_of(noise, number=8, num_nodes=30, **kwargs):
    return QAPDataset([noise], number, "test", num_nodes=num_nodes, **kwargs).__getitems__(list(range(number)))


def relabelled(pairs, order):
    second = pairs.second.dense[:, order][:, :, order]
    return GraphPairs.from_dense(pairs.first.dense, second)


@pytest.mark.parametrize("network", ALL)
def test_permuting_the_second_graph_permutes_the_columns(network):
    pairs = pairs_of(0.1)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network()(relabelled(pairs, order)), network()(pairs)[:, :, order])


@pytest.mark.parametrize("network", ALL)
def test_swapping_the_graphs_transposes_the_scores(network):
    pairs = pairs_of(0.1)
    swapped = GraphPairs.from_dense(pairs.second.dense, pairs.first.dense)
    torch.testing.assert_close(network()(swapped), network()(pairs).mT)


@pytest.mark.parametrize("network", ALL)
def test_graphs_without_noise_are_recovered(network):
    pairs = pairs_of(0.0)
    assert (assignment_accuracy(assign(network()(pairs), pairs), pairs) == 1).all()


def test_grampa_beats_the_others_with_noise():
    pairs = pairs_of(0.05, number=32, num_nodes=50)
    accuracy = [assignment_accuracy(assign(network()(pairs), pairs), pairs).mean() for network in ALL]
    assert accuracy[0] > max(accuracy[1:]) + 0.2


@pytest.mark.parametrize("network", ALL)
def test_padded_batches_equal_single_pairs(network):
    batch = [pairs_of(0.1, 1, num_nodes=n) for n in (12, 20)]
    dense = [torch.zeros(2, 20, 20) for _ in range(2)]
    for i, pair in enumerate(batch):
        n = pair.first.max_size
        dense[0][i, :n, :n], dense[1][i, :n, :n] = pair.first.dense[0], pair.second.dense[0]
    sizes = torch.tensor([12, 20])
    scores = network()(GraphPairs(Graphs(sizes, dense=dense[0]), Graphs(sizes, dense=dense[1])))
    for i, (pair, n) in enumerate(zip(batch, (12, 20), strict=True)):
        torch.testing.assert_close(scores[i, :n, :n], network()(pair)[0])


@pytest.mark.parametrize("network", ALL)
def test_smaller_first_graphs_and_directed_ones_are_scored(network):
    first, second = torch.rand(1, 5, 5), torch.rand(1, 8, 8)
    pairs = GraphPairs(Graphs(torch.tensor([5]), dense=first), Graphs(torch.tensor([8]), dense=second))
    scores = network()(pairs)
    assert scores.shape == (1, 5, 8)
    assert scores.isfinite().all()


def test_grampa_scores_by_the_formula_of_double_sums():
    pairs = pairs_of(0.1, 1, num_nodes=9)
    matrices = []
    for side in (pairs.first, pairs.second):
        a = side.dense[0].double().numpy()
        off = ~np.eye(9, dtype=bool)
        matrices.append((a - a[off].mean() * off) / (3 * a[off].std()))
    (values, u), (others, v) = (np.linalg.eigh(matrix) for matrix in matrices)
    expected = np.zeros((9, 9))
    for i, j in itertools.product(range(9), repeat=2):
        weight = u[:, i].sum() * v[:, j].sum() / ((values[i] - others[j]) ** 2 + 0.04)
        expected += weight * np.outer(u[:, i], v[:, j])
    torch.testing.assert_close(GRAMPA()(pairs)[0], torch.from_numpy(expected))


def test_low_rank_align_gives_the_signs_of_the_largest_objective():
    pairs = pairs_of(0.2, 1, num_nodes=12)
    u, v = (np.linalg.eigh(side.dense[0].double().numpy())[1][:, -3:] for side in (pairs.first, pairs.second))
    values = []
    for signs in itertools.product((-1, 1), repeat=3):
        scores = torch.from_numpy((u * signs) @ v.T).unsqueeze(0)
        values.append(objective(assign(scores, pairs), pairs).item())
    assert objective(assign(LowRankAlign(3)(pairs), pairs), pairs).item() == max(values)


def test_grampa_is_constant_on_regular_graphs_and_matches_by_chance():
    first, second = (
        torch.stack(
            [torch.from_numpy(nx.to_numpy_array(nx.random_regular_graph(4, 40, seed=s + i))) for i in range(16)]
        )
        for s in (0, 100)
    )
    order = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(i)) for i in range(16)])
    copies = torch.stack([a[p.argsort()][:, p.argsort()] for a, p in zip(first, order, strict=True)])
    for others in (second, copies):
        pairs = GraphPairs.from_dense(first, others, order)
        scores = GRAMPA()(pairs)
        assert (scores - scores[0, 0, 0]).abs().max() < 1e-8 * scores.abs().max()
        # 640 nodes, one expected fixed point in 40: mean 1/40, standard deviation of the mean 1/40/4
        assert assignment_accuracy(assign(scores.round(decimals=6), pairs), pairs).mean() < 1 / 40 + 4 / 160


@pytest.mark.parametrize("network", ALL)
def test_empty_graphs_give_finite_scores(network):
    pairs = GraphPairs.from_dense(torch.zeros(1, 3, 3), torch.zeros(1, 3, 3))
    assert network()(pairs).isfinite().all()


@pytest.mark.parametrize("make", [lambda: GRAMPA(eta=0), lambda: LowRankAlign(rank=0), lambda: LowRankAlign(rank=13)])
def test_bad_arguments_are_named(make):
    with pytest.raises(ValueError, match=r"(GRAMPA\(eta=0\)|LowRankAlign\(rank=(0|13)\)): must be"):
        make()
