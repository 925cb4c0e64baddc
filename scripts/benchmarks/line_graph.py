"""LGNN training step against the same equations with dense operators, and its peak memory."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.data import Data

from ...datamodules.sbm_datamodule import SBMDataset
from ...modules.community import LGNN, assignment_loss
from .timing import isolated, median_times, peak_growth, row

__all__ = ["DenseOperators", "dense_scores", "run"]

#: The 5-community test of the paper (arXiv 1705.08415, Table 1): n = 400, p = 0, q = 18/n.
SETTING = {"pairs": [(0.0, 18.0)], "num_nodes": 400, "num_classes": 5, "num_graphs": 1, "split": "train"}


class DenseOperators:
    """The operators of LGNN for J = 2 as dense matrices, those of the line graph of size E x E.

    Built the plain way, by matrix products. Only the diagonal ones (identity and degrees) are kept as vectors, which
    favours the dense reference.

    Args:
        graph: One graph, ``edge_index`` (2, E) in both directions.
    """

    def __init__(self, graph: Data) -> None:
        source, target = graph.edge_index  # pyright: ignore[reportGeneralTypeIssues]
        edges = torch.arange(source.numel())
        tail, head = torch.zeros(2, int(graph.num_nodes or 0), source.numel())
        tail[source, edges] = 1
        head[target, edges] = 1
        self.sum, self.difference = tail + head, tail - head
        adjacency = tail @ head.T
        line = head.T @ tail - ((source[:, None] == target) & (target[:, None] == source)).float()
        self.adjacency = [adjacency, (adjacency @ adjacency).clamp(max=1)]
        self.line = [line, (line @ line).clamp(max=1)]
        self.degree, self.line_degree = adjacency.sum(1, keepdim=True), line.sum(1, keepdim=True)


def dense_scores(network: LGNN, operators: DenseOperators) -> Tensor:
    """Score the nodes as ``network(graph)`` does: the paper's eq. 2 with the same parameters, all matrices dense.

    Args:
        network: With ``power=2``.
        operators: Those of the graph.

    Returns:
        Scores, (N, k).
    """

    def node_sum(layer: Any, x: Tensor, y: Tensor) -> Tensor:
        terms = [x, operators.degree * x, *(_product(matrix, x) for matrix in operators.adjacency)]
        return layer.mix(torch.cat([*terms, operators.sum @ y, operators.difference @ y], dim=1))

    def edge_sum(layer: Any, y: Tensor, x: Tensor) -> Tensor:
        terms = [y, operators.line_degree * y, *(_product(matrix, y) for matrix in operators.line)]
        from_nodes = layer.mix_sum(operators.sum.T @ x) + layer.mix_difference(operators.difference.T @ x)
        return layer.mix(torch.cat(terms, dim=1)) + from_nodes

    def activate(layer: Any, z: Tensor) -> Tensor:
        half = z.shape[1] // 2
        z = torch.cat([z[:, :half].relu(), z[:, half:]], dim=1)
        return F.batch_norm(z, None, None, layer.weight, layer.bias, training=True)

    x, y = operators.degree, operators.line_degree
    layers = zip(
        network.node_layers, network.edge_layers, network.node_activations, network.edge_activations, strict=True
    )
    for node_layer, edge_layer, node_activation, edge_activation in layers:
        x = activate(node_activation, node_sum(node_layer, x, y))
        y = activate(edge_activation, edge_sum(edge_layer, y, x))
    return node_sum(network.output, x, y)


def _product(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply dense matrices in the order whose gradient is fast too: that of ``matrix @ x`` is ten times slower."""
    return F.linear(x.T, matrix).T


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
        repeats=2,
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

    def train() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            assignment_loss(network(graph), graph.y, torch.zeros_like(graph.y), 1).mean().backward()  # pyright: ignore[reportArgumentType]
            optimizer.step()

    return peak_growth(train)
