"""Optimizers that torch has in parts only."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon"]


class Muon(torch.optim.Optimizer):
    r"""Muon on the weight matrices and Adam on all other parameters, as one optimizer with one learning rate.

    Muon (`Jordan et al. 2024 <https://kellerjordan.github.io/posts/muon>`_) takes as its step the orthogonal factor of
    the momentum of a matrix's gradient. It is scaled by :math:`0.2 \sqrt{\max(r, c)}` for r x c matrices
    (`Liu et al. 2025 <https://arxiv.org/abs/2502.16982>`_), the size of an Adam step, so that the rate fits both. Both
    are torch's own; torch's Muon refuses what is not a matrix, which this class adds.

    Args:
        params: Parameters; the matrices with at least two rows and columns go to Muon.
        lr: Learning rate, > 0.
        momentum: Of Muon, in [0, 1).
        betas: Of Adam.
        weight_decay: Decoupled weight decay of the matrices, >= 0.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        if not 0 < lr < float("inf"):
            msg = f"Muon(lr={lr}): the learning rate must be positive, e.g. 0.01."
            raise ValueError(msg)
        if not 0 <= momentum < 1:
            msg = f"Muon(momentum={momentum}): must be in [0, 1), e.g. 0.95."
            raise ValueError(msg)
        params = list(params)
        matrices = [p for p in params if p.ndim == 2 and min(p.shape) > 1]
        taken = {id(p) for p in matrices}
        others = [p for p in params if id(p) not in taken]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        if others or not matrices:
            self._parts.append(torch.optim.Adam(others, lr=lr, betas=betas))
        super().__init__([part.param_groups[0] for part in self._parts], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; ``closure`` reevaluates the model and gives the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, group in zip(self._parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state  # loading a state replaces both
            part.step()
        return loss
