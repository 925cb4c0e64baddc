"""Margins that do not grow with the weights of a homogeneous network."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "log_product_norm",
    "margin_growth",
    "normalized_margin",
    "parameter_norm",
    "sandwich_violation",
    "smoothed_margin",
]


def parameter_norm(parameters: Iterable[Tensor]) -> Tensor:
    r"""Give :math:`\rho = \|\theta\|_2` over all entries of all parameters, in the unit of the weights, float64 ()."""
    return _norms(parameters).square().sum().sqrt()


def log_product_norm(parameters: Iterable[Tensor]) -> Tensor:
    r"""Give :math:`\log \prod_l \|W_l\|_F`, the logarithm of the product of the layers' norms, float64 ().

    A margin over this product does not change when a factor is moved from one layer to the next, which a homogeneous
    network does not notice. Give one tensor a layer.
    """
    return _norms(parameters).log().sum()


def normalized_margin(margin: Tensor, norm: float | Tensor, degree: float) -> Tensor:
    r"""Give :math:`m / \rho^L`, the margin of the weights' direction, for a network homogeneous of degree L.

    In logits per weight to the power L; not comparable between architectures. From `Lyu and Li 2020
    <https://arxiv.org/abs/1906.05890>`_.

    Args:
        margin: Output margins, any shape.
        norm: rho, see :func:`parameter_norm`.
        degree: L, see :func:`~theodolite.modules.margins.homogeneity`.

    Returns:
        The same shape; the power is taken in float64.
    """
    scale = torch.as_tensor(norm, dtype=torch.float64, device=margin.device) ** -degree
    return margin * scale.to(margin)


def smoothed_margin(
    log_loss: float | Tensor, norm: float | Tensor, degree: float, tail: Literal["exponential", "logistic"] = "logistic"
) -> Tensor:
    r"""Give the smoothed normalized margin, a lower bound of the smallest one that gradient flow never lowers.

    .. math::
        \tilde\gamma = \rho^{-L} \log(1 / \mathcal L) \text{ (exponential)}, \qquad
        \tilde\gamma = -\rho^{-L} \log(e^{\mathcal L} - 1) \text{ (logistic)}

    with the loss **summed** over the samples, once it is below 1 (exponential) or log 2 (logistic). From `Lyu and Li
    2020 <https://arxiv.org/abs/1906.05890>`_. For N samples and the exponential loss
    :math:`\bar\gamma - \rho^{-L} \log N \le \tilde\gamma \le \bar\gamma`. In logits per weight to the power L.

    Args:
        log_loss: log of the summed loss; the loss itself may be far too small for a float.
        norm: rho, see :func:`parameter_norm`.
        degree: L.
        tail: Of the loss; the cross entropy's is logistic.

    Returns:
        The margin, float64, of the shape of ``log_loss``.
    """
    log_loss = torch.as_tensor(log_loss, dtype=torch.float64)
    norm = torch.as_tensor(norm, dtype=torch.float64)
    return -(log_loss if tail == "exponential" else _log_expm1_of_log(log_loss)) * norm**-degree


def sandwich_violation(margins: Tensor, norm: Tensor, degree: float) -> Tensor:
    r"""Give the violation of the bounds of the exponential :func:`smoothed_margin`, relative to the smallest margin.

    .. math:: \bar\gamma - \rho^{-L} \log N \le \tilde\gamma \le \bar\gamma, \qquad
        \bar\gamma = \rho^{-L} \min_n m_n

    Args:
        margins: Output margins, (..., N).
        norm: rho, (...).
        degree: L.

    Returns:
        (...), 0 in exact arithmetic.
    """
    hard = normalized_margin(margins.amin(-1), norm, degree)
    smooth = smoothed_margin(torch.logsumexp(-margins, -1), norm, degree, "exponential")
    low = hard - math.log(margins.shape[-1]) * norm**-degree
    return torch.maximum(smooth - hard, low - smooth).clamp_min(0) / hard.abs()


def margin_growth(smoothed: Sequence[float], log_losses: Sequence[float]) -> tuple[float, float]:
    r"""Give how far the smoothed normalized margin has risen in training, and how far it fell on the way.

    Counted from the first positive value: from there on, where the summed logistic loss is below log 2 (the exponential
    one below 1), gradient flow never lowers it (`Lyu and Li 2020 <https://arxiv.org/abs/1906.05890>`_). The fall is
    seen at the points in time that lowered the loss, which leaves out steps that the training took back.

    Args:
        smoothed: Values of :func:`smoothed_margin`, in order of time.
        log_losses: log of the loss at the same times.

    Returns:
        The last value less the first positive one, in logits per weight to the power L; and the largest fall below the
        highest value before, relative to it, without unit. Both are 0 as long as no value was positive.
    """
    first: float | None = None
    least, highest, fall = math.inf, 0.0, 0.0
    for value, log_loss in zip(smoothed, log_losses, strict=True):
        if first is None and value > 0:
            first = value
        if log_loss < least:
            least = log_loss
            highest = max(highest, value)
            fall = max(fall, 1 - value / highest) if highest else fall
    return (0.0 if first is None else smoothed[-1] - first), fall


def _log_expm1_of_log(log_value: Tensor) -> Tensor:
    """Give log(exp(v) - 1) for v = exp(log_value), to full relative accuracy for v that underflow too."""
    value = log_value.exp()
    small = log_value + value / 2  # log v + v/2 + O(v^2)
    large = value + torch.log(-torch.expm1(-value))
    return torch.where(log_value < math.log(1e-8), small, large)


def _norms(parameters: Iterable[Tensor]) -> Tensor:
    tensors = [parameter.detach() for parameter in parameters]
    if not tensors:
        msg = "a norm of parameters needs at least one parameter; the model has none that require gradients."
        raise ValueError(msg)
    # the logarithm of a margin loses as many digits as the norm: sums of squares in float64
    return torch.stack([torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors])
