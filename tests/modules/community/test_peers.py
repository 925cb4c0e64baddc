"""GIN and GAT of PyTorch Geometric behind the interface of our own networks."""

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch, Data

from theodolite.modules.community.peers import GAT, GIN

BOTH = [GIN, GAT]


def graph_of(graph: nx.Graph) -> Data:
    edges = sorted([*graph.edges, *((j, i) for i, j in graph.edges)])
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    return Data(edge_index=edge_index, num_nodes=graph.number_of_nodes())


@pytest.mark.parametrize("peer", BOTH)
def test_relabelling_the_nodes_relabels_the_scores(peer: type) -> None:
    torch.manual_seed(0)
    network = peer(3, width=8, depth=4).double()
    graph = graph_of(nx.gnm_random_graph(30, 70, seed=0))
    order = torch.randperm(30)
    moved = order[graph.edge_index]
    shuffled = Data(edge_index=moved[:, (moved[0] * 30 + moved[1]).argsort()], num_nodes=30)
    scores = network(graph)
    assert scores.std(0).min() > 1e-3
    torch.testing.assert_close(network(shuffled)[order], scores)


@pytest.mark.parametrize("peer", BOTH)
def test_equal_nodes_get_equal_scores(peer: type) -> None:
    """Every node of a circulant graph looks like every other."""
    torch.manual_seed(0)
    scores = peer(2, width=8, depth=3).double()(graph_of(nx.circulant_graph(9, [1, 2])))
    torch.testing.assert_close(scores, scores[:1].expand(9, 2))


@pytest.mark.parametrize("peer", BOTH)
@pytest.mark.parametrize("training", [True, False])
def test_batch_gives_what_single_graphs_give(peer: type, training: bool) -> None:
    torch.manual_seed(0)
    network = peer(2, width=8, depth=3).double().train(training)
    graphs = [graph_of(nx.gnm_random_graph(n, 2 * n, seed=n)) for n in (10, 25)]
    together = network(Batch.from_data_list(graphs))
    torch.testing.assert_close(together, torch.cat([network(graph) for graph in graphs]))


@pytest.mark.parametrize("peer", BOTH)
def test_gradients_reach_every_parameter(peer: type) -> None:
    torch.manual_seed(0)
    network = peer(2, width=8, depth=3)
    network(graph_of(nx.gnm_random_graph(30, 70, seed=0))).log_softmax(1)[:, 0].sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("peer", BOTH)
@pytest.mark.parametrize("num_nodes", [0, 1, 3])
def test_graphs_without_edges(peer: type, num_nodes: int) -> None:
    graph = Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=num_nodes)
    scores = peer(2)(graph)
    assert scores.shape == (num_nodes, 2)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    ("peer", "arguments", "named"),
    [
        (GIN, {"width": 0}, "width"),
        (GIN, {"depth": 0}, "depth"),
        (GAT, {"heads": 0}, "heads"),
        (GAT, {"width": 6, "heads": 4}, "multiple of heads"),
    ],
)
def test_bad_arguments_are_named(peer: type, arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        peer(2, **arguments)
