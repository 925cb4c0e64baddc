"""Stop a training run whose loss is no longer a number, before it spoils the weights."""

from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

__all__ = ["FiniteLoss", "NonFiniteLossError"]


class NonFiniteLossError(ArithmeticError):
    """The training loss became NaN or infinite."""


class FiniteLoss(Callback):
    """Raise an error when the training loss is NaN or infinite, before its gradient reaches the weights.

    The loss is looked at before the backward pass, so the weights are those of the step before and every checkpoint
    written so far is good. Costs one comparison a step; on several ranks one scalar reduction more, so that all of them
    stop together.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss.

        Raises:
            NonFiniteLossError: Naming the step, the epoch, the last good checkpoint, and what to try.
        """
        del pl_module
        finite = own = bool(torch.isfinite(loss.detach()).all())
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce_boolean_decision(own, all=True)
        if finite:
            return
        what = "of another rank is not finite" if own else f"is {float(loss.detach()):g}"
        msg = (
            f"the training loss {what} at step {trainer.global_step}, epoch {trainer.current_epoch}; the weights were "
            f"not updated. {_last_good(trainer)} Try a smaller learning rate or --trainer.gradient_clip_val 1, or find "
            "the operation by --trainer.detect_anomaly true."
        )
        raise NonFiniteLossError(msg)


def _last_good(trainer: Trainer) -> str:
    paths = [
        Path(path)
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint)
        for path in (callback.last_model_path, callback.best_model_path)
        if path and Path(path).is_file()
    ]
    if not paths:
        return "There is no checkpoint yet."
    return f"Last good checkpoint: {max(paths, key=lambda path: path.stat().st_mtime)}."
