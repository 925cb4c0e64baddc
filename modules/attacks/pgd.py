"""Projected gradient ascent on the input."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..noise import sample_generators
from .checks import check_input, check_logits, check_radius, check_settings
from .norms import Norm, per_sample, project, random_perturbation, steepest_direction
from .objectives import cross_entropy, fooled

__all__ = ["evaluation_mode", "pgd"]

Objective = Callable[[Any, Tensor], Tensor]


def pgd(
    model_fn: Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm = "l2",
    eps: float | Tensor = 0.5,
    step_size: float | Tensor | None = None,
    steps: int = 20,
    random_start: bool = True,
    restarts: int = 1,
    targeted: bool = False,
    objective: Objective = cross_entropy,
    mask: Tensor | None = None,
    keep: Literal["best", "last"] = "best",
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    sample_id: Tensor | None = None,
    full_precision: bool = True,
) -> Tensor:
    r"""Raise an objective within a ball around each sample, by projected gradient ascent.

    .. math:: x_{t+1} = \mathrm{box}\big(x_0 + \mathrm{ball}(x_t + a\, s(\nabla_x \sum_i L_i) - x_0)\big)

    with s the gradient over its norm of each sample (l2) or its sign (linf). From `Madry et al. 2018
    <https://arxiv.org/abs/1706.06083>`_. Ball first, then box, as all libraries do: both hold afterwards. The
    objective is summed over the batch, so that no sample's result depends on the others.

    The model is called in evaluation mode if it is an ``nn.Module`` (its mode is restored), in full precision also
    under autocast unless told otherwise, and in every gradient mode, inference mode too. Only the input is
    differentiated: no gradient of a parameter is computed or touched. Cost: steps x restarts forward and backward
    passes, and one forward a restart.

    Args:
        model_fn: Maps inputs (N, ...) to logits (N, C), or to whatever the objective takes.
        x: Samples (N, ...) within the bounds, e.g. pixels; normalisation belongs into the model.
        y: Labels, or target labels, int (N,); or what else the objective takes, as floats: then nothing is called
            fooled, and only the objective counts.
        norm: Of the ball and the step, over all entries of a sample.
        eps: Radius of the ball in units of the input, or one a sample (N,); infinity for none.
        step_size: Length of a step in the same units, or one a sample; by default 2.5 eps / steps.
        steps: Number of steps, >= 0.
        random_start: Start uniformly within the ball instead of at x.
        restarts: Number of runs, >= 1. A sample that is fooled is left as it is; of runs that fail, the one of the
            largest objective is kept. Without a random start all but the first repeat it.
        targeted: Lower the objective of the labels y, instead of raising it. Any objective is minimised that way.
        objective: Maps the model's output and y to one number a sample (N,).
        mask: 1 where the input may change, 0 elsewhere; broadcast to x.
        keep: ``best``: of all iterates, one that fools, and among such the one of the largest objective (smallest if
            targeted); ``last``: the last iterate.
        bounds: Smallest and largest value of an input.
        seed: Of the random start, >= 0.
        sample_id: Number of each sample, int (N,): the start is a function of (seed, number, restart), whatever the
            batch. ``None`` draws numbers from torch's global generator.
        full_precision: Compute in float32 also under autocast; ``False`` follows the caller's autocast: faster, and
            weaker, so for training only. The iterates are float32 in either case.

    Returns:
        The changed samples, detached, of the shape and precision of x.

    Raises:
        ValueError: If a setting is out of range, x is outside of the bounds, the logits' shape does not fit the
            labels, or a label is out of range.
        RuntimeError: If the objective does not depend on x.
    """
    check_settings("pgd", norm=norm, steps=steps, restarts=restarts, keep=keep)
    check_radius("pgd", eps, step_size, random_start)
    check_input(x, y, bounds)
    if step_size is None:
        step_size = 2.5 * eps / max(1, steps)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_precision(x.device.type, full_precision))
        stack.enter_context(evaluation_mode(model_fn))
        # clones: what inference mode made cannot be saved for a backward pass
        origin, y = x.detach().clone(), y.detach().clone()
        origin = origin if origin.dtype == torch.float64 else origin.float()
        allowed = None if mask is None else mask.detach().clone().to(origin).expand_as(origin)
        if sample_id is None:
            sample_id = torch.randint(2**62, (len(x),)) if random_start else torch.arange(len(x))
        value_of = _Evaluation(model_fn, objective, targeted, x.dtype)
        best: _Iterates | None = None
        for restart in range(restarts):
            left = torch.arange(len(x)) if best is None else (~best.fooled).nonzero()[:, 0]
            if not len(left):
                break
            radius, step, free = (_select(part, left) for part in (eps, step_size, allowed))
            climb = _Climb(value_of, origin[left], y[left], norm, radius, step, free, bounds)
            start = None
            if random_start:
                generators = sample_generators(seed, sample_id[left.to(sample_id.device)].tolist(), restart)
                start = random_perturbation(origin[left], norm, radius, generators)
            found = climb.run(start, steps, keep, last=restarts > 1)
            if best is None:
                best = found
            else:
                before = _Iterates(best.x[left], best.value[left], best.fooled[left])
                best.replace(left, before.or_better(found))
        return origin.to(x.dtype) if best is None else best.x.to(x.dtype)  # none of an empty batch


@dataclass
class _Iterates:
    """The iterate kept of each sample, its objective (-inf: none yet), and whether it fools."""

    x: Tensor
    value: Tensor
    fooled: Tensor

    def or_better(self, other: "_Iterates") -> "_Iterates":
        """Take of each sample the other's iterate if it is better; a success is never given up."""
        better = (other.fooled & ~self.fooled) | ((other.fooled == self.fooled) & (other.value > self.value))
        x = torch.where(per_sample(better, self.x).bool(), other.x, self.x)
        return _Iterates(x, torch.where(better, other.value, self.value), self.fooled | other.fooled)

    def replace(self, where: Tensor, part: "_Iterates") -> None:
        """Put in the iterates of the samples ``where`` (their numbers)."""
        self.x[where], self.value[where], self.fooled[where] = part.x, part.value, part.fooled


