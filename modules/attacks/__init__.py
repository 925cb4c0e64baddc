"""Attacks on the input: what an adversary can do within a ball around a sample."""

from .autoattack import AutoAttack
from .base import Attack
from .gradient import FGSM, PGD
from .masking import CHECKS, MaskedGradientsWarning, masking_checks, masking_warnings
from .norms import Norm, perturbation_norm, project
from .objectives import cross_entropy, fooled, logit_gap
from .pgd import evaluation_mode, pgd

__all__ = [
    "CHECKS",
    "FGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "MaskedGradientsWarning",
    "Norm",
    "cross_entropy",
    "evaluation_mode",
    "fooled",
    "logit_gap",
    "masking_checks",
    "masking_warnings",
    "perturbation_norm",
    "pgd",
    "project",
]
