"""SiameseGNN and FGNN: the papers' equations, equivariance, independence of padding and of the form of the graphs."""

import math

import pytest
import torch

from theodolite.modules.matching import (
    FGNN,
    GraphPairs,
    SiameseGNN,
    assign,
    assignment_accuracy,
    matching_loss,
    siamese,
)

from .pairs import as_sparse, circulant, noise_free_pairs, padded_side, random_graph, single

NETWORKS = {
    "siamese": lambda: SiameseGNN(width=6, depth=3, power=3),
    "two_hop": lambda: SiameseGNN(width=6, depth=3, power=2, inputs="two_hop_degree"),
    "walks": lambda: SiameseGNN(width=6, depth=3, power=2, inputs="closed_walks"),
    "fgnn": lambda: FGNN(width=6, blocks=2, mlp_depth=2),
}


def build(kind):
    torch.manual_seed(0)
    return NETWORKS[kind]().double().eval()


def double(pairs):
    return GraphPairs.from_dense(pairs.first.dense.double(), pairs.second.dense.double(), pairs.permutation)


def activate(z, module, rectified):
    z = torch.cat([z[:, :rectified].relu(), z[:, rectified:]], 1)
    return (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() * module.weight + module.bias


def test_siamese_equals_the_papers_equations_with_dense_matrices():
    network, matrix = build("siamese"), random_graph(11, 0.25).double()
    n = len(matrix)
    powers = [matrix]
    for _ in range(1, network.power):
        powers.append((powers[-1] @ powers[-1]).clamp(max=1))
    eye, ones = torch.eye(n).double(), torch.ones(n, n).double() / n
    operators = [eye, torch.diag(matrix.sum(1)), *powers, ones]
    x = matrix.sum(1, keepdim=True)
    for layer, activation in zip(network.layers, network.activations):
        x = activate(layer.mix(torch.cat([o @ x for o in operators], 1)), activation, network.width // 2)
    x = activate(network.output.mix(torch.cat([o @ x for o in operators], 1)), network.normalize, 0)
    pairs = single(matrix, matrix)
    torch.testing.assert_close(network.embed(pairs.first), x)
    torch.testing.assert_close(network(pairs)[0], x @ x.T / math.sqrt(network.width))


def test_fgnn_equals_the_papers_equations_on_single_entries():
    network, matrix = build("fgnn"), random_graph(5, 0.5).double()
    n = len(matrix)
    degree = matrix.sum(1)
    h = torch.stack([matrix, torch.diag(degree / degree.mean())], dim=2)  # (n, n, f)

    def perceptron(module, x):
        for number, layer in enumerate(module.layers):
            x = layer(x if number == 0 else x.relu())
        return x

    for block in network.blocks:
        left, right = perceptron(block.left, h), perceptron(block.right, h)
        product = torch.zeros_like(left)
        for i in range(n):
            for j in range(n):
                product[i, j] = sum(left[i, k] * right[k, j] for k in range(n))
        mean, variance = product.mean((0, 1)), product.var((0, 1), unbiased=False)
        product = (product - mean) / (variance + block.norm.eps).sqrt() * block.norm.weight + block.norm.bias
        h = perceptron(block.out, torch.cat([product, h], 2))
    embedding = h.amax(1)
    pairs = single(matrix, matrix)
    torch.testing.assert_close(network(pairs)[0], embedding @ embedding.T / math.sqrt(network.width))


@pytest.mark.parametrize("kind", NETWORKS)
def test_shuffling_either_graph_shuffles_the_scores(kind):
    network, pairs = build(kind), double(noise_free_pairs())
    scores = network(pairs)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    moved = pairs.second.dense[:, order][:, :, order]
    torch.testing.assert_close(network(GraphPairs.from_dense(pairs.first.dense, moved)), scores[:, :, order])
    swapped = network(GraphPairs.from_dense(pairs.second.dense, pairs.first.dense))
    torch.testing.assert_close(swapped, scores.transpose(1, 2))


@pytest.mark.parametrize("kind", NETWORKS)
def test_noise_free_pairs_are_recovered_untrained(kind):
    """Among all matchings the true one has the largest sum of scalar products of equal embeddings (Cauchy-Schwarz)."""
    pairs = double(noise_free_pairs(n=20, batch=4))
    network = build(kind)
    assert assignment_accuracy(assign(network(pairs), pairs), pairs).tolist() == [1.0] * 4
    first, second = (network.embed(side).detach() for side in (pairs.first, pairs.second))
    if kind == "fgnn":
        first, second = first.transpose(1, 2), second.transpose(1, 2)
    first, second = first.reshape(4, 20, -1), second.reshape(4, 20, -1)
    images = second.gather(1, pairs.permutation.unsqueeze(2).expand_as(first))
    # the closed walks are counted in float32, whose rounding depends on the order of the nodes
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if kind == "walks" else {}
    torch.testing.assert_close(images, first, **tolerance)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("sizes", [((9, 6, 8), (10, 6, 8)), ((6, 6), (7, 9)), ((5, 7), (8, 8))])
def test_padding_changes_nothing(kind, sizes):
    network = build(kind)
    firsts = [random_graph(n, seed=n + i).double() for i, n in enumerate(sizes[0])]
    seconds = [random_graph(n, seed=50 + n + i).double() for i, n in enumerate(sizes[1])]
    scores = network(GraphPairs(padded_side(firsts), padded_side(seconds)))
    for i, (first, second) in enumerate(zip(firsts, seconds)):
        torch.testing.assert_close(scores[i, : len(first), : len(second)], network(single(first, second))[0])


@pytest.mark.parametrize("kind", ["siamese", "two_hop", "walks"])
@pytest.mark.parametrize("sizes", [(9, 9), (9, 6)])
def test_sparse_operators_give_what_dense_ones_do(kind, sizes, monkeypatch):
    network = build(kind)
    sides = [padded_side([random_graph(n, seed=n + shift) for n in sizes]) for shift in (0, 50)]
    dense = network(GraphPairs(*sides))
    monkeypatch.setattr(siamese, "MAX_DENSE_NODES", 1)
    monkeypatch.setattr(siamese, "DenseOperators", None)  # would be called in vain
    sparse = network(GraphPairs(*(as_sparse(side) for side in sides)))
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("steps", [[1], [1, 3]])
def test_vertex_transitive_graphs_have_constant_scores_and_loss_log_n(kind, steps):
    matrix = circulant(10, steps).double()  # double: each normalisation of equal values magnifies their rounding
    pairs = single(matrix, matrix)
    scores = build(kind)(pairs)
    torch.testing.assert_close(scores, scores[:, :1, :1].expand_as(scores), rtol=0, atol=1e-4)
    pairs.permutation = torch.arange(10)[None]
    assert matching_loss(scores, pairs).item() == pytest.approx(math.log(10), abs=1e-4)


def test_fgnn_tells_apart_what_colour_refinement_cannot():
    """Two triangles and a hexagon: every node has degree 2, only the closed walks differ."""
    hexagon, triangles = circulant(6, [1]), torch.block_diag(circulant(3, [1]), circulant(3, [1]))
    pairs = single(hexagon, triangles)
    folklore, siamese_network = build("fgnn").float(), SiameseGNN(width=6, depth=3, power=1)  # A^2 would show triangles
    first, second = (folklore.embed(side) for side in (pairs.first, pairs.second))
    assert (first - second).abs().max() > 1e-3
    first, second = (siamese_network.embed(side) for side in (pairs.first, pairs.second))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_parameter_learns(kind):
    torch.manual_seed(0)
    network, pairs = NETWORKS[kind](), noise_free_pairs()
    matching_loss(network(pairs), pairs).mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        if not name.endswith("mix.bias"):  # a normalisation takes it out again, but where a ReLU cuts part of a column
            assert parameter.grad.abs().max() > 1e-6, name


RANKED = {
    "siamese": lambda: SiameseGNN(width=6, depth=2, power=2, rank=True),
    "walks": lambda: SiameseGNN(width=6, depth=2, power=1, inputs="closed_walks", rank=True),
    "fgnn": lambda: FGNN(width=6, blocks=2, mlp_depth=2, rank=True),
}


@pytest.mark.parametrize("kind", RANKED)
def test_ranks_belong_to_the_nodes(kind):
    """Renumbering the nodes with their ranks renumbers the scores; padding and float32 ranks change nothing."""
    torch.manual_seed(0)
    network = RANKED[kind]().double()
    graphs = [random_graph(n, seed=n).double() for n in (5, 8, 6)]
    side = padded_side(graphs)
    ranks = torch.rand(3, 8) * side.node_mask
    scores = network(GraphPairs(side, side), (ranks, ranks))
    for i, graph in enumerate(graphs):
        n = len(graph)
        alone = ranks[i : i + 1, :n]
        torch.testing.assert_close(scores[i, :n, :n], network(single(graph, graph), (alone, alone))[0])
        order = torch.randperm(n, generator=torch.Generator().manual_seed(3))
        moved = network(single(graph, graph[order][:, order]), (alone, alone[:, order]))
        torch.testing.assert_close(moved[0], scores[i, :n, :n][:, order])
        kept = network(single(graph, graph[order][:, order]), (alone, alone))  # ranks of the wrong nodes
        assert (kept[0] - scores[i, :n, :n][:, order]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", RANKED)
def test_weights_of_half_precision_take_ranks(kind):
    network, pairs = RANKED[kind]().bfloat16(), noise_free_pairs()
    scores = network(pairs, (torch.rand(2, 12), torch.rand(2, 12)))
    assert scores.dtype == torch.bfloat16
    assert scores.isfinite().all()


def test_one_graph_alone_works_without_gradient_too():
    """A batch of one spreads its mean by broadcasting."""
    network = build("siamese")
    pairs = double(noise_free_pairs(batch=1))
    with torch.no_grad():
        without = network(pairs)
    torch.testing.assert_close(without, network(pairs))


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (SiameseGNN, {"width": 0}, "width=0"),
        (SiameseGNN, {"width": 3}, "width must be even"),
        (SiameseGNN, {"depth": 0}, "depth=0"),
        (SiameseGNN, {"power": 0}, "power=0"),
        (SiameseGNN, {"inputs": "degrees"}, "inputs='degrees'"),
        (SiameseGNN, {"inputs": "two_hop_degree", "power": 1}, "needs power 2"),
        (FGNN, {"blocks": 0}, "blocks=0"),
        (FGNN, {"width": 0}, "width=0"),
        (FGNN, {"mlp_depth": 0}, "mlp_depth=0"),
    ],
)
def test_bad_sizes_are_refused_by_name(network, arguments, message):
    with pytest.raises(ValueError, match=rf"^{network.__name__}\(.*{message}") as error:
        network(**arguments)
    assert "\n" not in str(error.value)
