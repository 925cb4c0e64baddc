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
    fields = {
        "permutation": torch.arange(3)[None],
        "sample_id": torch.tensor([7]),
        "noise": torch.tensor([0.5]),
        "best_known": torch.tensor([4.0]).double(),
    }
    pairs = GraphPairs.from_dense(torch.zeros(1, 3, 3), torch.ones(1, 3, 3), minimize=True, **fields)
    copy = pairs.to("cpu")
    assert copy.minimize
    for name, value in fields.items():
        assert torch.equal(getattr(copy, name), value), name
    assert torch.equal(copy.first.dense, pairs.first.dense)
    assert torch.equal(copy.second.dense, pairs.second.dense)
    plain = GraphPairs(pairs.first, pairs.second).to("cpu")
    assert not plain.minimize
    assert plain.permutation is None
    assert plain.noise is None
    assert plain.best_known is None
    assert plain.sample_id.tolist() == [0]


def test_both_forms_move_to_the_device():
    side = padded_side([random_graph(5), random_graph(3)])
    moved = as_sparse(side).to("meta")  # the one other device that every machine has
    assert moved.sizes.device.type == "meta"
    assert moved.sparse.edge_index.device.type == moved.sparse.batch.device.type == "meta"
    assert padded_side([random_graph(5)]).to("meta").dense.device.type == "meta"


def test_weights_and_loops_leave_the_sparse_form_but_not_the_dense():
    """A QAPLIB matrix has weights and a diagonal; as a graph only its pattern off the diagonal counts."""
    matrix = torch.tensor([[5.0, 0.0, 2.5], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    side = padded_side([matrix])
    assert side.sparse.edge_index.tolist() == [[0, 2], [2, 0]]
    assert torch.equal(side.dense[0], matrix)


def test_wrong_pairs_are_refused():
    small, large = padded_side([random_graph(3)]), padded_side([random_graph(4)])
    two = padded_side([random_graph(4), random_graph(3)])
    cases = [
        (lambda: GraphPairs(large, small), "pair 0 the first graph has 4 nodes, the second 3; give the smaller"),
        (lambda: GraphPairs(padded_side([random_graph(3), random_graph(4)]), two), "pair 1 the first graph has 4"),
        (lambda: GraphPairs.from_dense(large.dense, small.dense), "pair 0 the first graph has 4 nodes, the second 3"),
        (lambda: GraphPairs(small, two), "1 first and 2 second graphs; give as many"),
        (lambda: Graphs(torch.tensor([3])), "sparse or dense"),
        (lambda: Graphs(torch.tensor([3, 2]), dense=torch.zeros(2, 4, 4)), r"\(2, 4, 4\).* need \(2, 3, 3\)"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
