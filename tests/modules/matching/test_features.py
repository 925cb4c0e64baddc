"""Hand-made features against matrix powers of NumPy, and the matching they give."""

import networkx as nx
import numpy as np
import pytest
import torch

from theodolite.datamodules.qap_datamodule import QAPDataset
from theodolite.modules.matching import GraphPairs, Graphs, HandmadeFeatures, assign, assignment_accuracy
from theodolite.modules.matching.features import node_features


def padded(matrices):
    sizes = torch.tensor([len(matrix) for matrix in matrices])
    dense = torch.zeros(len(matrices), int(sizes.max()), int(sizes.max()))
    for i, matrix in enumerate(matrices):
        dense[i, : len(matrix), : len(matrix)] = torch.from_numpy(matrix)
    return Graphs(sizes, dense=dense)


def test_features_are_the_walks_and_neighbourhoods_of_each_node():
    graphs = [nx.karate_club_graph(), nx.path_graph(5), nx.petersen_graph()]
    matrices = [nx.to_numpy_array(graph, weight=None) for graph in graphs]
    features = node_features(padded(matrices), walks=4)
    assert features.shape == (3, 34, 10)
    for k, (graph, a) in enumerate(zip(graphs, matrices, strict=True)):
        degree, scaled = a.sum(1), a / np.sqrt(a.sum() / len(a))
        power = [np.linalg.matrix_power(scaled, number) for number in range(5)]
        columns = [degree, power[1] @ degree]
        for number in (2, 3, 4):
            columns += [power[number] @ degree, np.diag(power[number])]
        columns += [(np.linalg.matrix_power(a, number) > 0).sum(1) for number in (2, 3)]
        np.testing.assert_allclose(features[k, : len(a)].numpy(), np.stack(columns, 1), rtol=1e-9, atol=1e-12)
        assert not features[k, len(a) :].any()
        # the third closed walks are twice the triangles
        triangles = np.array([2 * number for number in nx.triangles(graph).values()])
        scale = (a.sum() / len(a)) ** 1.5
        np.testing.assert_allclose(features[k, : len(a), 5].numpy() * scale, triangles, atol=1e-9)


def test_graphs_without_noise_are_recovered():
    pairs = QAPDataset([0.0], 8, "test", num_nodes=40).__getitems__(list(range(8)))
    scores = HandmadeFeatures()(pairs)
    assert (assignment_accuracy(assign(scores, pairs), pairs) == 1).all()
    torch.testing.assert_close(scores.gather(2, pairs.permutation.unsqueeze(2)), torch.zeros(8, 40, 1).double())


def test_permuting_the_second_graph_permutes_the_columns():
    pairs = QAPDataset([0.1], 4, "test", num_nodes=20).__getitems__([0, 1, 2, 3])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    moved = GraphPairs.from_dense(pairs.first.dense, pairs.second.dense[:, order][:, :, order])
    torch.testing.assert_close(HandmadeFeatures()(moved), HandmadeFeatures()(pairs)[:, :, order])


def test_padding_changes_no_score():
    first = [nx.to_numpy_array(nx.gnp_random_graph(n, 0.4, seed=n)) for n in (6, 9)]
    second = [nx.to_numpy_array(nx.gnp_random_graph(n, 0.4, seed=n + 50)) for n in (8, 9)]
    scores = HandmadeFeatures()(GraphPairs(padded(first), padded(second)))
    for i in range(2):
        alone = HandmadeFeatures()(GraphPairs(padded(first[i : i + 1]), padded(second[i : i + 1])))[0]
        torch.testing.assert_close(scores[i, : len(first[i]), : len(second[i])], alone)


def test_vertex_transitive_graphs_score_all_matches_alike():
    cycle = nx.to_numpy_array(nx.cycle_graph(9))
    scores = HandmadeFeatures()(GraphPairs(padded([cycle]), padded([cycle])))
    assert scores.abs().max() < 1e-9


def test_too_short_walks_are_refused():
    with pytest.raises(ValueError, match=r"HandmadeFeatures\(walks=1\): must be at least 2"):
        HandmadeFeatures(walks=1)
