"""The siamese graph network of Nowak et al., on dense or sparse graphs."""

from typing import Literal

import torch
from torch import Tensor, nn

from ..graph_layers import HalfLinear, NodeLayer, NodeOperators
from ..graph_operators import GraphOperators, Segments
from .base import GraphPairs, Graphs, MatchingNetwork

__all__ = ["SiameseGNN"]

#: Largest graph whose operators are kept as dense matrices: below it the clipped powers are mostly full.
MAX_DENSE_NODES = 256
#: Lengths of closed walks that are counted: 3 to 10.
_WALKS = 8


class DenseOperators:
    """Clipped adjacency powers of small graphs as dense matrices; nodes of all graphs are counted through, M in all.

    Args:
        graphs: B graphs of at most N nodes.
        power: J, the number of powers A_0 .. A_{J-1}, with A_j = min(1, A^(2^j)).
        dtype: Type of the matrices.
    """

    def __init__(self, graphs: Graphs, power: int, dtype: torch.dtype = torch.float32) -> None:
        adjacency = (graphs.dense != 0).to(dtype)
        num_graphs = len(adjacency)
        powers = [adjacency]
        for _ in range(1, power):
            powers.append((powers[-1] @ powers[-1]).clamp_(max=1))
        self._stacked = torch.cat(powers, dim=1)
        self._power = power
        self._places = graphs.node_mask.flatten().nonzero().squeeze(1) if graphs.padded else None
        degree = adjacency.sum(2).view(-1, 1)
        self.degree = degree if self._places is None else degree[self._places]
        numbers = torch.arange(num_graphs, device=degree.device)
        self.nodes = Segments(torch.repeat_interleave(numbers, graphs.sizes), num_graphs)

    def adjacency_powers(self, x: Tensor) -> list[Tensor]:
        """Compute A_0 x, ..., A_{J-1} x for node features x, (M, d) each."""
        num_graphs, _, size = self._stacked.shape
        padded = x
        if self._places is not None:
            padded = x.new_zeros(num_graphs * size, x.shape[1]).index_copy(0, self._places, x)
        products = torch.bmm(self._stacked, padded.view(num_graphs, size, -1))
        parts = [part.reshape(num_graphs * size, -1) for part in products.split(size, dim=1)]
        return parts if self._places is None else [part[self._places] for part in parts]


class SiameseGNN(MatchingNetwork):
    r"""Graph network on both graphs, with the same weights, that scores a match by a scalar product.

    From `"Revised note on learning quadratic assignment with graph neural networks"
    <https://arxiv.org/abs/1706.07450>`_ (Nowak, Villar, Bandeira, Bruna 2018). With x the features of the nodes,

    .. math::
        z = \sum_{O \in \{I, D, A_0, \dots, A_{J-1}, U\}} O x \theta_O, \quad A_j = \min(1, A^{2^j}), \quad
        U = \tfrac{1}{n} \mathbf{1}\mathbf{1}^T,

    with ReLU on the first half of the columns of z, and normalisation over the nodes of each graph. The score of a
    match is :math:`e_i \cdot e'_j / \sqrt d` with e and e' the normalised embeddings after the last, linear layer.
    O((n + E) d) time and memory a layer and graph for J = 1; graphs above 256 nodes are never made dense, so that a
    large one wants J <= 2. Deviation: the paper's batch norm becomes normalisation per graph, the same for a batch of
    one.

    Args:
        width: Features d a layer, even.
        depth: Number of hidden layers.
        power: J.
        inputs: Input features: the degree; for regular graphs the number of nodes within two steps (row sums of
            min(1, A^2)), as published; or the number of closed walks of each length from 3 to 10, standardised in each
            graph, which tell the nodes of sparse regular graphs apart and cost O(n^3).
        rank: Take the rank of each node in an earlier matching as a further input (see :class:`Chained`).

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        width: int = 20,
        depth: int = 20,
        power: int = 4,
        inputs: Literal["degree", "two_hop_degree", "closed_walks"] = "degree",
        rank: bool = False,
    ) -> None:
        super().__init__()
        check_width("SiameseGNN", width=width, depth=depth, power=power)
        if width % 2:
            msg = f"SiameseGNN(width={width}): width must be even, since half of the features pass a ReLU."
            raise ValueError(msg)
        if inputs not in ("degree", "two_hop_degree", "closed_walks"):
            msg = f"SiameseGNN(inputs={inputs!r}): inputs must be 'degree', 'two_hop_degree' or 'closed_walks'."
            raise ValueError(msg)
        if inputs == "two_hop_degree" and power < 2:
            msg = "SiameseGNN(inputs='two_hop_degree', power=1): the two-hop degree needs power 2 or more."
            raise ValueError(msg)
        self.width = width
        self.power = power
        self.inputs = inputs
        self.rank = rank
        features = [(_WALKS if inputs == "closed_walks" else 1) + rank, *[width] * depth]
        self.layers = nn.ModuleList(NodeLayer(a, width, power, extra_features=a) for a in features[:-1])
        self.activations = nn.ModuleList(HalfLinear(width, linear=False) for _ in range(depth))
        self.output = NodeLayer(width, width, power, extra_features=width)
        self.normalize = HalfLinear(width, linear=True)

    def forward(self, pairs: GraphPairs, ranks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Score the matches, (B, N1, N2), see :meth:`MatchingNetwork.forward`.

        Args:
            pairs: The pairs.
            ranks: With ``rank``: rank in [0, 1] of each node of the first and the second graphs, (B, N1) and (B, N2).
        """
        sides = ranked_sides(pairs, ranks, wanted=self.rank)
        first, second = (self._pad(self.embed(graphs, rank), graphs) for graphs, rank in sides)
        return first @ second.transpose(1, 2) / self.width**0.5

    def embed(self, graphs: Graphs, rank: Tensor | None = None) -> Tensor:
        """Embed the nodes of one side, (M, d), M being the nodes of all graphs together."""
        dtype = self.output.mix.weight.dtype
        operators = (
            DenseOperators(graphs, self.power, dtype)
            if graphs.max_size <= MAX_DENSE_NODES
            else GraphOperators(graphs.sparse, self.power, dtype=dtype)
        )
        x = closed_walks(graphs).to(dtype) if self.inputs == "closed_walks" else self._input(operators)
        if rank is not None:
            x = torch.cat([x, rank[graphs.node_mask].unsqueeze(1).to(dtype)], dim=1)
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(operators, x, self._mean(operators, x)), operators.nodes)
        return self.normalize(self.output(operators, x, self._mean(operators, x)), operators.nodes)

    def _input(self, operators: NodeOperators) -> Tensor:
        if self.inputs == "degree":
            return operators.degree
        return operators.adjacency_powers(torch.ones_like(operators.degree))[1]

    @staticmethod
    def _mean(operators: DenseOperators | GraphOperators, x: Tensor) -> Tensor:
        return operators.nodes.spread(operators.nodes.mean(x)).expand_as(x)

    @staticmethod
    def _pad(embedding: Tensor, graphs: Graphs) -> Tensor:
        """Lay the embeddings (M, d) of the nodes out by graph, (B, N, d)."""
        shape = (len(graphs.sizes), graphs.max_size, embedding.shape[1])
        if not graphs.padded:
            return embedding.view(shape)
        places = graphs.node_mask.flatten().nonzero().squeeze(1)
        return embedding.new_zeros(shape[0] * shape[1], shape[2]).index_copy(0, places, embedding).view(shape)


