"""Sets whose images are changed a little and whose labels are those that a model then sees."""

from typing import Any, Literal

import torch
from torch import Tensor

from ...modules.attacks import PGD, Norm, perturbation_norm
from ...modules.classification import ImageClassifier
from ...modules.noise import sample_generators, sample_normal
from .augmentation import counter_uniforms
from .base import ImageDataModule
from .generated import GeneratedDataModule

__all__ = ["RelabeledDataModule", "draw_targets"]

Targets = Literal["random", "next", "other"]
Control = Literal["none", "unperturbed", "noise"]


class RelabeledDataModule(GeneratedDataModule):
    """Every training image moved slightly, by a targeted attack on a model, and labelled by the target.

    From `Ilyas et al. 2019 <https://arxiv.org/abs/1905.02175>`_: to a person the labels are wrong, yet who trains on
    the set is right on the source's own test set, because the perturbations are features. Validation images are
    relabelled too: a choice made on them uses no right label.

    The controls serve the same labels with other images, and must end below chance.

    Args:
        source: Whose training and validation split are relabelled; the test set stays as it is.
        checkpoint: Of the model attacked, an :class:`ImageClassifier` trained by ``theodolite fit``.
        attack: A targeted attack; its radius bounds the perturbations, also after storage. In the paper L2, eps 0.5,
            100 steps of 0.1, from the image itself.
        targets: ``random``: any class, the right one too (D_rand); ``next``: label + 1, modulo the number of classes
            (D_det); ``other``: any class but the right one. For two classes the last two flip all labels.
        control: ``unperturbed``: the original images; ``noise``: Gaussian noise of the L2 length of each image's
            perturbation, clipped to [0, 1].
        data_dir: As in :class:`GeneratedDataModule`, and so the others.
        shard_size: Images in a file, and in a batch of the attack.
        crop_padding: Augment training images by shifts of up to so many pixels; 0 for none.
        flip: Augment training images by mirroring half of them.
        batch_size: Images in a batch, **of each process**.
        set_seed: Seed of the targets; runs that differ in ``seed`` alone share a set.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.

    Raises:
        FileNotFoundError: If the checkpoint is absent.
        ValueError: If the attack is not targeted or an argument is out of range.
    """

    kind = "relabeled"

    def __init__(
        self,
        source: ImageDataModule,
        checkpoint: str,
        attack: PGD,
        targets: Targets = "random",
        control: Control = "none",
        data_dir: str = "data/generated",
        shard_size: int = 500,
        crop_padding: int = 0,
        flip: bool = False,
        batch_size: int = 128,
        set_seed: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            source, checkpoint, data_dir, shard_size, crop_padding, flip, batch_size, set_seed, seed, num_workers
        )
        if not attack.targeted:
            msg = "RelabeledDataModule(attack=...): the attack must have targeted=True; the target is the new label."
            raise ValueError(msg)
        for name, value, allowed in (
            ("targets", targets, ("random", "next", "other")),
            ("control", control, ("none", "unperturbed", "noise")),
        ):
            if value not in allowed:
                msg = f"RelabeledDataModule({name}={value!r}): must be one of {', '.join(allowed)}."
                raise ValueError(msg)
        self.attack = attack
        self.targets: Targets = targets
        self.control: Control = control

    def settings(self) -> dict[str, Any]:
        """Give the rule of the targets and the attack; the controls share the set."""
        attack = {key: value for key, value in vars(self.attack).items() if not key.startswith("_")}
        return {"targets": self.targets, "attack": {"class": type(self.attack).__name__, **attack}}

    def bound(self) -> tuple[Norm, float] | None:
        """Give the ball of the attack."""
        return self.attack.norm, self.attack.eps

    def make(self, model: ImageClassifier, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Attack images towards their targets."""
        targets = draw_targets(self.source_labels[numbers], numbers, self.targets, self.num_classes, self.set_seed)
        targets = targets.to(model.device)
        images = self.originals(numbers).to(model.device)
        return self.attack(model, images, targets, sample_id=numbers.to(model.device)), targets

    def images(self, first: int) -> Any:
        """Give the images, or those of the control."""
        if self.control == "unperturbed":
            return self.source_images[first:]
        return super().images(first) if self.control == "none" else _NoisyImages(self, first)

    def statistics(self) -> dict[str, float]:
        """Give shares of all images.

        ``fooled``: the model sees the target; ``still_correct``: the model sees the original label; ``label_kept``: the
        target is the original label; ``moved``: mean L2 length of the perturbations.
        """
        label, predicted, original = self.field("label"), self.field("predicted"), self.source_labels.numpy()
        return {
            "fooled": float((predicted == label).mean()),
            "still_correct": float((predicted == original).mean()),
            "label_kept": float((label == original).mean()),
            "moved": float(self.field("moved").mean()),
        }

    def report(self) -> str:
        """Say how many images fool the model."""
        found = self.statistics()
        return (
            f"{100 * found['fooled']:.1f} % fool the model, it still sees the original label in "
            f"{100 * found['still_correct']:.1f} %; {100 * found['label_kept']:.1f} % of the labels are the original "
            f"ones; mean L2 length of the perturbations {found['moved']:.3f}."
        )


class _NoisyImages:
    """The originals with Gaussian noise as long as each image's perturbation, the same in every epoch."""

    def __init__(self, data: RelabeledDataModule, first: int) -> None:
        self.originals = data.source_images[first:]
        self.lengths = torch.from_numpy(data.field("moved"))[first:]
        self.first = first
        self.seed = data.set_seed

    def __getitem__(self, numbers: Tensor) -> Tensor:
        images = self.originals[numbers].float().div_(255)
        noise = sample_normal(sample_generators(self.seed, (numbers + self.first).tolist()), images.shape[1:])
        scale = self.lengths[numbers] / perturbation_norm(noise, "l2")
        return (images + scale.view(-1, 1, 1, 1) * noise).clamp_(0, 1)


def draw_targets(labels: Tensor, numbers: Tensor, rule: Targets, num_classes: int, seed: int) -> Tensor:
    """Give the target of each image, a pure function of (seed, number, label).

    Args:
        labels: Original labels, int64 (B,).
        numbers: Numbers of the images, int64 (B,).
        rule: ``random``, ``next`` or ``other``, see :class:`RelabeledDataModule`.
        num_classes: Number of classes.
        seed: Of the choices.

    Returns:
        int64 (B,).
    """
    if rule == "next":
        return (labels + 1) % num_classes
    uniforms = torch.from_numpy(counter_uniforms(seed, numbers, 1)[:, 0])
    if rule == "random":
        return (uniforms * num_classes).long()
    return (labels + 1 + (uniforms * (num_classes - 1)).long()) % num_classes
