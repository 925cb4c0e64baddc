"""What an attack raises, one number a sample."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["cross_entropy", "fooled", "logit_gap"]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Give the cross-entropy of each sample, in nats: logits (N, C) and labels (N,) to (N,)."""
    return functional.cross_entropy(logits, y, reduction="none")


def logit_gap(logits: Tensor, y: Tensor) -> Tensor:
    """Give the largest other logit minus the label's, > 0 where misclassified: (N, C) and (N,) to (N,).

    The loss of `Carlini and Wagner 2017 <https://arxiv.org/abs/1608.04644>`_. It does not saturate where the softmax
    does.
    """
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def fooled(logits: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """Say which samples got the target label, or lost their own: (N, C) and (N,) to bool (N,)."""
    predicted = logits.argmax(1)
    return predicted == y if targeted else predicted != y
