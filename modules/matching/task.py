"""Graph matching as a Task."""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from ..base import Task, supervised
from .assignment import assign
from .base import GraphPairs, MatchingNetwork
from .metrics import argmax_accuracy, assignment_accuracy, common_edges, exact_recovery, objective

__all__ = ["GraphMatching", "matching_loss"]


def matching_loss(scores: Tensor, pairs: GraphPairs) -> Tensor:
    r"""Give each pair's cross entropy; a row of scores is a distribution over the nodes of the second graph.

    .. math:: \ell = -\frac{1}{n} \sum_i \log \mathrm{softmax}(S_i)_{p(i)}

    (`Nowak et al. 2018 <https://arxiv.org/abs/1706.07450>`_); log n for constant scores.

    Args:
        scores: (B, N1, N2).
        pairs: The pairs, with their planted matching.

    Returns:
        Losses in nats a node, (B,).

    Raises:
        ValueError: If the pairs have no planted matching.
    """
    if pairs.permutation is None:
        msg = "GraphMatching: the pairs have no planted matching to learn from; use `theodolite predict`."
        raise ValueError(msg)
    scores = scores.float()
    if pairs.mask is None:
        return F.cross_entropy(scores.transpose(1, 2), pairs.permutation, reduction="none").mean(1)
    columns = pairs.second.node_mask.unsqueeze(1)
    rows = scores.masked_fill(~columns, torch.finfo(scores.dtype).min).transpose(1, 2)
    losses = F.cross_entropy(rows, pairs.permutation, reduction="none", ignore_index=-1)
    return losses.sum(1) / pairs.first.sizes


class GraphMatching(Task):
    """Match the nodes of two graphs.

    Trains on the cross entropy of the row-wise softmax of the scores. Logs, as means over pairs that are exact on any
    number of ranks, under ``val/`` and ``test/``: ``loss``, ``argmax_accuracy`` (best column of each row, no
    permutation), ``accuracy`` (of the best assignment), ``common_edges``, ``objective`` and ``exact_recovery`` (share
    of pairs matched without a mistake). What needs a planted matching is left out where there is none.

    Args:
        network: Scores the matches; a learned network or a solver.
        optimizer: As in :class:`Task`.
        lr_scheduler: As in :class:`Task`.
    """

    #: The best checkpoint is chosen by this quantity.
    monitor, mode = "val/accuracy", "max"

    def __init__(
        self,
        network: MatchingNetwork,
        optimizer: OptimizerCallable = torch.optim.Adamax,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.save_init_arguments()
        self.network = network

    def forward(self, x: GraphPairs) -> Tensor:
        """Score the matches of a batch of pairs, (B, N1, N2)."""
        return self.network(x)

    def loss(self, batch: GraphPairs) -> Tensor:
        """Give the mean over pairs of :func:`matching_loss`; see :func:`supervised` for readouts."""
        return supervised([matching_loss(scores, batch).mean() for scores in self.network.readouts(batch)])

    def num_samples(self, batch: GraphPairs) -> int:
        """Count the pairs of a batch."""
        return batch.num_pairs

    def validation_step(self, batch: GraphPairs, batch_idx: int) -> None:
        """Log the quantities of the held-out pairs under ``val/``."""
        del batch_idx
        self._evaluate(batch, "val")

    def test_step(self, batch: GraphPairs, batch_idx: int) -> None:
        """Log the quantities of the test pairs under ``test/``."""
        del batch_idx
        self._evaluate(batch, "test")

    def predict_step(self, batch: GraphPairs, *args: Any) -> Tensor:
        """Score the matches of unlabelled pairs, (B, N1, N2)."""
        del args
        return self(batch)

    def _evaluate(self, batch: GraphPairs, stage: str) -> None:
        scores = self(batch)
        matching = assign(scores, batch)
        values = {"common_edges": common_edges(matching, batch), "objective": objective(matching, batch)}
        if batch.permutation is not None:
            values["loss"] = matching_loss(scores, batch)
            values["argmax_accuracy"] = argmax_accuracy(scores, batch)
            values["accuracy"] = assignment_accuracy(matching, batch)
            values["exact_recovery"] = exact_recovery(matching, batch)
        means = {f"{stage}/{name}": value.double().mean() for name, value in values.items()}
        self.log_dict(means, on_epoch=True, sync_dist=True, batch_size=self.weight(batch))  # pyright: ignore[reportArgumentType]
