"""Does an attack fail because the model is robust, or because its gradients are masked?"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..noise import sample_generators
from .gradient import FGSM, PGD
from .norms import perturbation_norm, random_perturbation
from .objectives import cross_entropy
from .pgd import evaluation_mode

__all__ = ["CHECKS", "MaskedGradientsWarning", "masking_checks", "masking_warnings"]

#: What each column of the checks says of a sample: that it stands against a change of the attack, or has no gradient.
CHECKS: tuple[str, ...] = (
    "attack",
    "one step",
    "5 x the steps",
    "logit gap",
    "whole box",
    "random noise",
    "no gradient",
)

_NOISES = 10
_KEY_OF_NOISE = 2**31


class MaskedGradientsWarning(UserWarning):
    """A robust accuracy may be too high, because the attack is too weak or the model hides its gradients."""


def masking_checks(model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor, attack: PGD, sample_id: Tensor) -> Tensor:
    """Attack samples in ways that a model without masked gradients stands no better than ``attack``.

    From `Carlini et al. 2019 <https://arxiv.org/abs/1902.06705>`_. Cost: about fourteen times the attack.

    Args:
        model_fn: Maps inputs (N, ...) to logits (N, C).
        x: Samples (N, ...) within the attack's finite bounds that the model classifies right.
        y: Their labels, int (N,).
        attack: The attack that is examined.
        sample_id: Number of each sample, int (N,).

    Returns:
        bool (N, 7), a column for each of :data:`CHECKS`.
    """
    low, high = attack.bounds
    size = (high - low) * (math.sqrt(x[0].numel()) if attack.norm == "l2" else 1.0)
    shared: Any = {"norm": attack.norm, "eps": attack.eps, "bounds": attack.bounds, "seed": attack.seed}
    longer = PGD(steps=5 * attack.steps, restarts=2, objective=attack.objective, **shared)
    gap = PGD(steps=attack.steps, objective="logit_gap", **shared)
    box = PGD(attack.norm, size, steps=max(40, attack.steps), objective=attack.objective, bounds=attack.bounds)

    def stands(changed: Tensor) -> Tensor:
        with torch.no_grad(), evaluation_mode(model_fn):
            return model_fn(changed).argmax(1) == y

    columns = [
        stands(each(model_fn, x, y, sample_id))
        for each in (attack, FGSM(attack.eps, attack.norm, bounds=attack.bounds), longer, gap, box)
    ]
    noise = torch.ones_like(columns[0])
    for draw in range(_NOISES):
        generators = sample_generators(attack.seed, sample_id.tolist(), _KEY_OF_NOISE + draw)
        noise &= stands((x + random_perturbation(x, attack.norm, attack.eps, generators)).clamp(low, high))
    return torch.stack([*columns, noise, _flat(model_fn, x, y)], dim=1)


def _flat(model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> Tensor:
    """Say where the gradient of the cross-entropy is zero or not finite: bool (N,)."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(x.device.type, enabled=False),
        evaluation_mode(model_fn),
    ):
        leaf = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model_fn(leaf).float(), y.clone()).sum(), leaf)
        length = perturbation_norm(gradient.float(), "linf")
    return (length == 0) | ~length.isfinite()


def masking_warnings(checks: Tensor, name: str) -> list[str]:
    """Say in plain words which checks an attack fails.

    Args:
        checks: Rows of :func:`masking_checks`, (N, 7), of all samples.
        name: Name of the attack.

    Returns:
        One line for each failed check, with what to do.
    """
    number = len(checks)
    if not number:
        return []
    standing = dict(zip(CHECKS, checks.double().sum(0).int().tolist(), strict=True))
    attack = standing["attack"]
    head = f"The robust accuracy under {name} may be too high: of {number} samples that were checked, "
    found = []

    def compare(check: str, tolerance: float, change: str, remedy: str) -> None:
        if attack - standing[check] > tolerance:
            found.append(f"{head}{attack} stand against it, but only {standing[check]} against {change}; {remedy}")

    advice = "gradients may be masked: measure AutoAttack too."
    compare("one step", 0, "a single step of FGSM", advice)
    compare("5 x the steps", max(1, 0.02 * number), "five times the steps and two restarts", "give it more steps.")
    compare("logit gap", max(1, 0.05 * number), "the gap of logits as objective", "set objective: logit_gap.")
    surprised = int((checks[:, 0].bool() & ~checks[:, CHECKS.index("random noise")].bool()).sum())
    if surprised > 0.02 * number:
        found.append(f"{head}{surprised} stand against it that random noise of the same norm fools; {advice}")
    if standing["whole box"]:
        found.append(f"{head}{standing['whole box']} stand even where every image is allowed; {advice}")
    if standing["no gradient"] > 0.1 * number:
        found.append(
            f"{head}{standing['no gradient']} have a gradient of exactly zero (or not finite), so that it cannot move; "
            "set objective: logit_gap, and look for saturated outputs or quantised inputs."
        )
    return found
