"""Nudged elastic band: a chain of points that relaxes across, and is kept evenly spaced along, its path."""

import torch
from torch import Tensor

from .landscape import LARGE, Landscape
from .settings import Settings

__all__ = ["elastic_band", "tangents"]


def elastic_band(landscape: Landscape, start: Tensor, end: Tensor, settings: Settings) -> Tensor:
    r"""Relax a chain of points from the straight line to a path of least height.

    The force on an inner point is

    .. math:: F_i = -(\nabla L_i - (\nabla L_i \cdot \tau_i) \tau_i)
        + k (|\theta_{i+1} - \theta_i| - |\theta_i - \theta_{i-1}|) \tau_i

    with the improved tangents of :func:`tangents`; `"Essentially No Barriers in Neural Network Energy Landscape"
    <https://arxiv.org/abs/1803.00885>`_. Adam takes it for a gradient, with a rate that falls to zero as a cosine.

    Args:
        landscape: The loss.
        start: First end, (P,).
        end: Second end, (P,).
        settings: ``images``, ``spring``, ``lr`` and ``max_steps``.

    Returns:
        The chain, (``images``, P), with both ends.
    """
    t = torch.linspace(0, 1, settings.images).to(start)
    chain = torch.lerp(start, end, t[:, None])
    inner = chain[1:-1].clone()
    optimizer = torch.optim.Adam([inner], lr=settings.lr, fused=start.numel() >= LARGE or None)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.max_steps)
    for step in range(settings.max_steps):
        chain = torch.cat([start[None], inner, end[None]])
        values, gradient = landscape.gradient(chain, step)  # of the ends too: on the step's batch they are compared
        gradient = gradient[1:-1]
        tangent = tangents(chain, values)
        lengths = torch.linalg.vector_norm(chain.diff(dim=0), dim=1)
        along = (gradient * tangent).sum(1) + settings.spring * lengths.diff()
        inner.grad = gradient - along[:, None] * tangent
        optimizer.step()
        schedule.step()
    return torch.cat([start[None], inner, end[None]])


def tangents(chain: Tensor, values: Tensor) -> Tensor:
    r"""Give the improved tangents of the inner points of a chain.

    From `Henkelman & Jonsson 2000 <https://doi.org/10.1063/1.1323224>`_: the unit vector to the higher neighbour, and
    at an extremum :math:`\tau^+ \Delta V_{max} + \tau^- \Delta V_{min}` if :math:`V_{i+1} > V_{i-1}`, else with the two
    weights exchanged, made a unit vector.

    Args:
        chain: (K, P).
        values: Value of each point, (K,).

    Returns:
        (K - 2, P).
    """
    steps = chain.diff(dim=0)
    backward, forward = steps[:-1], steps[1:]
    before, here, after = values[:-2], values[1:-1], values[2:]
    rise, fall = (after - here).abs(), (before - here).abs()
    larger, smaller = torch.maximum(rise, fall), torch.minimum(rise, fall)
    extremum = (after > here) == (before > here)
    up = after > before
    weight_forward = torch.where(extremum, torch.where(up, larger, smaller), up.to(values))
    weight_backward = torch.where(extremum, torch.where(up, smaller, larger), (~up).to(values))
    flat = extremum & (larger == 0)
    weight_forward = torch.where(flat, torch.ones_like(larger), weight_forward)
    tangent = weight_forward[:, None] * forward + weight_backward[:, None] * backward
    return torch.nn.functional.normalize(tangent, dim=1)
