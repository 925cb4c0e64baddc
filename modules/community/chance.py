"""What no knowledge of the edges scores: the floor under every measured overlap."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from ..graph_operators import graph_ids
from .base import NodeNetwork, node_noise


class RandomLabels(NodeNetwork):
    """Label every node at random: chance, which is above zero overlap at finite n.

    The accuracy is maximised over relabelings, so random labels score about sqrt(2 / (pi n)) for two communities.

    Args:
        num_classes: Number of communities k.
        seed: The labels are a pure function of (seed, sample number), so every rank and batch size draws the same.
    """

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        super().__init__(num_classes)
        self.seed = seed

    def forward(self, graph: Data) -> Tensor:
        """Score the nodes by noise: (N, num_classes)."""
        return node_noise(graph, self.num_classes, self.seed)


class SingleLabel(NodeNetwork):
    """Give every node the same community.

    Under the best relabeling this scores the share of the graph's largest community: overlap 0 for equal communities,
    but a high accuracy where one community dominates.

    Args:
        num_classes: Number of communities k.
        label: The community, in 0 .. k-1.

    Raises:
        ValueError: If ``label`` is out of range.
    """

    def __init__(self, num_classes: int, label: int = 0) -> None:
        super().__init__(num_classes)
        if not 0 <= label < num_classes:
            msg = f"SingleLabel(label={label}): label must be in 0 .. {num_classes - 1}."
            raise ValueError(msg)
        self.label = label

    def forward(self, graph: Data) -> Tensor:
        """Score the one community 1, the others 0: (N, num_classes)."""
        node_graph, _ = graph_ids(graph)
        scores = torch.zeros(node_graph.numel(), self.num_classes, device=node_graph.device)
        scores[:, self.label] = 1
        return scores
