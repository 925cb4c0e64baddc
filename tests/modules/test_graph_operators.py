"""Sparse operators against dense matrices and the identities of fact-sheet section 10."""

import math

import pytest
import torch
from torch_geometric.data import Batch, Data

from theodolite.datamodules.sbm import sample_sbm
from theodolite.modules.community import LGNN
from theodolite.modules.graph_operators import (
    GraphOperators,
    Segments,
    clipped_square,
    half_relu_normalize,
    reverse_edges,
    row_pointers,
)


def random_graph(num_nodes=17, p=0.3, seed=0):
    return Data(edge_index=sample_sbm([num_nodes], [[p]], seed=seed), num_nodes=num_nodes)


def matrix_of(apply, columns):
    return apply(torch.eye(columns, dtype=torch.float64))


#: Places of the line graph's operators among the weights of LGNN's edge layer.
B, B_SQUARED, B_FOURTH = 2, 3, 4


def edge_map(operators, width, term):
    """Give one operator of the line graph as LGNN applies it: its edge layer, with every other weight zero."""
    network = LGNN(2, width=width, depth=2, power=3).double()
    layer = network.edge_layers[1]
    for weight in layer.requires_grad_(False).parameters():
        weight.zero_()
    layer.mix.weight[:, term * width : (term + 1) * width] = torch.eye(width)

    def apply(y):
        terms, sums = network._edge_terms(operators, y)
        return layer(operators, y, terms, y.new_zeros(operators.num_nodes, width), sums)

    return apply


@pytest.fixture
def dense():
    """Incidence, reversal and non-backtracking matrices of a random graph, built from their definitions."""
    graph = random_graph()
    n, (source, target) = graph.num_nodes, graph.edge_index
    e = source.numel()
    tails, heads = torch.zeros(n, e, dtype=torch.float64), torch.zeros(n, e, dtype=torch.float64)
    tails[source, torch.arange(e)] = 1
    heads[target, torch.arange(e)] = 1
    backtracks = (source[:, None] == target) & (target[:, None] == source)
    nonbacktracking = ((target[:, None] == source) & ~backtracks).double()
    operators = GraphOperators(graph, 3, line_graph=True, dtype=torch.float64)
    return graph, operators, tails, heads, backtracks.double(), nonbacktracking


def test_incidence_maps_are_the_incidence_matrices(dense):
    graph, operators, tails, heads, reversal, _ = dense
    n, e = tails.shape
    line_degree = torch.diag(operators.line_degree.squeeze(1))
    torch.testing.assert_close(matrix_of(operators.sum_tails, e), tails)
    torch.testing.assert_close(
        matrix_of(operators.edge_terms, e), torch.cat([torch.eye(e).double(), reversal, line_degree], 1)
    )
    torch.testing.assert_close(tails @ reversal, heads)
    at_tail = torch.eye(n, 2 * n, dtype=torch.float64)
    torch.testing.assert_close(operators.spread_ends(at_tail), tails.t())
    torch.testing.assert_close(operators.spread_ends(at_tail.roll(n, 1)), heads.t())
    torch.testing.assert_close(matrix_of(operators.adjacency, n), tails @ heads.t())


def test_nonbacktracking_map_has_the_known_row_sums_and_square(dense):
    graph, operators, tails, heads, reversal, nonbacktracking = dense
    e = tails.shape[1]
    source, target = graph.edge_index
    built = matrix_of(edge_map(operators, e, B), e)
    torch.testing.assert_close(built, nonbacktracking)
    degree = operators.degree.squeeze(1)
    torch.testing.assert_close(built.sum(1), degree[target] - 1)
    torch.testing.assert_close(built.sum(0), degree[source] - 1)
    assert int(built.sum()) == int((degree * (degree - 1)).sum())
    torch.testing.assert_close(built.t(), reversal @ built @ reversal)
    square = built @ built
    assert square.max() <= 1, "the middle edge of a non-backtracking walk is forced"
    fourth = torch.clamp(square @ square, max=1)
    torch.testing.assert_close(matrix_of(edge_map(operators, e, B_SQUARED), e), square)
    torch.testing.assert_close(matrix_of(edge_map(operators, e, B_FOURTH), e), fourth)


def test_ihara_bass_identity(dense):
    graph, operators, tails, *_ = dense
    n, e = tails.shape
    built = matrix_of(edge_map(operators, e, B), e)
    adjacency = matrix_of(operators.adjacency, n)
    u, eye = 0.1, torch.eye(n, dtype=torch.float64)
    left = torch.linalg.slogdet(torch.eye(e, dtype=torch.float64) - u * built)
    right = torch.linalg.slogdet(eye - u * adjacency + u**2 * (torch.diag(operators.degree.squeeze(1)) - eye))
    assert left.sign == right.sign
    torch.testing.assert_close(left.logabsdet, (e / 2 - n) * math.log(1 - u**2) + right.logabsdet)


