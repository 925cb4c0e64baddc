"""Image classification as a Task."""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from ..attacks import Attack, fooled
from ..base import Task
from .objectives import Objective, Standard

__all__ = ["ImageClassifier", "Normalize"]

#: Numbers of samples are moved by this in every epoch, so that attacks start elsewhere.
_EPOCH = 2**40


class Normalize(nn.Module):
    """Subtract a mean from each channel and divide by a deviation, (N, C, H, W) to the same.

    Args:
        mean: One value a channel, in pixels of [0, 1].
        std: One value a channel, > 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Give the normalised pixels."""
        return (x - self.mean) / self.std


class ImageClassifier(Task):
    """Classify images with pixels in [0, 1], trained on clean, attacked or noisy ones.

    Logs ``train/loss`` (of the objective), ``val/loss`` (cross-entropy of the clean images, nats), ``val/accuracy``,
    ``val/robust_accuracy`` where there is an attack to validate by, and ``test/loss`` and ``test/accuracy``; exact on
    any number of ranks. The best checkpoint is that of the highest robust accuracy, else accuracy, on the validation
    split: after the learning rate has dropped robustness is lost again (`Rice et al. 2020
    <https://arxiv.org/abs/2002.11569>`_).

    Averaged weights are Lightning's callback ``EMAWeightAveraging``; mixed precision is ``--trainer.precision
    bf16-mixed``: attacks compute in full precision even then, unless they have ``full_precision=False``.

    Args:
        network: Maps normalised images (N, C, H, W) to logits (N, num_classes): any module.
        num_classes: Number of classes (the datamodule's, linked on the command line).
        mean: Subtracted from each channel before the network, in pixels of [0, 1]; one value a channel, ``None`` for no
            normalisation.
        std: Each channel is divided by it; one value a channel.
        objective: What is trained for; by default clean images.
        val_attack: Attack to measure ``val/robust_accuracy`` with in every validation.
        channels_last: Keep images and weights with channels innermost, which convolutions in low precision like.
        optimizer: As in :class:`Task`.
        lr_scheduler: As in :class:`Task`.

    Raises:
        ValueError: If mean and std do not fit each other, or on the first batch, if the network gives another number of
            classes.
    """

    #: The best checkpoint is chosen by this quantity; by ``val/robust_accuracy`` where there is an attack.
    monitor, mode = "val/accuracy", "max"

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        objective: Objective | None = None,
        val_attack: Attack | None = None,
        channels_last: bool = False,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.save_init_arguments()
        if len(mean or []) != len(std or []) or any(not value > 0 for value in std or []):
            msg = (
                f"ImageClassifier(mean={mean}, std={std}): give one mean and one deviation > 0 a channel, e.g. [0.5] "
                "and [0.5] for grey images, or neither."
            )
            raise ValueError(msg)
        self.num_classes = num_classes
        self.normalize = Normalize(mean, std) if mean and std else nn.Identity()
        self.network = network.to(memory_format=torch.channels_last) if channels_last else network
        self.objective = objective or Standard()
        self.val_attack = val_attack
        self.channels_last = channels_last
        if val_attack is not None:
            self.monitor = "val/robust_accuracy"

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits (N, num_classes) of images in [0, 1], (N, C, H, W)."""
        if self.channels_last:
            # a copy always: grey images are contiguous in both orders, and only its strides say which is meant
            x = x.clone(memory_format=torch.channels_last)
        logits = self.network(self.normalize(x))
        if logits.shape[1:] != (self.num_classes,):
            msg = (
                f"ImageClassifier(num_classes={self.num_classes}): the network gave the shape {tuple(logits.shape)} "
                f"for {len(x)} images; give it num_classes={self.num_classes} too."
            )
            raise ValueError(msg)
        return logits

    def loss(self, batch: Any) -> Tensor:
        """Give the objective of a batch, in nats."""
        x, y = batch[0], batch[1]
        sample_id = getattr(batch, "sample_id", None)
        if sample_id is not None:
            sample_id = sample_id + self.current_epoch * _EPOCH
        return self.objective(self, x, y, sample_id)

    def error(self, batch: Any) -> Tensor:
        """Give the share of the images of a batch that are classified wrongly."""
        return fooled(self(batch[0]), batch[1], targeted=False).float().mean()

    def num_samples(self, batch: Any) -> int:
        """Count the images of a batch."""
        return len(batch[0])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss, accuracy and robust accuracy of the held-out images under ``val/``."""
        del batch_idx
        self._evaluate(batch, "val")
        if self.val_attack is not None:
            x, y = batch[0], batch[1]
            attacked = self.val_attack(self, x, y, sample_id=getattr(batch, "sample_id", None))
            self._log("val", {"robust_accuracy": (~fooled(self(attacked), y, targeted=False)).float().mean()}, batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy of the test images under ``test/``."""
        del batch_idx
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, *args: Any) -> Tensor:
        """Give the logits of a batch."""
        del args
        return self(batch[0])

    def _evaluate(self, batch: Any, stage: str) -> None:
        logits, y = self(batch[0]).float(), batch[1]
        accuracy = (~fooled(logits, y, targeted=False)).float().mean()
        self._log(stage, {"loss": functional.cross_entropy(logits, y), "accuracy": accuracy}, batch)

    def _log(self, stage: str, values: dict[str, Tensor], batch: Any) -> None:
        keyed = {f"{stage}/{name}": value for name, value in values.items()}
        self.log_dict(keyed, on_epoch=True, sync_dist=True, prog_bar=stage == "val", batch_size=self.weight(batch))  # pyright: ignore[reportArgumentType]
