r"""Losses in a log frame: the logarithm of a sum of exponential tails, correct where the loss itself underflows."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["log_exponential_loss", "log_logistic_loss", "log_loss", "soft_margins", "squared_loss"]

Tail = Literal["exponential", "logistic"]


def squared_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    r"""Give :math:`\frac12 \sum_n (f_n - y_n)^2` over the last axis; (..., N) to (...)."""
    return (outputs - targets).square().sum(-1) / 2


def log_exponential_loss(margins: Tensor) -> Tensor:
    r"""Give :math:`\log \sum_n e^{-m_n}` over the last axis.

    Its gradient, :math:`\nabla L / L`, is minus the softmax of :math:`-m`: of size one at every loss, while L itself is
    0 in float64 beyond a margin of 745. A step of size eta on it is a step of size eta / L on L.

    Args:
        margins: m, (..., N), in the unit of the output.

    Returns:
        log L, (...).
    """
    return torch.logsumexp(-margins, -1)


def log_logistic_loss(margins: Tensor) -> Tensor:
    r"""Give :math:`\log \sum_n \log(1 + e^{-m_n})` over the last axis, to full relative accuracy of the loss.

    For :math:`m_n > 30` the logarithm of the softplus is :math:`-m_n - e^{-m_n}/2`, whose next term is below
    :math:`10^{-26}`; the direct form would be log 0 beyond 745.

    Args:
        margins: m, (..., N), in the unit of the output; of several classes :func:`soft_margins`.

    Returns:
        log L, (...).
    """
    small = margins > 30
    near = F.softplus(-margins.masked_fill(small, 0.0), threshold=40).log()
    far = margins.masked_fill(~small, 31.0)
    return torch.logsumexp(torch.where(small, -far - (-far).exp() / 2, near), -1)


def log_loss(margins: Tensor, tail: Tail) -> Tensor:
    """Give the logarithm of the loss with this tail, summed over the last axis."""
    return log_exponential_loss(margins) if tail == "exponential" else log_logistic_loss(margins)


def soft_margins(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Give :math:`-\log \sum_{j \ne y} e^{s_j - s_y}`, whose logistic loss is the cross entropy of the scores.

    Plain cross entropy rounds the true class's gradient :math:`p_y - 1` to 0 above margins of 37 (float64) or 17
    (float32); :func:`log_logistic_loss` of these does not.

    Args:
        scores: (..., N, C), C >= 2.
        labels: Classes, integers (..., N).

    Returns:
        Margins in the unit of the scores, (..., N); at most log(C - 1) below the output margin
        :math:`s_y - \max_{j \ne y} s_j` and never above it.
    """
    index = labels.unsqueeze(-1)
    others = (scores - scores.gather(-1, index)).scatter(-1, index, float("-inf"))
    return -torch.logsumexp(others, -1)
