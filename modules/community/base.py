"""The common interface of learned networks and untrained baselines that score the nodes of a graph."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from ..graph_operators import graph_ids


class NodeNetwork(nn.Module, ABC):
    """Anything that gives every node of a graph one real score a community.

    Args:
        num_classes: Number of communities k, at least 2.

    Raises:
        ValueError: If ``num_classes`` is below 2.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            msg = f"{type(self).__name__}(num_classes={num_classes}): num_classes must be at least 2."
            raise ValueError(msg)
        self.num_classes = num_classes

    @abstractmethod
    def forward(self, graph: Data) -> Tensor:
        """Score the nodes.

        Args:
            graph: A graph or a batch of graphs with N nodes in all; ``edge_index`` (2, E) holds both directions of
                every edge, sorted by (row, column), without loops or repeats.

        Returns:
            Real scores, (N, num_classes); their softmax is the probability of each community.
        """

    def readouts(self, graph: Data) -> list[Tensor]:
        """Give the scores that training compares with the labels: those of :meth:`forward`, the last, and any before.

        Args:
            graph: As for :meth:`forward`.

        Returns:
            At least one tensor of scores, (N, num_classes) each.
        """
        return [self(graph)]


def node_noise(graph: Data, columns: int, seed: int = 0) -> Tensor:
    """Draw standard normal noise for every node, a pure function of (seed, sample number) for each graph.

    So neither the batch, nor the rank, nor the order of evaluation changes it, and the global generator is left alone.

    Args:
        graph: Batch with N nodes; its ``sample_id`` (B,) numbers the graphs, else their place in the batch does.
        columns: Values a node.
        seed: Another seed draws other noise.

    Returns:
        Noise, (N, columns) float32.
    """
    batch, num_graphs = graph_ids(graph)
    sizes = torch.bincount(batch, minlength=num_graphs).tolist()
    samples = graph.sample_id.tolist() if "sample_id" in graph else range(num_graphs)
    generator = torch.Generator()
    noise = []
    for sample, size in zip(samples, sizes, strict=True):
        generator.manual_seed(int(np.random.SeedSequence([seed, int(sample)]).generate_state(1)[0]))
        noise.append(torch.randn(size, columns, generator=generator))
    return torch.cat(noise).to(batch.device)
