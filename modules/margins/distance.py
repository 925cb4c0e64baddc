"""How far a sample is from the decision boundary, in units of the input."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..attacks import PGD, Norm, evaluation_mode, perturbation_norm
from .output import output_margin

__all__ = ["boundary_distance", "first_order_margin"]


def first_order_margin(model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    r"""Give :math:`m(x) / \|\nabla_x m(x)\|_q`, the distance to the boundary of the model linearised at x.

    q is dual to the norm of the distance: l2 for l2, l1 for linf. Exact for a linear model; otherwise neither an upper
    nor a lower bound. Negative where misclassified, infinite where the margin does not depend on the input. In units
    of the input: pixels, if these are in [0, 1]. Cost: one forward and one backward pass.

    Args:
        model_fn: Maps inputs (N, ...) to logits; a module is called in evaluation mode, which makes samples
            independent of each other.
        x: Samples (N, ...).
        y: Labels (N,).
        norm: Of the distance.

    Returns:
        Distances (N,).
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluation_mode(model_fn):
        leaf = x.detach().clone().requires_grad_()
        margin = output_margin(model_fn(leaf), y.detach().clone())
        slope = torch.autograd.grad(margin.sum(), leaf)[0].flatten(1)
    length = torch.linalg.vector_norm(slope, ord=2 if norm == "l2" else 1, dim=1)
    return margin.detach() / length  # 0/0 is NaN only for a margin of exactly zero with no slope


def boundary_distance(
    model_fn: Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    attack: PGD,
    steps: int = 10,
    sample_id: Tensor | None = None,
) -> Tensor:
    r"""Give the distance to the nearest misclassified input that an attack finds, by bisection of its radius.

    An **upper bound** of the distance to the boundary: a stronger attack may find a nearer input. Every value is
    attained by an input that was seen to be misclassified, inside the attack's bounds. Starting from the attack's own
    radius, the interval between the largest radius that failed and the nearest input found is halved ``steps`` times
    for every sample.

    Args:
        model_fn: Maps inputs (N, ...) to logits (N, C).
        x: Samples (N, ...) within the attack's bounds.
        y: Labels (N,).
        attack: Its norm is that of the distance, its radius the largest distance looked at.
        steps: Number of bisections, >= 0; each costs one attack.
        sample_id: Number of each sample, for a random start that does not depend on the batch.

    Returns:
        Distances (N,) in the attack's norm and in units of the input, pixels in [0, 1] for images; 0 where
        misclassified already, infinity where nothing was found within the attack's radius.

    Raises:
        ValueError: If the attack is targeted or its radius is infinite.
    """
    if attack.targeted or not 0 < attack.eps < float("inf"):
        msg = (
            f"boundary_distance: the attack (eps={attack.eps:g}, targeted={attack.targeted}) must be untargeted with a "
            "finite radius > 0, the largest distance to look at."
        )
        raise ValueError(msg)
    low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    found = torch.full_like(low, torch.inf)
    found[_misclassified(model_fn, x, y)] = 0.0
    radius = torch.full_like(low, attack.eps)
    for _ in range(steps + 1):
        todo = (found > 0) & ((found < torch.inf) | (low < attack.eps))
        if not bool(todo.any()):
            break
        numbers = None if sample_id is None else sample_id[todo]
        nearer = attack.at(attack.eps)  # a copy
        nearer.eps = radius[todo]  # pyright: ignore[reportAttributeAccessIssue]  # one radius a sample
        moved = nearer(model_fn, x[todo], y[todo], numbers)
        success = _misclassified(model_fn, moved, y[todo])
        size = perturbation_norm((moved - x[todo]).double(), attack.norm)
        found[todo] = torch.where(success, torch.minimum(size, found[todo]), found[todo])
        low[todo] = torch.where(success, low[todo], radius[todo])
        radius = torch.where(found < torch.inf, (low + found) / 2, radius)
    return found


def _misclassified(model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> Tensor:
    """Say which samples are not given their label, as the attacks do: a tie goes to the class of the lower number."""
    with torch.no_grad(), evaluation_mode(model_fn):
        return model_fn(x).argmax(1) != y
