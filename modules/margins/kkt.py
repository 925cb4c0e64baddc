r"""How far weights are from a stationary point of the margin problem.

The problem is :math:`\min \tfrac12\|\theta\|^2` subject to :math:`q_n(\theta) \ge 1`, with q the output margin of a
network homogeneous of degree L. Gradient flow on exponential-tailed losses converges to the direction of a KKT point
(`Lyu and Li 2020 <https://arxiv.org/abs/1906.05890>`_).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from .output import output_margin

__all__ = ["KKTResidual", "kkt_residual", "kkt_residual_least_squares", "margin_gradients"]


@dataclass(frozen=True)
class KKTResidual:
    r"""The two residuals of :func:`kkt_residual`, without unit.

    Args:
        stationarity: :math:`\|\tilde\theta - \sum_n \lambda_n h_n\| / \|\tilde\theta\| = \sqrt{2 (1 - \cos)}`, cos of
            the angle between the weights and minus the gradient of the loss.
        slackness: :math:`\sum_n \lambda_n (q_n / q_{\min} - 1)`, over :math:`\|\tilde\theta\|^2`.
    """

    stationarity: float
    slackness: float


def kkt_residual(
    weights: Tensor, gradients: Tensor, margins: Tensor, probabilities: Tensor, degree: float
) -> KKTResidual:
    r"""Give the residuals of the multipliers that the loss itself gives.

    .. math::
        \tilde\theta = \theta / q_{\min}^{1/L}, \quad h_n = \nabla q_n / q_{\min}^{(L-1)/L}, \quad
        \lambda_n = q_{\min}^{1-2/L} \rho\, p_n / \|\textstyle\sum_n p_n \nabla q_n\|

    Args:
        weights: theta, (P,).
        gradients: Gradients of the margins, (N, P); see :func:`margin_gradients`.
        margins: q, (N,), all positive.
        probabilities: p, (N,): minus the derivative of the loss by each margin, up to a common factor (the softmax of
            -q for the exponential loss).
        degree: L.

    Raises:
        ValueError: If a margin is not positive.
    """
    smallest = _smallest(margins)
    pull = probabilities @ gradients
    cosine = torch.dot(weights, pull) / (weights.norm() * pull.norm())
    multipliers = smallest ** (1 - 2 / degree) * weights.norm() * probabilities / pull.norm()
    size = weights.norm().square() / smallest ** (2 / degree)
    slack = torch.dot(multipliers, margins / smallest - 1) / size
    return KKTResidual(float((2 * (1 - cosine)).clamp_min(0).sqrt()), float(slack))


def kkt_residual_least_squares(weights: Tensor, gradients: Tensor, margins: Tensor, band: float = 0.05) -> float:
    r"""Give :math:`\min_{\lambda \ge 0} \|\theta - \sum_n \lambda_n \nabla q_n\| / \|\theta\|` over the support.

    The support are the samples of margin at most (1 + band) times the smallest. Below the residual of the loss's own
    multipliers wherever these live on the support. By non-negative least squares in float64.

    Args:
        weights: theta, (P,).
        gradients: Gradients of the margins, (N, P).
        margins: q, (N,), all positive.
        band: Relative width of the support, >= 0.

    Returns:
        The residual in [0, 1], without unit.

    Raises:
        ValueError: If a margin is not positive.
    """
    from scipy.optimize import nnls

    support = margins <= (1 + band) * _smallest(margins)
    rows = gradients[support].double()
    scale = rows.norm(dim=1, keepdim=True)  # the residual does not change, the conditioning does
    _, residual = nnls((rows / scale).T.cpu().numpy(), weights.double().cpu().numpy())
    return residual / float(weights.double().norm())


def margin_gradients(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give the weights, the output margins and their gradients, one sample at a time, of a small network.

    Args:
        model: ``model(x)`` gives logits; N x P numbers are held in memory.
        x: Samples (N, ...).
        y: Labels (N,).

    Returns:
        Weights (P,), margins (N,), gradients (N, P), detached; the parameters in the order of ``named_parameters``,
        those that require gradients.
    """
    parameters = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def margin(parameters: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(model, parameters, (sample[None],))
        return _unchecked_margin(scores, label)

    gradients = vmap(grad(margin), in_dims=(None, 0, 0))(parameters, x, y)
    with torch.no_grad():
        margins = output_margin(model(x), y)
    rows = torch.cat([gradients[name].flatten(1) for name in parameters], dim=1)
    return torch.cat([p.flatten() for p in parameters.values()]), margins, rows


def _unchecked_margin(scores: Tensor, label: Tensor) -> Tensor:
    """Give the margin of one sample; a check of values cannot be vectorised."""
    if scores.numel() == 1:
        return scores.reshape(()) * (2 * label - 1)
    own = scores[0].gather(0, label[None].long())
    return own[0] - scores[0].scatter(0, label[None].long(), -torch.inf).amax()


def _smallest(margins: Tensor) -> Tensor:
    smallest = margins.min()
    if not float(smallest) > 0:
        msg = f"KKT residuals need every sample classified right; the smallest margin is {float(smallest):.3g}."
        raise ValueError(msg)
    return smallest
