"""The graph networks of Chen, Li and Bruna, on nodes (GNN) and on nodes and directed edges together (LGNN)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Data

from ..graph_layers import HalfLinear, NodeLayer
from ..graph_operators import GraphOperators
from .base import NodeNetwork, node_noise


class _EdgeLayer(nn.Module):
    r"""One sum over the line-graph operators I, D_B, B_0 .. B_{J-1}, and from the nodes P_m^T and P_d^T.

    Only I, D_B and Rev are worth computing on the edges. With s = S y and t = T y the sums over the edges that leave
    and enter each node,

    .. math:: B y = T^T s - \mathrm{Rev}\, y, \qquad B^2 y = T^T (A s - t) - S^T s + y,

    so everything else is mixed on the nodes, where there are fewer rows, and gathered once at each end of the edges.

    Args:
        in_features: Edge features d.
        node_features: Features of the new node state.
        out_features: Features of the result.
        power: J.
    """

    def __init__(self, in_features: int, node_features: int, out_features: int, power: int) -> None:
        super().__init__()
        self.mix = nn.Linear((2 + power) * in_features, out_features)
        self.mix_sum = nn.Linear(node_features, out_features, bias=False)
        self.mix_difference = nn.Linear(node_features, out_features, bias=False)

    def forward(
        self, operators: GraphOperators, y: Tensor, terms: Tensor, x: Tensor, sums: tuple[Tensor, Tensor]
    ) -> Tensor:
        outgoing, incoming = sums
        identity, degree, once, *higher = self.mix.weight.split(y.shape[1], dim=1)
        from_nodes = [x, outgoing]
        tail = [self.mix_sum.weight + self.mix_difference.weight, torch.zeros_like(once)]
        head = [self.mix_sum.weight - self.mix_difference.weight, once]
        if higher:
            twice = higher[0]
            identity = identity + twice
            from_nodes.append(operators.adjacency(outgoing) - incoming)
            tail = [tail[0], -twice, torch.zeros_like(twice)]
            head = [*head, twice]
        at_ends = torch.cat(from_nodes, dim=1) @ torch.cat([torch.cat(tail, dim=1), torch.cat(head, dim=1)]).t()
        weights = torch.cat([identity, -once, degree, *higher[1:]], dim=1)
        if len(higher) > 1:
            terms = torch.cat([terms, *operators.high_nonbacktracking_powers(y)], dim=1)
        return F.linear(terms, weights, self.mix.bias) + operators.spread_ends(at_ends)


def _node_inputs(graph: Data, operators: GraphOperators, random_features: int) -> Tensor:
    """Give the degree and the random features of every node, (N, 1 + random_features)."""
    if random_features == 0:
        return operators.degree
    noise = node_noise(graph, random_features).to(operators.degree.dtype)
    return torch.cat([operators.degree, noise], dim=1)


def _check_sizes(name: str, width: int, depth: int, power: int, random_features: int, readout_every: int) -> None:
    if width < 2 or width % 2:
        msg = f"{name}(width={width}): width must be even and at least 2, since half of the features pass a ReLU."
        raise ValueError(msg)
    if depth < 1:
        msg = f"{name}(depth={depth}): depth must be at least 1 hidden layer."
        raise ValueError(msg)
    if power < 1:
        msg = f"{name}(power={power}): power (J, the number of adjacency powers) must be at least 1."
        raise ValueError(msg)
    if random_features < 0:
        msg = f"{name}(random_features={random_features}): random_features must be 0 (the paper's network) or more."
        raise ValueError(msg)
    if readout_every < 0:
        msg = f"{name}(readout_every={readout_every}): readout_every must be 0 (the paper's training) or more layers."
        raise ValueError(msg)


def _places(depth: int, every: int) -> Sequence[int]:
    """Give the hidden layers, from 1, after which to read out on the way."""
    return range(every, depth, every) if every else []


class GNN(NodeNetwork):
    r"""Graph network on the operators identity, degree and clipped adjacency powers.

    From `"Supervised Community Detection with Line Graph Neural Networks" <https://arxiv.org/abs/1705.08415>`_
    (section 4.1, eq. 1). With x the node features, one layer is

    .. math:: z = \sum_{O \in \{I, D, A_0, \dots, A_{J-1}\}} O x \theta_O, \quad A_j = \min(1, A^{2^j}),

    followed by ReLU on the first half of the columns of z, the identity on the second half, and normalisation over the
    nodes of each graph. The input is the degree; the last layer is the same sum without ReLU and normalisation.
    Permutation equivariant; O((N + E) width) time and memory a layer for power 1. Deviation: the paper's batch norm
    over a batch of one graph becomes normalisation per graph: the same for one, independent of the batch for more.

    Args:
        num_classes: Number of communities k.
        width: Features a layer, even.
        depth: Number of hidden layers.
        power: J, number of clipped adjacency powers; 2 means A and min(1, A^2).
        random_features: Standard normal input features beside the degree, drawn anew for each graph but always the
            same for one sample number. From the degree alone the linear part of the network can follow one direction
            of the k - 1 that hold k > 2 communities; the paper has none (0). The output is then equivariant in law.
        readout_every: In training apply the output layer also after every so many hidden layers (deep supervision);
            0, as in the paper, for the end alone. The output does not depend on it.
        linear: Leave out the ReLU.

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 8,
        depth: int = 30,
        power: int = 2,
        random_features: int = 0,
        readout_every: int = 0,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__(num_classes)
        _check_sizes(type(self).__name__, width, depth, power, random_features, readout_every)
        self.readout_every = readout_every
        self.power = power
        self.random_features = random_features
        features = [1 + random_features, *[width] * depth]
        self.layers = nn.ModuleList(NodeLayer(a, b, power) for a, b in pairwise(features))
        self.activations = nn.ModuleList(HalfLinear(width, linear=linear) for _ in range(depth))
        self.output = NodeLayer(width, num_classes, power)

    def forward(self, graph: Data) -> Tensor:
        """Score the nodes: (N, num_classes), see :meth:`NodeNetwork.forward`."""
        return self._scores(graph, [])[-1]

    def readouts(self, graph: Data) -> list[Tensor]:
        """Score the nodes after every ``readout_every`` layers and at the end, see :meth:`NodeNetwork.readouts`."""
        return self._scores(graph, _places(len(self.layers), self.readout_every))

    def _scores(self, graph: Data, places: Sequence[int]) -> list[Tensor]:
        operators = GraphOperators(graph, self.power, dtype=self.output.mix.weight.dtype)
        x = _node_inputs(graph, operators, self.random_features)
        scores = []
        for number, (layer, activation) in enumerate(zip(self.layers, self.activations, strict=True), 1):
            x = activation(layer(operators, x), operators.nodes)
            if number in places:
                scores.append(self.output(operators, x))
        return [*scores, self.output(operators, x)]


