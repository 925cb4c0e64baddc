"""An adversary that grows in the first epochs of training."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from ..modules.attacks import Attack

__all__ = ["RadiusWarmUp"]


class RadiusWarmUp(Callback):
    r"""Raise the radius of the attack that a classifier is trained against linearly, from 0 in the first steps.

    .. math:: \epsilon_t = \epsilon \min(1, (t + 1) / T)

    with t the optimizer's step and T the steps of ``epochs`` epochs; a step size is scaled alike. Against a large
    radius from the start (MNIST, linf 0.3) training rests on the plateau of constant predictions for long, or for good.
    The attack of validation is left alone. The same on any number of ranks, and in a run that is resumed.

    Args:
        epochs: Length of the rise, > 0; parts of an epoch count.

    Raises:
        ValueError: If ``epochs`` is not positive, or on training, if the module has no ``objective.attack``.
    """

    def __init__(self, epochs: float = 1.0) -> None:
        if not 0 < epochs < float("inf"):
            msg = f"RadiusWarmUp(epochs={epochs:g}): must be > 0, e.g. 0.5."
            raise ValueError(msg)
        self.epochs = epochs
        self._attack: Attack | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the attack of full radius."""
        del trainer
        attack = getattr(getattr(pl_module, "objective", None), "attack", None)
        if not isinstance(attack, Attack):
            msg = (
                f"RadiusWarmUp needs a model with an attack in its objective, and {type(pl_module).__name__} has none; "
                "train ImageClassifier with the objective Adversarial or TRADES."
            )
            raise ValueError(msg)
        self._attack = attack

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the radius of this step."""
        del batch, batch_idx
        assert self._attack is not None
        rise = self.epochs * trainer.num_training_batches / trainer.accumulate_grad_batches
        share = (trainer.global_step + 1) / rise
        self._set(pl_module, self._attack if share >= 1 else self._attack.at(share * self._attack.eps))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the attack back."""
        del trainer
        if self._attack is not None:
            self._set(pl_module, self._attack)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the attack back: a training that is interrupted may be begun again."""
        del exception
        self.on_train_end(trainer, pl_module)

    def _set(self, pl_module: LightningModule, attack: Attack) -> None:
        objective: Any = pl_module.objective
        objective.attack = attack
