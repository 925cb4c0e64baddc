"""Community detection as a Task."""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch_geometric.data import Data

from ..base import Task, supervised
from ..graph_operators import graph_ids
from .base import NodeNetwork
from .metrics import assignment_loss, node_accuracy, overlap


class CommunityDetection(Task):
    """Label the nodes of a graph by community, up to renaming the communities.

    Trains on the cross entropy minimised over relabelings and logs ``val/loss``, ``val/accuracy``, ``val/overlap`` and
    the same for ``test``, as means over graphs, exact on any number of ranks.

    Args:
        network: Scores the nodes; a learned network or an untrained baseline.
        num_classes: Number of communities k (the datamodule's, linked on the command line).
        label_permutations: Relabelings under which two labelings are the same, each a permutation of 0 .. k-1.
            ``None`` for all of them; ``[[0, 1, 2], [1, 0, 2]]`` lets only the first two swap.
        optimizer: As in :class:`Task`.
        lr_scheduler: As in :class:`Task`.

    Raises:
        ValueError: If the network has another number of classes or a relabeling is no permutation.
    """

    #: The best checkpoint is chosen by this quantity.
    monitor, mode = "val/overlap", "max"

    def __init__(
        self,
        network: NodeNetwork,
        num_classes: int,
        label_permutations: list[list[int]] | None = None,
        optimizer: OptimizerCallable = torch.optim.Adamax,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.save_init_arguments()
        if network.num_classes != num_classes:
            msg = (
                f"CommunityDetection: the network has num_classes={network.num_classes}, the task {num_classes}; "
                "give both the number of communities of the data."
            )
            raise ValueError(msg)
        for relabeling in label_permutations or []:
            if sorted(relabeling) != list(range(num_classes)):
                msg = (
                    f"CommunityDetection(label_permutations=[... {relabeling} ...]): each entry must be a permutation "
                    f"of 0 .. {num_classes - 1}."
                )
                raise ValueError(msg)
        self.network = network
        self.num_classes = num_classes
        self.label_permutations = label_permutations

    def forward(self, x: Data) -> Tensor:
        """Score the nodes of a batch of graphs, (N, k)."""
        return self.network(x)

    def loss(self, batch: Data) -> Tensor:
        """Give the mean over graphs of the assignment loss, in nats a node; see :func:`supervised` for readouts."""
        graph, num_graphs = graph_ids(batch)
        readouts = self.network.readouts(batch)
        return supervised([self._graph_losses(scores, batch, graph, num_graphs).mean() for scores in readouts])

    def num_samples(self, batch: Data) -> int:
        """Count the graphs of a batch."""
        return graph_ids(batch)[1]

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Log loss, accuracy and overlap of the held-out graphs under ``val/``."""
        del batch_idx
        self._evaluate(batch, "val")

    def test_step(self, batch: Data, batch_idx: int) -> None:
        """Log loss, accuracy and overlap of the test graphs under ``test/``."""
        del batch_idx
        self._evaluate(batch, "test")

    def predict_step(self, batch: Data, *args: Any) -> Tensor:
        """Score the nodes of an unlabelled batch, (N, k)."""
        del args
        return self(batch)

    def graph_accuracy(self, scores: Tensor, batch: Data) -> Tensor:
        """Give the accuracy of each graph under its best relabeling, (B,) float64."""
        graph, num_graphs = graph_ids(batch)
        return node_accuracy(
            scores.argmax(1), self._labels(batch), graph, num_graphs, self.num_classes, self.label_permutations
        )

    def _graph_losses(self, scores: Tensor, batch: Data, graph: Tensor, num_graphs: int) -> Tensor:
        return assignment_loss(scores, self._labels(batch), graph, num_graphs, self.label_permutations)

    @staticmethod
    def _labels(batch: Data) -> Tensor:
        if not isinstance(batch.y, Tensor):
            msg = "CommunityDetection: the batch has no labels y; use `theodolite predict` for unlabelled graphs."
            raise ValueError(msg)
        return batch.y

    def _evaluate(self, batch: Data, stage: str) -> None:
        graph, num_graphs = graph_ids(batch)
        scores = self(batch)
        accuracy = self.graph_accuracy(scores, batch).mean()
        values = {
            f"{stage}/loss": self._graph_losses(scores, batch, graph, num_graphs).mean(),
            f"{stage}/accuracy": accuracy,
            f"{stage}/overlap": overlap(accuracy, self.num_classes),
        }
        self.log_dict(values, on_epoch=True, sync_dist=True, batch_size=self.weight(batch))  # pyright: ignore[reportArgumentType]
