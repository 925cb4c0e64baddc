"""GNN and LGNN: equal to the paper's equations with dense matrices, equivariant, independent of batching."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.utils import coalesce

from theodolite.datamodules.sbm import sample_sbm
from theodolite.modules.community import GNN, LGNN


def random_graph(num_nodes=14, seed=0):
    sizes = [num_nodes // 2, num_nodes - num_nodes // 2]
    return Data(edge_index=sample_sbm(sizes, [[0.35, 0.1], [0.1, 0.35]], seed=seed), num_nodes=num_nodes)


def clipped_powers(matrix, power):
    powers = [matrix]
    for _ in range(1, power):
        powers.append((powers[-1] @ powers[-1]).clamp(max=1))
    return powers


def activate(z, module):
    half = 0 if module.linear else z.shape[1] // 2
    z = torch.cat([z[:, :half].relu(), z[:, half:]], 1)
    z = (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
    return z * module.weight + module.bias


def dense_forward(network, graph):
    """Evaluate the paper's equations 1 and 2 literally, with dense N x N and E x E matrices."""
    n, (source, target) = graph.num_nodes, graph.edge_index
    edges = torch.arange(source.numel())
    tails, heads = torch.zeros(n, len(edges)).double(), torch.zeros(n, len(edges)).double()
    tails[source, edges] = 1
    heads[target, edges] = 1
    adjacency = tails @ heads.t()
    degree = torch.diag(adjacency.sum(1))
    node_operators = [torch.eye(n).double(), degree, *clipped_powers(adjacency, network.power)]
    x = degree.sum(1, keepdim=True)
    if isinstance(network, GNN):
        for layer, activation in zip(network.layers, network.activations):
            x = activate(layer.mix(torch.cat([o @ x for o in node_operators], 1)), activation)
        return network.output.mix(torch.cat([o @ x for o in node_operators], 1))
    line = ((target[:, None] == source) & (source[:, None] != target)).double()
    edge_operators = [torch.eye(len(edges)).double(), torch.diag(line.sum(1)), *clipped_powers(line, network.power)]
    plus, minus = tails + heads, tails - heads
    y = line.sum(1, keepdim=True)
    for node, edge, node_act, edge_act in zip(
        network.node_layers, network.edge_layers, network.node_activations, network.edge_activations
    ):
        x = activate(node.mix(torch.cat([o @ x for o in node_operators] + [plus @ y, minus @ y], 1)), node_act)
        z = edge.mix(torch.cat([o @ y for o in edge_operators], 1))
        y = activate(z + edge.mix_sum(plus.t() @ x) + edge.mix_difference(minus.t() @ x), edge_act)
    return network.output.mix(torch.cat([o @ x for o in node_operators] + [plus @ y, minus @ y], 1))


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_network_equals_the_dense_equations(kind, power, linear):
    torch.manual_seed(0)
    network = kind(3, width=4, depth=3, power=power, linear=linear).double()
    graphs = [random_graph(14, seed=1), random_graph(19, seed=2)]
    expected = torch.cat([dense_forward(network, graph) for graph in graphs])
    output = network(Batch.from_data_list(graphs))
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    weights = [p for name, p in network.named_parameters() if name.endswith("weight")]
    direction = torch.randn_like(expected)
    for ours, dense in zip(
        torch.autograd.grad((output * direction).sum(), weights),
        torch.autograd.grad((expected * direction).sum(), weights),
    ):
        torch.testing.assert_close(ours, dense, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_network_is_permutation_equivariant(kind):
    torch.manual_seed(1)
    network = kind(3, width=4, depth=4).double()
    graph = random_graph(23, seed=5)
    order = torch.randperm(23)
    permuted = Data(edge_index=coalesce(torch.argsort(order)[graph.edge_index]), num_nodes=23)
    torch.testing.assert_close(network(permuted), network(graph)[order])


@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_nodes_of_a_vertex_transitive_graph_score_the_same(kind):
    ring = torch.arange(9)
    edges = torch.cat([torch.stack([ring, (ring + s) % 9]) for s in (1, -1, 2, -2)], 1)
    network = kind(2, width=4, depth=3).double()
    scores = network(Data(edge_index=coalesce(edges), num_nodes=9))
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))