@dataclass
class _Evaluation:
    """The objective to be raised, and who is fooled."""

    model_fn: Callable[[Tensor], Any]
    objective: Objective
    targeted: bool
    dtype: torch.dtype
    checked: bool = False

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Give the value of each sample, differentiable, and whether it is fooled: (N,) and bool (N,)."""
        output = self.model_fn(x.to(self.dtype))
        is_label = not y.is_floating_point()
        if is_label and not self.checked:
            check_logits(output, y)
            self.checked = True  # once: looking at labels makes a GPU wait
        value = self.objective(output, y)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            shape = tuple(getattr(value, "shape", ()))
            msg = f"pgd: the objective gave the shape {shape}, but must give one number a sample, ({len(x)},)."
            raise ValueError(msg)
        success = fooled(output.detach(), y, self.targeted) if is_label else torch.zeros_like(value, dtype=torch.bool)
        return -value if self.targeted else value, success


@dataclass
class _Climb:
    """One run of projected gradient ascent."""

    evaluate: _Evaluation
    origin: Tensor
    y: Tensor
    norm: Norm
    eps: float | Tensor
    step_size: float | Tensor
    mask: Tensor | None
    bounds: tuple[float, float]

    def run(self, start: Tensor | None, steps: int, keep: str, last: bool) -> _Iterates:
        """Climb from origin + start; ``last`` asks for the value of the last iterate too if only that is kept."""
        x = self.origin if start is None else self._within(start)
        nothing = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        best = _Iterates(x, nothing, torch.zeros_like(nothing, dtype=torch.bool))
        step = per_sample(self.step_size, x)
        for _ in range(steps):
            leaf = x.detach().requires_grad_()
            value, success = self.evaluate(leaf, self.y)
            gradient = _input_gradient(value, leaf)
            with torch.no_grad():
                if keep == "best":
                    best = best.or_better(_Iterates(x, value.detach().to(x.dtype), success))
                if self.mask is not None:
                    gradient = gradient * self.mask
                move = steepest_direction(gradient, self.norm)
                x = self._within(move.mul_(step).add_(x).sub_(self.origin))  # in place: it is ours
        if keep == "last" and not last:
            best.x = x
            return best
        with torch.no_grad():
            value, success = self.evaluate(x, self.y)
            final = _Iterates(x, value.to(x.dtype), success)
        if keep == "last":
            return final
        return best.or_better(final)

    def _within(self, delta: Tensor) -> Tensor:
        """Give origin + delta, projected onto the ball, then the box."""
        if self.mask is not None:
            delta = delta * self.mask
        return project(delta, self.norm, self.eps).add_(self.origin).clamp_(*self.bounds)


def _precision(device: str, full: bool) -> torch.autocast:
    """Switch autocast off, or leave it as it is.

    It keeps no copies of the weights: one made here without a gradient would be used by the training step that follows,
    whose weights then had none.
    """
    enabled = not full and torch.is_autocast_enabled(device)
    return torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled, cache_enabled=False)


@contextmanager
def evaluation_mode(model_fn: Any) -> Iterator[None]:
    """Put a module, and all in it, into evaluation mode, and each back as it was; other callables are left alone."""
    training = [m for m in model_fn.modules() if m.training] if isinstance(model_fn, nn.Module) else []
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _input_gradient(value: Tensor, x: Tensor) -> Tensor:
    """Differentiate the sum of the values by the input alone."""
    if not value.requires_grad:
        msg = "pgd: the objective does not depend on the input; is the model wrapped in no_grad or detached?"
        raise RuntimeError(msg)
    return torch.autograd.grad(value.sum(), x)[0]


def _select(value: Any, index: Any) -> Any:
    """Pick samples of what has one entry a sample; a number is the same for all."""
    return value[index] if isinstance(value, Tensor) and value.ndim else value
