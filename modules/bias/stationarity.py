r"""How nearly a homogeneous predictor is a stationary point of its margin problem, in the space of its parameters."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.func import functional_call

from ..margins import kkt_residual_least_squares
from .predictors import Predictor

__all__ = ["kkt_residual"]


def kkt_residual(
    predictor: Predictor, x: Tensor, y: Tensor, near: float = 1.05, radius: float = 0.0, copies: int = 256
) -> Tensor:
    r"""Give the relative distance of the parameters from the KKT points of the margin problem.

    Of :math:`\min \frac12\|\theta\|^2` subject to :math:`q_n = y_n f(\theta; x_n) \ge 1` the stationary points have
    :math:`\theta = \sum_n \lambda_n h_n` with :math:`\lambda \ge 0` on the samples of the least margin, and h_n in the
    Clarke subdifferential of q_n, by which `"Gradient Descent Maximizes the Margin of Homogeneous Neural Networks"
    <https://arxiv.org/abs/1906.05890>`_ defines them:

    .. math:: \min_{\lambda \ge 0} \frac{\|\theta - \sum_{n: q_n \le c\,q_{\min}} \lambda_n h_n\|}{\|\theta\|}

    by non-negative least squares; free of scale. Gradient descent brings units of a ReLU network to the kink of a
    sample of least margin, where the gradient jumps between the ends of the subdifferential. With a ``radius``, h_n is
    any mean of gradients at points that near (the Goldstein subdifferential, sampled as in gradient sampling, `Burke,
    Lewis and Overton 2005 <https://doi.org/10.1137/030601296>`_); for smooth predictors that changes h_n by as little.

    Args:
        predictor: Of R runs.
        x: Inputs, (R, N, d).
        y: Labels -1 and 1, (R, N).
        near: c >= 1: which samples count as of the least margin.
        radius: Relative to the norm of the parameters, e.g. 1e-4; 0 for the gradient alone.
        copies: Points within the radius; always the same random directions.

    Returns:
        Residuals in [0, 1], (R,); 1 where a sample is misclassified.
    """
    theta = _flat(predictor.parameters())
    with torch.no_grad():
        margins = predictor(x) * y
    points = theta.unsqueeze(0)
    if radius:
        generator = torch.Generator().manual_seed(0)
        away = torch.randn(copies, *theta.shape, generator=generator, dtype=theta.dtype)
        away *= radius * theta.norm(dim=1, keepdim=True) / away.norm(dim=2, keepdim=True)
        points = torch.cat([points, theta + away])
    gradients = _gradients(predictor, points, x, y)
    return torch.tensor(
        [
            kkt_residual_least_squares(
                theta[run], gradients[:, run].flatten(0, 1), margins[run].repeat(len(points)), near - 1
            )
            if float(margins[run].min()) > 0
            else 1.0
            for run in range(len(x))
        ],
        dtype=torch.float64,
    )


def _flat(parameters: Iterable[Tensor]) -> Tensor:
    """Give the parameters of each run as a vector, (R, P)."""
    return torch.cat([parameter.detach().flatten(1) for parameter in parameters], 1)


def _gradients(predictor: Predictor, points: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Give the gradients of the margins at K vectors of parameters for each run: (K, R, P) to (K, R, N, P)."""
    shapes = {name: parameter.shape for name, parameter in predictor.named_parameters()}
    sizes = [shape[1:].numel() for shape in shapes.values()]
    parts = points.flatten(0, 1).split(sizes, dim=1)
    copies = {
        name: part.unflatten(1, shape[1:]).clone().requires_grad_()
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
    with torch.enable_grad():
        margins = functional_call(predictor, copies, (x.repeat(len(points), 1, 1),)) * y.repeat(len(points), 1)
        gradients = [
            torch.autograd.grad(margins[:, n].sum(), list(copies.values()), retain_graph=True)
            for n in range(margins.shape[1])
        ]
    return torch.stack([_flat(parts) for parts in gradients], 1).unflatten(0, points.shape[:2])
