r"""Potentials of mirror descent: the gradient that maps weights to the dual, and its inverse."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CustomPotential", "Entropy", "Hypentropy", "LpPotential", "Potential", "SimplexEntropy"]


class Potential(ABC):
    r"""A strictly convex :math:`\psi`, given by :math:`\nabla\psi` and its inverse; both keep shape and dtype.

    The last axis is that of the weights; axes before it are independent, which matters only to
    :class:`SimplexEntropy`.
    """

    @abstractmethod
    def gradient(self, weights: Tensor) -> Tensor:
        r"""Give :math:`\nabla\psi(w)`, (..., d)."""

    @abstractmethod
    def inverse(self, dual: Tensor) -> Tensor:
        r"""Give :math:`(\nabla\psi)^{-1}(\theta)`, (..., d)."""

    def check(self, weights: Tensor) -> None:
        """Refuse weights outside of the domain."""
        del weights


class LpPotential(Potential):
    r"""The potential :math:`\psi(w) = \|w\|_p^p / p`; p = 2 makes mirror descent gradient descent.

    Args:
        p: Exponent, > 1.

    Raises:
        ValueError: If ``p`` is not above 1: the gradient then has no inverse.
    """

    def __init__(self, p: float = 2.0) -> None:
        if not 1 < p < float("inf"):
            msg = f"LpPotential(p={p}): p must be above 1 and finite; for the l1 norm take p = 1.1 or Hypentropy."
            raise ValueError(msg)
        self.p = p

    def gradient(self, weights: Tensor) -> Tensor:
        """Give sign(w) |w|^(p - 1)."""
        return weights if self.p == 2 else weights.sign() * weights.abs().pow(self.p - 1)

    def inverse(self, dual: Tensor) -> Tensor:
        """Give sign(theta) |theta|^(1 / (p - 1))."""
        return dual if self.p == 2 else dual.sign() * dual.abs().pow(1 / (self.p - 1))


class Entropy(Potential):
    r"""The negative entropy :math:`\psi(w) = \sum_i w_i \log w_i - w_i` of positive weights."""

    def gradient(self, weights: Tensor) -> Tensor:
        """Give log w."""
        return weights.log()

    def inverse(self, dual: Tensor) -> Tensor:
        """Give exp(theta)."""
        return dual.exp()

    def check(self, weights: Tensor) -> None:
        """Refuse weights that are not positive.

        Raises:
            ValueError: Saying the least weight.
        """
        least = float(weights.min())
        if not least > 0:
            msg = (
                f"{type(self).__name__}: the least initial weight is {least:g}, but all must be > 0 (an entry at 0 "
                "never leaves it); start at e.g. 0.01, or take Hypentropy for weights of both signs."
            )
            raise ValueError(msg)


class SimplexEntropy(Entropy):
    r"""The negative entropy on the simplex :math:`w > 0, \sum_i w_i = 1` of the last axis (multiplicative weights).

    The dual is defined up to a constant, which the inverse, the softmax, removes.
    """

    def inverse(self, dual: Tensor) -> Tensor:
        """Give softmax(theta)."""
        return dual.softmax(-1)

    def check(self, weights: Tensor) -> None:
        """Refuse weights that are not positive or do not sum to one.

        Raises:
            ValueError: Saying the least weight, or the sum.
        """
        super().check(weights)
        error = float((weights.sum(-1) - 1).abs().max())
        if error > 1e-6:
            msg = f"SimplexEntropy: the initial weights miss the sum 1 by {error:g}; start at 1 / d, divide by the sum."
            raise ValueError(msg)


class Hypentropy(Potential):
    r"""The hypentropy :math:`\psi(w) = \sum_i w_i \operatorname{arcsinh}(w_i/b) - \sqrt{w_i^2 + b^2}` (EG+-).

    The entropy for weights of both signs: mirror descent with it is the exponentiated gradient on :math:`w = w^+ - w^-`
    with :math:`w^+ w^- = b^2/4`. From `"Exponentiated Gradient Meets Gradient Descent"
    <https://arxiv.org/abs/1902.01903>`_; with :math:`b = 2\alpha^2` its geometry is that of
    :math:`u^2 - v^2` started at :math:`\alpha` (`Woodworth et al. 2020 <https://arxiv.org/abs/2002.09277>`_).

    Args:
        scale: b > 0, in the unit of the weights: small b behaves like the l1 norm, large b like the l2 norm.

    Raises:
        ValueError: If ``scale`` is not positive.
    """

    def __init__(self, scale: float = 1.0) -> None:
        if not 0 < scale < float("inf"):
            msg = f"Hypentropy(scale={scale}): must be > 0, e.g. 1e-3 for nearly the l1 norm."
            raise ValueError(msg)
        self.scale = scale

    def gradient(self, weights: Tensor) -> Tensor:
        """Give arcsinh(w / b)."""
        return (weights / self.scale).arcsinh()

    def inverse(self, dual: Tensor) -> Tensor:
        """Give b sinh(theta)."""
        return self.scale * dual.sinh()


class CustomPotential(Potential):
    """A potential of one's own, by its gradient and inverse.

    Args:
        gradient: Maps weights to the dual, elementwise or over the last axis.
        inverse: Maps the dual to weights; checked to undo ``gradient``.

    Raises:
        ValueError: If ``inverse(gradient(w))`` is not w at two points in (0, 1).
    """

    def __init__(self, gradient: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor]) -> None:
        self._gradient, self._inverse = gradient, inverse
        probe = torch.tensor([0.3, 0.7], dtype=torch.float64)
        back = inverse(gradient(probe))
        if not torch.allclose(back, probe, rtol=1e-6):
            msg = (
                f"CustomPotential: inverse(gradient(w)) is {back.tolist()} at w = {probe.tolist()}; the two functions "
                "must undo each other."
            )
            raise ValueError(msg)

    def gradient(self, weights: Tensor) -> Tensor:
        """Call the user's gradient."""
        return self._gradient(weights)

    def inverse(self, dual: Tensor) -> Tensor:
        """Call the user's inverse."""
        return self._inverse(dual)