class LGNN(NodeNetwork):
    r"""Graph network on the nodes and, through the non-backtracking operator, on the directed edges.

    From `"Supervised Community Detection with Line Graph Neural Networks" <https://arxiv.org/abs/1705.08415>`_
    (section 4.2, eq. 2). With x the node and y the edge features, one layer is

    .. math::
        x^+ &= \rho\Big[\sum_{O \in \{I, D, A_j\}} O x \theta_O + P_m y \theta_m + P_d y \theta_d\Big] \\
        y^+ &= \rho\Big[\sum_{O \in \{I, D_B, B_j\}} O y \gamma_O + P_m^T x^+ \gamma_m + P_d^T x^+ \gamma_d\Big]

    with rho as in :class:`GNN` and B_j = min(1, B^(2^j)). Inputs are the degrees deg(G) and B 1. Nothing of size E x E
    is built for J <= 2: the line graph costs O(E width) time and memory a layer.

    Args:
        num_classes: Number of communities k.
        width: Features a layer, even, of nodes and of edges.
        depth: Number of hidden layers.
        power: J, number of clipped powers of A and of B.
        random_features: As in :class:`GNN`, on the nodes.
        readout_every: As in :class:`GNN`.
        linear: Leave out the ReLU ("LGNN linear").

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(
        self,
        num_classes: int,
        width: int = 8,
        depth: int = 30,
        power: int = 2,
        random_features: int = 0,
        readout_every: int = 0,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__(num_classes)
        _check_sizes(type(self).__name__, width, depth, power, random_features, readout_every)
        self.readout_every = readout_every
        self.power = power
        self.random_features = random_features
        node_features, edge_features = [1 + random_features, *[width] * depth], [1, *[width] * depth]
        self.node_layers = nn.ModuleList(
            NodeLayer(a, width, power, extra_features=2 * b)
            for a, b in zip(node_features[:-1], edge_features[:-1], strict=True)
        )
        self.edge_layers = nn.ModuleList(_EdgeLayer(b, width, width, power) for b in edge_features[:-1])
        self.node_activations = nn.ModuleList(HalfLinear(width, linear=linear) for _ in range(depth))
        self.edge_activations = nn.ModuleList(HalfLinear(width, linear=linear) for _ in range(depth))
        self.output = NodeLayer(width, num_classes, power, extra_features=2 * width)

    def forward(self, graph: Data) -> Tensor:
        """Score the nodes: (N, num_classes), see :meth:`NodeNetwork.forward`."""
        return self._scores(graph, [])[-1]

    def readouts(self, graph: Data) -> list[Tensor]:
        """Score the nodes after every ``readout_every`` layers and at the end, see :meth:`NodeNetwork.readouts`."""
        return self._scores(graph, _places(len(self.node_layers), self.readout_every))

    def _scores(self, graph: Data, places: Sequence[int]) -> list[Tensor]:
        operators = GraphOperators(graph, self.power, line_graph=True, dtype=self.output.mix.weight.dtype)
        x, y = _node_inputs(graph, operators, self.random_features), operators.line_degree
        layers = zip(self.node_layers, self.edge_layers, self.node_activations, self.edge_activations, strict=True)
        scores = []
        terms, sums = self._edge_terms(operators, y)
        for number, (node_layer, edge_layer, node_activation, edge_activation) in enumerate(layers, 1):
            x = node_activation(node_layer(operators, x, *self._node_terms(sums)), operators.nodes)
            y = edge_activation(edge_layer(operators, y, terms, x, sums), operators.edges)
            terms, sums = self._edge_terms(operators, y)
            if number in places:
                scores.append(self.output(operators, x, *self._node_terms(sums)))
        return [*scores, self.output(operators, x, *self._node_terms(sums))]

    @staticmethod
    def _node_terms(sums: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Give P_m y = S y + T y and P_d y = S y - T y, (N, d) each."""
        outgoing, incoming = sums
        return outgoing + incoming, outgoing - incoming

    @staticmethod
    def _edge_terms(operators: GraphOperators, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Give [y, Rev y, D_B y], and S y and T y = S Rev y, which its sums over the edges of a node contain."""
        terms = operators.edge_terms(y)
        outgoing, incoming, _ = operators.sum_tails(terms).split(y.shape[1], dim=1)
        return terms, (outgoing, incoming)
