"""Pairs of graphs: both forms of a graph say the same, and wrong pairs are refused."""

import pytest
import torch

from theodolite.modules.matching import GraphPairs, Graphs

from .pairs import as_sparse, padded_side, random_graph


def test_sparse_and_dense_forms_agree_for_unequal_sizes():
    side = padded_side([random_graph(5, seed=1), random_graph(8, seed=2), random_graph(3, seed=3)])
    assert side.padded
    assert torch.equal(as_sparse(side).dense, side.dense)
    assert torch.equal(side.node_mask.sum(1), torch.tensor([5, 8, 3]))
    moved = as_sparse(side).to("cpu")
    assert torch.equal(moved.dense, side.dense)


def test_edges_are_sorted_and_symmetric_as_the_operators_want_them():
    graph = padded_side([random_graph(6, seed=1), random_graph(4, seed=2)]).sparse
    source, target = graph.edge_index
    keys = source * graph.num_nodes + target
    assert torch.equal(keys, keys.sort().values)
    assert set(keys.tolist()) == set((target * graph.num_nodes + source).tolist())


def test_mask_marks_the_entries_within_both_sizes():
    first = padded_side([random_graph(2), random_graph(3)])
    second = padded_side([random_graph(4), random_graph(3)])
    mask = GraphPairs(first, second).mask
    assert mask.shape == (2, 3, 4)
    assert mask.sum((1, 2)).tolist() == [8, 9]
    assert GraphPairs(second, second).mask is not None
    assert GraphPairs.from_dense(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)).mask is None


def test_copies_keep_everything():
    pairs = GraphPairs.from_dense(
        torch.zeros(1, 3, 3), torch.ones(1, 3, 3), torch.arange(3)[None], noise=torch.tensor([0.5]), minimize=True
    )
    copy = pairs.to("cpu")
    assert copy.minimize
    assert torch.equal(copy.permutation, pairs.permutation)
    assert torch.equal(copy.noise, pairs.noise)
    assert torch.equal(copy.second.dense, pairs.second.dense)


def test_wrong_pairs_are_refused():
    small, large = padded_side([random_graph(3)]), padded_side([random_graph(4)])
    with pytest.raises(ValueError, match="pair 0 the first graph has 4 nodes, the second 3"):
        GraphPairs(large, small)
    with pytest.raises(ValueError, match="1 first and 2 second"):
        GraphPairs(small, padded_side([random_graph(3), random_graph(3)]))
    with pytest.raises(ValueError, match="sparse or dense"):
        Graphs(torch.tensor([3]))
