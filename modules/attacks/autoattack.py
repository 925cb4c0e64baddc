"""AutoAttack, by pyautoattack."""

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from .base import Attack
from .checks import check_input, check_logits, check_settings
from .norms import Norm
from .pgd import evaluation_mode

__all__ = ["AutoAttack"]

Part = Literal["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]

_STANDARD: tuple[Part, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
#: The targeted attack on differences of logits ratios needs four classes.
_FEW_CLASSES: tuple[Part, ...] = ("apgd-ce", "fab", "square")
#: They divide by the difference of the largest logit and the third, or the mean of third and fourth.
_LEAST_CLASSES: dict[str, int] = {"apgd-dlr": 3, "apgd-t": 4}


class AutoAttack(Attack):
    """A committee of attacks without settings to tune, each run on the samples that those before it left standing.

    From `Croce and Hein 2020 <https://arxiv.org/abs/2003.01690>`_, by pyautoattack (``pip install theodolite[eval]``),
    with the published settings: one restart, 100 steps, nine target classes or all others, 5000 queries of the square
    attack. Samples that no attack fools are given back unchanged. It is seeded by batch, so single samples may depend
    on the batch they come in. Its warnings (zero gradients, probabilities instead of logits, a randomised model) go
    to the logger ``auto-attack``.

    Cost: for a sample that stands, up to 1,900 forward and backward passes and 5,000 forward passes.

    Args:
        norm: Of the ball.
        eps: Its radius in pixels of [0, 1].
        attacks: Which attacks, in order: ``apgd-ce``, ``apgd-dlr``, ``fab``, ``square``, ``apgd-t``, ``fab-t``; by
            default the standard four, for fewer than four classes ``apgd-ce``, ``fab`` and ``square``.
        seed: Of its random choices, >= 0.
        name: For keys and tables; by default ``autoattack_l2_0.5``.

    Raises:
        ModuleNotFoundError: If pyautoattack is not installed.
        ValueError: If a setting is out of range, or on attacking, if the model has too few classes for an attack.
    """

    prefix = "autoattack_"

    def __init__(
        self, norm: Norm = "l2", eps: float = 0.5, attacks: list[Part] | None = None, seed: int = 0, name: str = ""
    ) -> None:
        super().__init__(norm, eps, name)
        check_settings("AutoAttack", norm=norm, steps=1, restarts=1, keep="best")
        known = (*_STANDARD, "apgd-dlr", "fab")
        unknown = [attack for attack in attacks or () if attack not in known]
        if unknown or attacks == []:
            msg = f"AutoAttack(attacks={attacks}): name one or more of {', '.join(known)}."
            raise ValueError(msg)
        if seed < 0:
            msg = f"AutoAttack(seed={seed}): must be >= 0."
            raise ValueError(msg)
        if importlib.util.find_spec("pyautoattack") is None:
            msg = "AutoAttack needs the package pyautoattack: pip install 'theodolite[eval]'."
            raise ModuleNotFoundError(msg)
        self.attacks = attacks
        self.seed = seed

    def __call__(
        self, model_fn: Callable[[Tensor], Any], x: Tensor, y: Tensor, sample_id: Tensor | None = None
    ) -> Tensor:
        """Give the changed samples; see :class:`Attack`."""
        del sample_id
        check_input(x, y, (0.0, 1.0))
        trace = sys.gettrace()  # a check of the library switches debuggers and coverage off
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast(x.device.type, enabled=False),
            evaluation_mode(model_fn),
            isolate_rng(),
            _fixed(model_fn),
        ):
            images, labels = x.detach().clone().float(), y.detach().clone()

            def logits_of(images: Tensor) -> Tensor:
                logits = model_fn(images.to(x.dtype))
                check_logits(logits, labels[:1].expand(len(images)))
                return logits.float()

            try:
                with torch.no_grad():
                    num_classes = logits_of(images[:1]).shape[1] if len(images) else 0
                if not num_classes:
                    return images.to(x.dtype)
                library = self._library(logits_of, num_classes, x.device)
                changed, _ = library.run_standard_evaluation(images, labels, batch_size=len(images))
            finally:
                sys.settrace(trace)
        return changed.detach().to(x.dtype)

    def _library(self, logits_of: Callable[[Tensor], Tensor], num_classes: int, device: torch.device) -> Any:
        """Configure pyautoattack for the number of classes."""
        import pyautoattack

        parts: Sequence[Part] = self.attacks or (_STANDARD if num_classes >= 4 else _FEW_CLASSES)
        self._check_classes(parts, num_classes)
        library = pyautoattack.AutoAttack(
            logits_of,  # pyright: ignore[reportArgumentType]  # any callable will do
            attacks=list(parts),
            device=device,
            eps=self.eps,
            norm="Linf" if self.norm == "linf" else "L2",
            seed=self.seed,
            version="custom",
        )
        library.verbose = False
        library.apgd.n_restarts = library.fab.n_restarts = 1  # the custom version takes five
        library.apgd_targeted.n_target_classes = library.fab.n_target_classes = min(9, num_classes - 1)
        return library

    def _check_classes(self, parts: Sequence[Part], num_classes: int) -> None:
        short = [part for part in parts if num_classes < _LEAST_CLASSES.get(part, 2)]
        if short:
            msg = (
                f"AutoAttack(attacks={list(parts)}): the model has {num_classes} classes, and {short[0]} needs "
                f"{_LEAST_CLASSES[short[0]]} or more; choose from {', '.join(_FEW_CLASSES)}, fab-t."
            )
            raise ValueError(msg)

    def describe(self) -> str:
        """Name the attacks if they were chosen."""
        return "AutoAttack" if self.attacks is None else " + ".join(self.attacks)


@contextmanager
def _fixed(model_fn: Callable[[Tensor], Any]) -> Iterator[None]:
    """Let a model's parameters need no gradient: the library calls ``backward``, which would add to those they have."""
    trained = [p for p in model_fn.parameters() if p.requires_grad] if isinstance(model_fn, nn.Module) else []
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
