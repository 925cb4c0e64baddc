"""Attacks along the gradient, with their settings."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from torch import Tensor

from .base import Attack
from .checks import check_radius, check_settings
from .norms import Norm
from .objectives import cross_entropy, logit_gap
from .pgd import Objective, pgd

__all__ = ["FGSM", "PGD"]

AnyPGD = TypeVar("AnyPGD", bound="PGD")

_OBJECTIVES: dict[str, Objective] = {"cross_entropy": cross_entropy, "logit_gap": logit_gap}


class PGD(Attack):
    """Projected gradient ascent with fixed settings; see :func:`pgd` for the method.

    Args:
        norm: Of the ball and the step.
        eps: Radius in units of the input, pixels in [0, 1] for images; infinity for none.
        step_size: Length of a step in the same units; by default 2.5 eps / steps.
        steps: Number of steps, >= 0.
        random_start: Start uniformly within the ball.
        restarts: Number of runs, >= 1; a sample that is fooled is left as it is.
        targeted: Seek the labels given, instead of avoiding them.
        objective: What is raised: ``cross_entropy``, or ``logit_gap`` (the largest other logit minus the label's).
        keep: ``best`` iterate, or ``last``.
        bounds: Smallest and largest value of an input.
        seed: Of the random start, >= 0.
        name: For keys and tables; by default ``l2_0.5``.
        full_precision: Compute in float32 also under autocast; ``False`` makes training in low precision faster.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> import torch
        >>> from theodolite.modules.attacks import PGD
        >>> x, y = torch.full((1, 2), 0.5), torch.tensor([0])
        >>> PGD(norm="linf", eps=0.25, steps=5, random_start=False)(torch.nn.Identity(), x, y)
        tensor([[0.2500, 0.7500]])
    """

    def __init__(
        self,
        norm: Norm = "l2",
        eps: float = 0.5,
        step_size: float | None = None,
        steps: int = 20,
        random_start: bool = True,
        restarts: int = 1,
        targeted: bool = False,
        objective: Literal["cross_entropy", "logit_gap"] = "cross_entropy",
        keep: Literal["best", "last"] = "best",
        bounds: tuple[float, float] = (0.0, 1.0),
        seed: int = 0,
        name: str = "",
        full_precision: bool = True,
    ) -> None:
        super().__init__(norm, eps, name)
        owner = type(self).__name__
        check_settings(owner, norm=norm, steps=steps, restarts=restarts, keep=keep)
        check_radius(owner, eps, step_size, random_start)
        if objective not in _OBJECTIVES:
            msg = f"{owner}(objective={objective!r}): must be one of {', '.join(_OBJECTIVES)}."
            raise ValueError(msg)
        if seed < 0:
            msg = f"{owner}(seed={seed}): must be >= 0."
            raise ValueError(msg)
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        self.restarts = restarts
        self.targeted = targeted
        self.objective: Literal["cross_entropy", "logit_gap"] = objective
        self.keep: Literal["best", "last"] = keep
        self.bounds = bounds
        self.seed = seed
        self.full_precision = full_precision

    def __call__(
        self,
        model_fn: Callable[[Tensor], Any],
        x: Tensor,
        y: Tensor,
        sample_id: Tensor | None = None,
        *,
        objective: Objective | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Give the changed samples; see :class:`Attack`.

        Args:
            model_fn: Maps inputs to logits, or to what the objective takes.
            x: Samples (N, ...) within the bounds.
            y: Labels, int (N,), the target's if targeted; or what the objective takes.
            sample_id: Number of each sample, for a random start that does not depend on the batch.
            objective: Maps the output and y to one number a sample, in place of the objective of the settings.
            mask: 1 where the input may change, 0 elsewhere.
        """
        return pgd(
            model_fn,
            x,
            y,
            norm=self.norm,
            eps=self.eps,
            step_size=self.step_size,
            steps=self.steps,
            random_start=self.random_start,
            restarts=self.restarts,
            targeted=self.targeted,
            objective=objective or _OBJECTIVES[self.objective],
            mask=mask,
            keep=self.keep,
            bounds=tuple(self.bounds),  # pyright: ignore[reportArgumentType]  # YAML gives a list
            seed=self.seed,
            sample_id=sample_id,
            full_precision=self.full_precision,
        )

    def at(self: AnyPGD, eps: float) -> AnyPGD:
        """Give the same attack with another radius, and its step in proportion; as it was, if there was no radius."""
        changed = super().at(eps)
        if self.step_size is not None and math.isfinite(self.eps):
            changed.step_size = self.step_size * (eps / self.eps) if self.eps else None
        check_radius(type(self).__name__, eps, changed.step_size, self.random_start)
        return changed

    def describe(self) -> str:
        """Say how many steps and restarts there are, and what is raised if not the cross-entropy."""
        runs = "" if self.restarts == 1 else f" x {self.restarts} restarts"
        raised = "" if self.objective == "cross_entropy" else f", {self.objective}"
        return f"{type(self).__name__}-{self.steps}{runs}{raised}"


class FGSM(PGD):
    """One step of the length of the radius, along the sign of the gradient (l2: along the gradient).

    From `Goodfellow et al. 2015 <https://arxiv.org/abs/1412.6572>`_. Fast, and weak: to be beaten by :class:`PGD`.

    Args:
        eps: Radius in units of the input, pixels in [0, 1] for images.
        norm: Of the ball and the step.
        targeted: Seek the labels given, instead of avoiding them.
        bounds: Smallest and largest value of an input.
        name: For keys and tables; by default ``fgsm_linf_0.03137``.

    Raises:
        ValueError: If a setting is out of range.
    """

    prefix = "fgsm_"

    def __init__(
        self,
        eps: float = 8 / 255,
        norm: Norm = "linf",
        targeted: bool = False,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str = "",
    ) -> None:
        super().__init__(
            norm, eps, eps, steps=1, random_start=False, targeted=targeted, keep="last", bounds=bounds, name=name
        )

    def describe(self) -> str:
        """There is one step."""
        return "FGSM"
