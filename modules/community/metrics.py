"""The loss and the accuracy of a partition, both blind to the names of the communities."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

#: Up to this many classes all k! relabelings are compared in one gather; beyond, the Hungarian algorithm is cheaper.
_ENUMERATED_CLASSES = 5


def best_relabeling(cost: Tensor, label_permutations: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Find for every matrix the relabeling pi that minimises sum_c cost[c, pi(c)].

    Args:
        cost: Costs of calling class c class c', (B, k, k).
        label_permutations: The relabelings to choose from, each a permutation of 0 .. k-1; ``None`` for all k! of them
            (exact for every k: by enumeration for small k, else by the Hungarian algorithm).

    Returns:
        The minimisers, (B, k) int64.
    """
    num_classes = cost.shape[-1]
    if label_permutations is None and num_classes > _ENUMERATED_CLASSES:
        solutions = [linear_sum_assignment(matrix)[1] for matrix in cost.detach().cpu().double().numpy()]
        return torch.as_tensor(np.array(solutions), dtype=torch.long, device=cost.device).view(-1, num_classes)
    choices = label_permutations or list(permutations(range(num_classes)))
    candidates = torch.tensor(choices, dtype=torch.long, device=cost.device)
    totals = cost.detach()[:, torch.arange(num_classes, device=cost.device), candidates].sum(-1)
    return candidates[totals.argmin(1)]


def assignment_loss(
    scores: Tensor,
    y: Tensor,
    graph: Tensor,
    num_graphs: int,
    label_permutations: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    r"""Cross entropy of each graph under its best relabeling of the communities.

    .. math:: \ell = \min_{\pi} -\frac{1}{n} \sum_i \log o_{i, \pi(y_i)}

    (eq. 3 of `"Supervised Community Detection with Line Graph Neural Networks" <https://arxiv.org/abs/1705.08415>`_,
    divided by the number of nodes). The k x k matrix of class-wise costs decides the minimum exactly; the gradient
    flows through the chosen entries.

    Args:
        scores: Real scores, (N, k); their softmax is o.
        y: True communities, (N,) int64 in 0 .. k-1.
        graph: Graph number of every node, (N,) int64.
        num_graphs: Number of graphs B.
        label_permutations: Relabelings under which the classes are the same; ``None`` for all.

    Returns:
        Loss of each graph in nats a node, (B,); log k for uniform scores.
    """
    num_classes = scores.shape[1]
    cost = scores.new_zeros(num_graphs * num_classes, num_classes)
    cost = cost.index_add(0, graph * num_classes + y, -F.log_softmax(scores, dim=1))
    cost = cost.view(num_graphs, num_classes, num_classes)
    chosen = cost.gather(2, best_relabeling(cost, label_permutations).unsqueeze(2)).sum((1, 2))
    return chosen / torch.bincount(graph, minlength=num_graphs).clamp(min=1)


def node_accuracy(
    prediction: Tensor,
    y: Tensor,
    graph: Tensor,
    num_graphs: int,
    num_classes: int,
    label_permutations: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Share of correctly labelled nodes of each graph under its best relabeling.

    Args:
        prediction: Predicted communities, (N,) int64.
        y: True communities, (N,) int64.
        graph: Graph number of every node, (N,) int64.
        num_graphs: Number of graphs B.
        num_classes: Number of communities k.
        label_permutations: As in :func:`assignment_loss`.

    Returns:
        Accuracies in [0, 1], (B,) float64.
    """
    cells = (graph * num_classes + y) * num_classes + prediction
    confusion = torch.bincount(cells, minlength=num_graphs * num_classes**2).double()
    confusion = confusion.view(num_graphs, num_classes, num_classes)
    correct = confusion.gather(2, best_relabeling(-confusion, label_permutations).unsqueeze(2)).sum((1, 2))
    return correct / torch.bincount(graph, minlength=num_graphs).clamp(min=1)


def overlap(accuracy: Tensor, num_classes: int) -> Tensor:
    r"""Rescale an accuracy so that a single label scores 0 for equal communities and perfection 1.

    .. math:: \mathrm{overlap} = \frac{\mathrm{acc} - 1/k}{1 - 1/k}

    Chance is above 0 at finite n, since the accuracy is already maximised over relabelings: about
    sqrt(2 / (pi n)) for k = 2.
    """
    return (accuracy - 1 / num_classes) / (1 - 1 / num_classes)
