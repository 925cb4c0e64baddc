"""Balls of perturbations: their size, the projection onto them, the steepest step and the random start in them."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..noise import sample_normal, sample_uniform

__all__ = ["Norm", "perturbation_norm", "project", "random_perturbation", "steepest_direction"]

Norm = Literal["l2", "linf"]

#: Keeps a vanishing gradient from becoming NaN: 0 / 1e-10 = 0, no move.
_TINY = 1e-10


def per_sample(value: float | Tensor, like: Tensor) -> Tensor:
    """Shape a number, or one number a sample (N,), to be multiplied with samples (N, ...)."""
    value = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value


def perturbation_norm(delta: Tensor, norm: Norm) -> Tensor:
    """Give the norm of each sample over all of its entries: (N, ...) to (N,)."""
    return torch.linalg.vector_norm(delta.flatten(1), ord=2 if norm == "l2" else math.inf, dim=1)


def project(delta: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
    r"""Project perturbations onto the ball of radius eps around zero.

    .. math::
        \ell_2: \delta \min(1, \epsilon / \|\delta\|_2) \qquad \ell_\infty: \min(\max(\delta, -\epsilon), \epsilon)

    Args:
        delta: (N, ...).
        norm: The ball's norm, over all entries of a sample.
        eps: Radius in units of the input, or one a sample (N,); infinity leaves everything as it is.

    Returns:
        The same shape; what is inside is unchanged, up to a rounding for l2.
    """
    eps = per_sample(eps, delta)
    if norm == "linf":
        return torch.maximum(torch.minimum(delta, eps), -eps)
    length = per_sample(perturbation_norm(delta, norm), delta)
    return delta * (eps / length.clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)


def steepest_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """Give the direction of unit norm along which the gradient rises fastest; zero where the gradient is.

    For l2 the gradient over its norm, for linf its sign. Entries that are not finite count as zero, so that a sample
    whose loss overflows stays where it is.
    """
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    if norm == "linf":
        return gradient.sign_()  # in place: it is a copy
    return gradient.div_(per_sample(perturbation_norm(gradient, norm), gradient) + _TINY)


def random_perturbation(
    x: Tensor, norm: Norm, eps: float | Tensor, generators: Sequence[np.random.Generator]
) -> Tensor:
    r"""Draw one perturbation a sample, uniformly from the ball of radius eps.

    For l2 a random direction at the radius :math:`\epsilon u^{1/d}`, u uniform in [0, 1), d entries; for linf uniform
    in the cube.

    Args:
        x: Samples (N, ...), which give shape, precision and device.
        norm: The ball's norm.
        eps: Its radius, finite, or one a sample (N,).
        generators: One a sample.
    """
    shape = x.shape[1:]
    if norm == "linf":
        delta = 2 * sample_uniform(generators, shape) - 1
    else:
        direction = sample_normal(generators, shape)
        radius = sample_uniform(generators, ()) ** (1 / max(1, shape.numel()))
        delta = direction * per_sample(radius / perturbation_norm(direction, norm), direction)
    return delta.to(x) * per_sample(eps, x)