@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_output_does_not_depend_on_mode_or_on_isolated_nodes_elsewhere(kind):
    network = kind(2, width=4, depth=2)
    graph, empty = random_graph(), Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=3)
    alone = network.train()(graph)
    together = network.eval()(Batch.from_data_list([empty, graph]))
    torch.testing.assert_close(together[3:], alone)
    assert together.isfinite().all()


@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_a_readout_on_the_way_is_the_output_of_the_network_cut_there(kind):
    torch.manual_seed(0)
    network, shorter, graph = kind(3, width=4, depth=5, readout_every=2), kind(3, width=4, depth=2), random_graph()
    shorter.load_state_dict({key: value for key, value in network.state_dict().items() if key in shorter.state_dict()})
    readouts = network.readouts(graph)
    assert len(readouts) == 3  # after layers 2 and 4, and at the end
    torch.testing.assert_close(readouts[0], shorter(graph))
    torch.testing.assert_close(readouts[-1], network(graph))


def test_linear_layer_contains_the_bethe_hessian():
    """Weights (r^2-1, 1, -r) on (I, D, A) give H(r) x exactly (fact sheet, section 2)."""
    graph, r = random_graph(20, seed=3), 1.7
    network = GNN(2, width=2, depth=1, power=1).double()
    layer = network.output
    with torch.no_grad():
        layer.mix.weight.zero_()
        layer.mix.bias.zero_()
        for column, value in ((0, r**2 - 1), (2, 1.0), (4, -r)):
            layer.mix.weight[0, column] = value
    from theodolite.modules.graph_operators import GraphOperators

    x = torch.randn(20, 2, dtype=torch.float64)
    adjacency = torch.zeros(20, 20, dtype=torch.float64)
    adjacency[graph.edge_index[0], graph.edge_index[1]] = 1
    hessian = (r**2 - 1) * torch.eye(20).double() - r * adjacency + torch.diag(adjacency.sum(1))
    output = layer(GraphOperators(graph, 1, dtype=torch.float64), x)
    torch.testing.assert_close(output[:, 0], hessian @ x[:, 0])


def test_parameter_counts_of_the_published_shape():
    """8 features, 30 layers, J = 2, k = 5: the paper's 8,621 and 25,482 less the redundant second bias of each sum."""

    def count(network):
        return sum(p.numel() for p in network.parameters())

    gnn_biases = (
        30 * 8 + 5
    )  # the released layers keep a bias in each of two half-width sums; ours has one of full width
    assert count(GNN(5)) == 4 * 1 * 8 + 29 * 4 * 8 * 8 + 4 * 8 * 5 + gnn_biases + 30 * 2 * 8
    assert count(GNN(5)) <= 8621
    assert count(LGNN(5)) <= 25482


@pytest.mark.parametrize("kind", [GNN, LGNN])
def test_random_features_depend_on_the_sample_number_alone(kind):
    torch.manual_seed(0)
    network = kind(3, width=4, depth=2, random_features=3)
    graphs = [random_graph(14, seed=1), random_graph(19, seed=2)]
    for graph, sample in zip(graphs, (5, 8)):
        graph.sample_id = torch.tensor([sample])
    state = torch.get_rng_state()
    together = network(Batch.from_data_list(graphs))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(network(graphs[1]), together[14:])
    graphs[1].sample_id = torch.tensor([9])
    assert not torch.allclose(network(graphs[1]), together[14:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 3}, "width must be even"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"power": 0}, "power"),
        ({"readout_every": -1}, "readout_every=-1"),
        ({"random_features": -1}, "random_features must be 0"),
        ({"num_classes": 1}, "num_classes must be at least 2"),
    ],
)
def test_bad_sizes_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        LGNN(**{"num_classes": 2, **arguments})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls", [GNN, LGNN])
def test_autocast_changes_rounding_only(cls, training):
    """In training and in inference, which computes without copies; of some initial weights rounding is magnified."""
    batch = Batch.from_data_list([random_graph(seed=s) for s in range(2)])
    errors = []
    for seed in range(5):
        torch.manual_seed(seed)
        network = cls(num_classes=2, width=6, depth=2)
        with torch.set_grad_enabled(training):
            expected = network(batch)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(batch)
        errors.append((logits.float() - expected).norm() / expected.norm())
    assert torch.stack(errors).median() < 0.05
    assert max(errors) < 0.2
