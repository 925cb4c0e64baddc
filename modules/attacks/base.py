"""What training, data sets and callbacks know of an attack."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from .checks import check_radius
from .norms import Norm

__all__ = ["Attack"]

AnAttack = TypeVar("AnAttack", bound="Attack")


class Attack(ABC):
    """Change samples within a ball so that a model errs.

    Args:
        norm: Of the ball, over all entries of a sample.
        eps: Its radius in units of the input, pixels in [0, 1] for images; infinity for none.
        name: For keys and tables; by default made of norm and radius, ``l2_0.5``.

    Raises:
        ValueError: If ``eps`` is negative.
    """

    #: Put before the default name.
    prefix = ""

    def __init__(self, norm: Norm, eps: float, name: str = "") -> None:
        check_radius(type(self).__name__, eps, 0.0, False)
        self.norm: Norm = norm
        self.eps = eps
        self._name = name

    @abstractmethod
    def __call__(
        self, model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor, sample_id: Tensor | None = None
    ) -> Tensor:
        """Give the changed samples.

        Args:
            model_fn: Maps inputs (N, ...) to logits (N, C).
            x: Samples (N, ...) in [0, 1].
            y: Labels, int (N,).
            sample_id: Number of each sample, int (N,); makes random choices independent of the batch.

        Returns:
            Samples (N, ...) in [0, 1], at most eps away from x.
        """

    @property
    def name(self) -> str:
        """Name of the attack, for keys and tables: ``l2_0.5``."""
        return self._name or f"{self.prefix}{self.norm}_{self.eps:.4g}"

    def at(self: AnAttack, eps: float) -> AnAttack:
        """Give the same attack with another radius."""
        check_radius(type(self).__name__, eps, 0.0, False)
        changed = copy.copy(self)
        changed.eps = eps
        changed._name = self._name and f"{self._name}_{eps:.4g}"
        return changed

    def describe(self) -> str:
        """Say in a few words how the attack is made, for tables."""
        return type(self).__name__
