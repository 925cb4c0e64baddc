r"""How nearly a homogeneous predictor is a stationary point of its margin problem, in the space of its parameters."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .losses import log_exponential_loss
from .predictors import Predictor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["kkt_residual", "normalized_margins", "sandwich_violation"]


def kkt_residual(predictor: Predictor, x: Tensor, y: Tensor, near: float = 1.05) -> Tensor:
    r"""Give the relative distance of the parameters from the KKT points of the margin problem.

    Of :math:`\min \frac12\|\theta\|^2` subject to :math:`q_n = y_n f(\theta; x_n) \ge 1` the stationary points have
    :math:`\theta = \sum_n \lambda_n \nabla q_n` with :math:`\lambda \ge 0` on the samples of the least margin:

    .. math:: \min_{\lambda \ge 0} \frac{\|\theta - \sum_{n: q_n \le c\,q_{\min}} \lambda_n \nabla q_n\|}{\|\theta\|}

    by non-negative least squares; free of scale. From `"Gradient Descent Maximizes the Margin of Homogeneous Neural
    Networks" <https://arxiv.org/abs/1906.05890>`_.

    Args:
        predictor: Of R runs.
        x: Inputs, (R, N, d).
        y: Labels -1 and 1, (R, N).
        near: c >= 1: which samples count as of the least margin.

    Returns:
        Residuals in [0, 1], (R,); 1 where a sample is misclassified.
    """
    from scipy.optimize import nnls

    parameters = list(predictor.parameters())
    with torch.enable_grad():
        margins = predictor(x) * y
        slopes = [
            torch.autograd.grad(margins[:, n].sum(), parameters, retain_graph=True) for n in range(margins.shape[1])
        ]
    rows = torch.stack([torch.cat([part.flatten(1) for part in slope], 1) for slope in slopes], 1).numpy()
    theta = torch.cat([parameter.detach().flatten(1) for parameter in parameters], 1).numpy()
    residuals = []
    for run, values in enumerate(margins.detach()):
        if float(values.min()) <= 0:
            residuals.append(1.0)
            continue
        active: NDArray[np.float64] = rows[run][(values <= near * values.min()).numpy()]
        scale = np.linalg.norm(active, axis=1, keepdims=True)
        _, distance = nnls((active / scale).T, theta[run] / np.linalg.norm(theta[run]), maxiter=100 * len(active))
        residuals.append(float(distance))
    return torch.tensor(residuals, dtype=torch.float64)


def normalized_margins(margins: Tensor, norm: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    r"""Give the normalized margin and its smoothed form.

    .. math:: \bar\gamma = \frac{\min_n q_n}{\|\theta\|^L}, \qquad
        \tilde\gamma = \frac{-\log\sum_n e^{-q_n}}{\|\theta\|^L}, \qquad
        \bar\gamma - \frac{\log N}{\|\theta\|^L} \le \tilde\gamma \le \bar\gamma

    Args:
        margins: q, (R, N), in the unit of the output.
        norm: The l2 norm of all parameters, (R,).
        degree: L.

    Returns:
        Both, (R,), in units of the output per weight^L; comparable only within one architecture.
    """
    scale = norm**degree
    return margins.amin(-1) / scale, -log_exponential_loss(margins) / scale


def sandwich_violation(margins: Tensor, norm: Tensor, degree: int) -> Tensor:
    """Give by how much the bounds of :func:`normalized_margins` are violated, relative to the margin; 0 if not, (R,)."""
    hard, smooth = normalized_margins(margins, norm, degree)
    low = hard - np.log(margins.shape[-1]) / norm**degree
    return torch.maximum(smooth - hard, low - smooth).clamp_min(0) / hard.abs()
