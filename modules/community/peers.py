"""Graph networks of PyTorch Geometric as learned peers, behind the interface of our own networks."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GINConv, InstanceNorm

from ..graph_operators import graph_ids
from .base import NodeNetwork


class _Peer(NodeNetwork):
    """Run convolutions, each followed by instance norm within the graph and ReLU, then one linear layer.

    Args:
        num_classes: Number of communities k.
        width: Features a node after every convolution.
        layers: The convolutions, called with features and ``edge_index``; the first takes one feature.
    """

    def __init__(self, num_classes: int, width: int, layers: Sequence[nn.Module]) -> None:
        super().__init__(num_classes)
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(InstanceNorm(width, affine=True) for _ in layers)
        self.output = nn.Linear(width, num_classes)

    def forward(self, graph: Data) -> Tensor:
        """Score the nodes, (N, num_classes); see :class:`NodeNetwork`."""
        node_graph, num_graphs = graph_ids(graph)
        edge_index = cast(Tensor, graph.edge_index)
        degree = torch.bincount(edge_index[0], minlength=node_graph.numel()).to(self.output.weight.dtype)
        nodes = torch.bincount(node_graph, minlength=num_graphs).clamp(min=1)
        mean = degree.new_zeros(num_graphs).index_add_(0, node_graph, degree) / nodes
        features = (degree / mean.clamp(min=torch.finfo(degree.dtype).tiny)[node_graph])[:, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            features = norm(layer(features, edge_index), node_graph, num_graphs).relu()
        return self.output(features)


class GIN(_Peer):
    """Graph isomorphism network: sums over the neighbours and a two-layer perceptron in every convolution.

    From `"How Powerful are Graph Neural Networks?" <https://arxiv.org/abs/1810.00826>`_ (Xu, Hu, Leskovec, Jegelka
    2019), by :class:`torch_geometric.nn.GINConv` with learned epsilon. Input: degree over the graph's average degree.
    Unlike in the paper, features are normalised within each graph, as a batch mixes signal-to-noise ratios.

    Args:
        num_classes: Number of communities k.
        width: Features a node in the hidden layers.
        depth: Number of convolutions.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_classes: int, width: int = 16, depth: int = 10) -> None:
        _check_positive("GIN", width=width, depth=depth)
        perceptrons = [
            nn.Sequential(nn.Linear(1 if i == 0 else width, width), nn.ReLU(), nn.Linear(width, width))
            for i in range(depth)
        ]
        super().__init__(num_classes, width, [GINConv(perceptron, train_eps=True) for perceptron in perceptrons])


class GAT(_Peer):
    """Graph attention network: an attention-weighted mean over the neighbours in every convolution.

    From `"Graph Attention Networks" <https://arxiv.org/abs/1710.10903>`_ (Velickovic et al. 2018), by
    :class:`torch_geometric.nn.GATConv`; the peer of the published comparison. Input: degree over the graph's average
    degree; features are normalised within each graph.

    Args:
        num_classes: Number of communities k.
        width: Features a node in the hidden layers, a multiple of ``heads``.
        depth: Number of convolutions.
        heads: Attention heads; their outputs are concatenated.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, num_classes: int, width: int = 16, depth: int = 10, heads: int = 4) -> None:
        _check_positive("GAT", width=width, depth=depth, heads=heads)
        if width % heads:
            msg = f"GAT(width={width}, heads={heads}): width must be a multiple of heads, e.g. {heads * 4}."
            raise ValueError(msg)
        layers = [GATConv(1 if i == 0 else width, width // heads, heads) for i in range(depth)]
        super().__init__(num_classes, width, layers)


def _check_positive(name: str, **arguments: int) -> None:
    """Refuse sizes below one."""
    for argument, value in arguments.items():
        if value < 1:
            msg = f"{name}({argument}={value}): {argument} must be at least 1."
            raise ValueError(msg)
