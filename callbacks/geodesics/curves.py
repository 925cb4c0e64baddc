"""Curve finding: the quadratic Bezier curve of least mean loss between two points."""

import torch
from torch import Tensor

from .landscape import LARGE, Landscape
from .settings import Settings

__all__ = ["bezier"]


def bezier(landscape: Landscape, start: Tensor, end: Tensor, settings: Settings) -> Tensor:
    r"""Minimise the mean loss along a quadratic Bezier curve, over its one free control point.

    .. math:: \phi(t) = (1-t)^2 A + 2 t (1-t)\, \theta + t^2 B, \qquad
        \min_\theta\ \mathrm{E}_{t \sim U(0,1)}\, L(\phi(t))

    From `"Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs" <https://arxiv.org/abs/1802.10026>`_. One t a
    step, so a step costs one forward and one backward pass. The t are the golden-ratio sequence: uniform, and the same
    on every machine.

    Args:
        landscape: The loss.
        start: A, (P,).
        end: B, (P,).
        settings: ``lr``, ``max_steps`` and ``images``.

    Returns:
        Corners of a polyline along the curve, (``images``, P), with both ends.
    """
    control = torch.lerp(start, end, 0.5)
    optimizer = torch.optim.Adam([control], lr=settings.lr, fused=start.numel() >= LARGE or None)
    for step in range(settings.max_steps):
        control.grad = control_gradient(landscape, start, control, end, step)
        optimizer.step()
    beads = _curve(start, control, end, torch.linspace(0, 1, settings.images).to(start))
    beads[0], beads[-1] = start, end
    return beads


def control_gradient(landscape: Landscape, start: Tensor, control: Tensor, end: Tensor, step: int) -> Tensor:
    r"""Give the gradient of :math:`L(\phi(t))` at the t of a step with respect to the control point, (P,)."""
    t = (0.5 + step * 0.6180339887498949) % 1
    _, gradient = landscape.gradient(_curve(start, control, end, torch.tensor([t]).to(start)), step)
    return 2 * t * (1 - t) * gradient[0]


def _curve(start: Tensor, control: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Give the points of the curve at places t (n,), as (n, P)."""
    t = t[:, None]
    return ((1 - t) ** 2 * start).addcmul_(2 * t * (1 - t), control).addcmul_(t**2, end)