def test_clipped_adjacency_powers_match_dense_products(dense):
    _, operators, tails, heads, *_ = dense
    expected = tails @ heads.t()
    for apply in range(3):
        built = matrix_of(lambda x, j=apply: operators.adjacency_powers(x)[j], tails.shape[0])
        torch.testing.assert_close(built, expected)
        expected = torch.clamp(expected @ expected, max=1)


def test_clipped_square_of_an_empty_matrix_is_empty():
    columns, pointers = clipped_square(torch.zeros(0, dtype=torch.long), torch.zeros(6, dtype=torch.long))
    assert columns.numel() == 0
    assert pointers.tolist() == [0] * 6


def test_every_map_has_the_derivative_it_claims(dense):
    graph, operators, *_ = dense
    x = torch.randn(graph.num_nodes, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(graph.num_edges, 2, dtype=torch.float64, requires_grad=True)
    for apply in (operators.spread_ends, operators.adjacency):
        assert torch.autograd.gradcheck(apply, (x,))
        assert torch.autograd.gradgradcheck(apply, (x,))
    for apply in (operators.sum_tails, operators.edge_terms):
        assert torch.autograd.gradcheck(apply, (y,))
    for term in (B, B_SQUARED):
        assert torch.autograd.gradcheck(edge_map(operators, 2, term), (y,))
    assert torch.autograd.gradcheck(lambda v: operators.high_nonbacktracking_powers(v)[0], (y,))


def test_reverse_edges_is_an_involution_that_swaps_the_ends():
    graph = random_graph(seed=3)
    reverse = reverse_edges(graph.edge_index, graph.num_nodes)
    torch.testing.assert_close(graph.edge_index[:, reverse], graph.edge_index.flip(0))
    torch.testing.assert_close(reverse[reverse], torch.arange(graph.num_edges))


@pytest.mark.parametrize("edges", [[[0, 1], [1, 2]], [[1, 0], [0, 1]]], ids=["one direction missing", "unsorted"])
def test_reverse_edges_rejects_what_it_cannot_reverse(edges):
    with pytest.raises(ValueError, match="both directions"):
        reverse_edges(torch.tensor(edges), 3)


def test_normalisation_equals_batch_norm_of_one_graph_at_a_time():
    sizes = torch.tensor([5, 1, 9])
    segment = torch.repeat_interleave(torch.arange(3), sizes)
    x = torch.randn(15, 4, dtype=torch.float64)
    weight, bias = torch.randn(2, 4, dtype=torch.float64)
    out = half_relu_normalize(x, weight, bias, Segments(segment, 3), 2)
    for g in (0, 2):
        rows = torch.cat([x[segment == g, :2].relu(), x[segment == g, 2:]], 1)
        norm = torch.nn.BatchNorm1d(4, affine=False, track_running_stats=False).double()
        torch.testing.assert_close(out[segment == g], norm(rows) * weight + bias)
    torch.testing.assert_close(out[segment == 1], bias[None])


@pytest.mark.parametrize("num_segments", [1, 3])
def test_normalisation_has_the_derivative_it_claims(num_segments):
    segment = torch.arange(12) * num_segments // 12
    x = torch.randn(12, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 4, dtype=torch.float64)
    segments = Segments(segment, num_segments)
    inputs = (x, weight.requires_grad_(), bias.requires_grad_())
    assert torch.autograd.gradcheck(lambda *v: half_relu_normalize(*v, segments, 2), inputs)


def test_row_pointers_count_empty_rows():
    assert row_pointers(torch.tensor([0, 0, 3]), 5).tolist() == [0, 2, 2, 2, 3, 3]


def test_operators_of_a_batch_act_graph_by_graph():
    graphs = [random_graph(9, seed=1), random_graph(13, seed=2)]
    y = torch.randn(sum(g.num_edges for g in graphs), 2, dtype=torch.float64)
    parts = y.split([g.num_edges for g in graphs])
    for term in (B, B_SQUARED, B_FOURTH):
        together, *alone = [
            edge_map(GraphOperators(graph, 3, line_graph=True, dtype=torch.float64), 2, term)(v)
            for graph, v in zip([Batch.from_data_list(graphs), *graphs], [y, *parts])
        ]
        torch.testing.assert_close(together, torch.cat(alone))
