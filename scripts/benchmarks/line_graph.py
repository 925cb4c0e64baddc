"""LGNN training step against the same equations with dense operators, and its peak memory."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from ...datamodules.sbm_datamodule import SBMDataset
from ...modules.community import LGNN, assignment_loss
from .timing import isolated, median_times, peak_bytes, row

__all__ = ["DenseOperators", "dense_scores", "run"]

#: The 5-community test of the paper (arXiv 1705.08415, Table 1): n = 400, p = 0, q = 18/n.
SETTING = {"pairs": [(0.0, 18.0)], "num_nodes": 400, "num_classes": 5, "num_graphs": 1, "split": "train"}


class DenseOperators:
    """The operators of LGNN for J = 2 as dense matrices, those of the line graph of size E x E.

    The reference: built the plain way, by matrix products. Only the diagonal ones (identity and degrees) are kept as
    vectors, which favours the reference.

    Args:
        graph: One graph, ``edge_index`` (2, E) in both directions.
    """

    def __init__(self, graph: Data) -> None:
        source, target = graph.edge_index  # pyright: ignore[reportGeneralTypeIssues]
        num_nodes, num_edges = int(graph.num_nodes or 0), source.numel()
        edges = torch.arange(num_edges)
        self.tail, self.head = torch.zeros(2, num_nodes, num_edges)
        self.tail[source, edges] = 1
        self.head[target, edges] = 1
        adjacency = self.tail @ self.head.T
        reverse = (source[:, None] == target) & (target[:, None] == source)
        line = self.head.T @ self.tail - reverse.float()
        self.adjacency = [adjacency, (adjacency @ adjacency).clamp(max=1)]
        self.line = [line, (line @ line).clamp(max=1)]
        self.degree, self.line_degree = adjacency.sum(1, keepdim=True), line.sum(1, keepdim=True)
        self.node_graph, self.edge_graph, self.num_graphs = source.new_zeros(num_nodes), torch.zeros_like(source), 1

    def adjacency_powers(self, x: Tensor) -> list[Tensor]:
        """Compute A x and min(1, A^2) x, (N, d) each."""
        return [matrix @ x for matrix in self.adjacency]

    def nonbacktracking_powers(self, y: Tensor) -> list[Tensor]:
        """Compute B y and min(1, B^2) y, (E, d) each."""
        return [matrix @ y for matrix in self.line]

    def sum_outgoing(self, y: Tensor) -> Tensor:
        """Compute S y, (E, d) to (N, d)."""
        return self.tail @ y

    def sum_incoming(self, y: Tensor) -> Tensor:
        """Compute T y, (E, d) to (N, d)."""
        return self.head @ y

    def at_source(self, x: Tensor) -> Tensor:
        """Compute S^T x, (N, d) to (E, d)."""
        return self.tail.T @ x

    def at_target(self, x: Tensor) -> Tensor:
        """Compute T^T x, (N, d) to (E, d)."""
        return self.head.T @ x


def dense_scores(network: LGNN, operators: Any) -> Tensor:
    """Score the nodes as ``network(graph)`` does, with the same parameters, on dense operators: (N, k)."""
    x, y = operators.degree, operators.line_degree
    layers = zip(
        network.node_layers, network.edge_layers, network.node_activations, network.edge_activations, strict=True
    )
    for node_layer, edge_layer, node_activation, edge_activation in layers:
        from_edges = operators.sum_outgoing(y), operators.sum_incoming(y)
        x = node_activation(node_layer(operators, x, from_edges), operators.node_graph, operators.num_graphs)
        y = edge_activation(edge_layer(operators, y, x), operators.edge_graph, operators.num_graphs)
    return network.output(operators, x, (operators.sum_outgoing(y), operators.sum_incoming(y)))


def run() -> list[dict[str, Any]]:
    """Measure both steps on one graph, outputs compared first, and the memory of the sparse step.

    A step is forward, loss, backward and update. The sparse one starts from the edges, for no graph of a generated set
    comes twice; the dense one is given its operators, though they take as long again to build.
    """
    torch.manual_seed(0)
    graph, network = SBMDataset(**SETTING)[0], LGNN(num_classes=5)  # pyright: ignore[reportArgumentType]
    operators = DenseOperators(graph)
    # float32 rounding through 30 normalised layers leaves about 1e-4 between them.
    with torch.no_grad():
        difference = (network(graph) - dense_scores(network, operators)).abs().max() / network(graph).abs().max()
    if difference > 1e-2:
        msg = f"benchmark line_graph: sparse and dense scores differ by {difference:.1e} of the largest: not the same"
        raise RuntimeError(msg)
    optimizer = torch.optim.Adamax(network.parameters(), lr=4e-3)

    def step(scores: Tensor) -> None:
        optimizer.zero_grad()
        assignment_loss(scores, graph.y, torch.zeros_like(graph.y), 1).mean().backward()  # pyright: ignore[reportArgumentType]
        optimizer.step()

    seconds = median_times(
        {
            "sparse": lambda: step(network(graph)),
            "dense": lambda: step(dense_scores(network, operators)),
        },
        repeats=3,
    )
    return [
        row("LGNN step, speed over dense operators", seconds["dense"] / seconds["sparse"], "x", at_least=20),
        row("LGNN step, peak memory", isolated(step_memory) / 1e9, "GB", at_most=1),
    ]


def step_memory(steps: int = 5) -> int:
    """Take training steps and give by how many bytes they raised this process's peak memory."""
    torch.manual_seed(0)
    graph, network = SBMDataset(**SETTING)[0], LGNN(num_classes=5)  # pyright: ignore[reportArgumentType]
    optimizer = torch.optim.Adamax(network.parameters(), lr=4e-3)
    before = peak_bytes()
    for _ in range(steps):
        optimizer.zero_grad()
        assignment_loss(network(graph), graph.y, torch.zeros_like(graph.y), 1).mean().backward()  # pyright: ignore[reportArgumentType]
        optimizer.step()
    return peak_bytes() - before
