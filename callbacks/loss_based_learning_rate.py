"""A learning rate that grows as the loss falls, and an epoch that raised the loss is taken back."""

import copy
import math
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm

__all__ = ["LossBasedLearningRate"]


class LossBasedLearningRate(Callback):
    r"""Divide the learning rate by the training loss, and adapt the quotient epoch by epoch.

    .. math:: \eta = \alpha\, \mathcal L_0 / \mathcal L, \qquad
        \alpha \leftarrow \alpha \cdot \text{up} \text{ if the epoch lowered } \mathcal L,
        \text{ else } \alpha / \text{down}

    From `Lyu and Li 2020 <https://arxiv.org/abs/1906.05890>`_, who train by loss-based learning rates: with a constant
    rate an exponential-tailed loss falls like 1/t, with this one exponentially, so that the regime of their theorem is
    reached. L0 is the loss of the first batch. An epoch that raised the loss is run again from the weights and the
    optimizer's state before it (it still counts as an epoch, with the next one's order of the samples). Beyond the
    paper, weights that within an epoch move farther than their own norm are put back at once, alpha is lowered, and
    the rest of the epoch is the second run.

    alpha starts as the optimizer's own rate. The loss is that of the whole training set, measured in the validation of
    every epoch, by its natural logarithm: :class:`~theodolite.callbacks.Margins` logs ``val/log_loss``, to the last
    digit where the loss itself underflows, of the samples that the datamodule validates on. Those must be the training
    samples: selecting steps by held-out samples would be another method. One optimizer; the same on any number of
    ranks. Logs ``train/rate`` (eta) and ``train/rejected_epochs``.

    Args:
        monitor: Key of the logarithm of the training loss.
        up: Factor on alpha after an epoch that lowered the loss, >= 1; by default 2^(1/5), as published.
        down: Divisor of alpha after one that did not, > 1; by default 2^(1/10), as published.
        stop_log_loss: Stop training when the logarithm is at most this; -23.0259 is a loss of 1e-10. ``None`` to go
            on.

    Raises:
        ValueError: If a factor is out of range, or the training begins without a validation that logs ``monitor``.
    """

    def __init__(
        self,
        monitor: str = "val/log_loss",
        up: float = 2 ** (1 / 5),
        down: float = 2 ** (1 / 10),
        stop_log_loss: float | None = None,
    ) -> None:
        if not (1 <= up < math.inf and 1 < down < math.inf):
            msg = f"LossBasedLearningRate(up={up:g}, down={down:g}): needs up >= 1 and down > 1, e.g. 1.149 and 1.072."
            raise ValueError(msg)
        self.monitor = monitor
        self.up = up
        self.down = down
        self.stop_log_loss = stop_log_loss
        self._alpha: float | None = None
        self._first: float | None = None
        self._best: float | None = None
        self._rejected = 0
        self._before: dict[str, Tensor] = {}
        self._optimizer_before: dict[str, Any] = {}
        self._norm = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs; a checkpoint is written after a rejected epoch was taken back."""
        return {"alpha": self._alpha, "first": self._first, "best": self._best, "rejected": self._rejected}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run was stopped."""
        self._alpha, self._first = state_dict["alpha"], state_dict["first"]
        self._best, self._rejected = state_dict["best"], state_dict["rejected"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the optimizer's own rate as the first alpha.

        Raises:
            ValueError: If there is no validation to measure the loss in, or not one optimizer.
        """
        del pl_module
        if not trainer.enable_validation or trainer.check_val_every_n_epoch != 1 or len(trainer.optimizers) != 1:
            msg = (
                "LossBasedLearningRate needs one optimizer, and a validation on the training samples in every epoch "
                f"that logs {self.monitor!r}, e.g. by Margins() and a datamodule with validate_on='train'."
            )
            raise ValueError(msg)
        if self._alpha is None:
            self._alpha = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights and the optimizer's state, and set the rate."""
        self._before = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
        self._optimizer_before = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
        self._norm = float(get_total_norm([parameter.detach() for parameter in pl_module.parameters()]))
        self._set_rate(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the loss of the first batch as the first loss, and put back weights that have left for good."""
        del batch, batch_idx
        if self._first is None:
            loss = outputs["loss"].detach().double().clone()
            self._first = math.log(float(trainer.strategy.reduce(loss, reduce_op="mean")))  # pyright: ignore[reportArgumentType]
            self._best = self._first
        moved = [value.detach() - self._before[name] for name, value in pl_module.named_parameters()]
        if not float(get_total_norm(moved)) <= self._norm:  # NaN too
            self._reject(trainer, pl_module)
            self._set_rate(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the loss with the one before the epoch, and adapt alpha.

        Raises:
            ValueError: If the validation did not log the loss.
        """
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert self._alpha is not None
        assert self._best is not None
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            logged = ", ".join(sorted(trainer.callback_metrics))
            msg = (
                f"LossBasedLearningRate(monitor={self.monitor!r}): the validation logs only {logged}; name the "
                "logarithm of the training loss, or add the callback Margins, which logs val/log_loss."
            )
            raise ValueError(msg)
        if not float(value) < self._best:  # NaN too
            self._reject(trainer, pl_module)
            return
        self._best = float(value)
        self._alpha *= self.up
        if self.stop_log_loss is not None and self._best <= self.stop_log_loss:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rate of the epoch, and how many epochs were taken back so far."""
        values = {
            "train/rate": trainer.optimizers[0].param_groups[0]["lr"],
            "train/rejected_epochs": float(self._rejected),
        }
        pl_module.log_dict(values, sync_dist=True, batch_size=1)

    def _reject(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._alpha is not None
        pl_module.load_state_dict(self._before)
        optimizer = trainer.optimizers[0]
        optimizer.load_state_dict({**optimizer.state_dict(), "state": copy.deepcopy(self._optimizer_before)})
        self._alpha /= self.down
        self._rejected += 1

    def _set_rate(self, trainer: Trainer) -> None:
        assert self._alpha is not None
        growth = 0.0 if self._first is None or self._best is None else self._first - self._best
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._alpha * math.exp(growth)