def closed_walks(graphs: Graphs) -> Tensor:
    r"""Count the closed walks of length k = 3 .. 10 from every node, standardised over the nodes of each graph.

    They are the diagonals of A^k, the row sums of the entrywise product of :math:`A^{\lfloor k/2 \rfloor}` and
    :math:`A^{\lceil k/2 \rceil}`. A count that is the same for all nodes becomes 0.

    Args:
        graphs: B graphs with M nodes in all.

    Returns:
        (M, 8) float32.
    """
    degree = graphs.dense.sum(2)
    mean = (degree.sum(1) / graphs.sizes).clamp(min=1)
    power = graphs.dense / mean.sqrt()[:, None, None]  # keeps the counts of long walks within range
    powers = [power]
    while len(powers) < 5:
        powers.append(powers[-1] @ power)
    nodes = graphs.node_mask
    counts = torch.stack([(powers[k // 2 - 1] * powers[(k + 1) // 2 - 1]).sum(2) for k in range(3, 11)], dim=2)
    centered = (counts - (counts * nodes.unsqueeze(2)).sum(1, keepdim=True) / graphs.sizes[:, None, None])[nodes]
    graph = torch.arange(len(graphs.sizes), device=nodes.device).repeat_interleave(graphs.sizes)
    deviation = centered.new_zeros(len(graphs.sizes), 8).index_add_(0, graph, centered.square())
    deviation = (deviation / graphs.sizes.unsqueeze(1)).sqrt()
    scale = torch.where(deviation > 1e-4 * counts.amax(1), deviation, torch.inf)  # below that it is rounding
    return centered / scale[graph]


def ranked_sides(
    pairs: GraphPairs, ranks: tuple[Tensor, Tensor] | None, *, wanted: bool
) -> tuple[tuple[Graphs, Tensor | None], tuple[Graphs, Tensor | None]]:
    """Give both sides with the ranks of their nodes: none where a network takes none, zeros where none are given."""
    if not wanted:
        return (pairs.first, None), (pairs.second, None)
    if ranks is None:
        ranks = pairs.first.node_mask * 0.0, pairs.second.node_mask * 0.0
    return (pairs.first, ranks[0]), (pairs.second, ranks[1])


def check_width(name: str, **sizes: int) -> None:
    """Refuse sizes below one.

    Raises:
        ValueError: Naming the first of them.
    """
    for argument, value in sizes.items():
        if value < 1:
            msg = f"{name}({argument}={value}): must be at least 1."
            raise ValueError(msg)
