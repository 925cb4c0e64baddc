"""Sets whose images are changed a little and whose labels are those that a model then sees."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modules.attacks import PGD, Norm, perturbation_norm
from ...modules.classification import ImageClassifier
from ...modules.noise import sample_generators, sample_normal
from ..sampling import Split
from .augmentation import counter_uniforms
from .generated import GeneratedDataModule
from .shards import file_digest
from .splits import ImageSplits

__all__ = ["RelabeledDataModule", "draw_targets"]

Targets = Literal["random", "next", "other", "predicted"]
Keep = Literal["all", "fooled", "wrong"]
Control = Literal["none", "unperturbed", "noise"]


class RelabeledDataModule(GeneratedDataModule):
    """Every training image moved slightly, by an attack on a model, and labelled by what the model then sees.

    From `Ilyas et al. 2019 <https://arxiv.org/abs/1905.02175>`_: to a person the labels are wrong, yet who trains on
    the set is right on the source's own test set, because the perturbations are features. Validation images are
    relabelled too: a choice made on them uses no right label.

    The controls serve the same labels with other images, and must end below chance. A third one, of what the labels
    alone tell of the model that gave them: a weak model labels images that nothing moved, and its errors are kept, by
    ``attack: null``, ``targets: predicted`` and ``keep: wrong``.

    Args:
        source: Whose training and validation split are relabelled; the test set stays as it is.
        checkpoint: Of the model attacked, an :class:`ImageClassifier` trained by ``theodolite fit``.
        attack: A targeted attack, an untargeted one for ``predicted``; its radius bounds the perturbations, also after
            storage. In the paper L2, eps 0.5, 100 steps of 0.1, from the image itself. ``None`` moves nothing.
        targets: ``random``: any class, the right one too (D_rand); ``next``: label + 1, modulo the number of classes
            (D_det); ``other``: any class but the right one. For two classes the last two flip all labels.
            ``predicted``: what the model sees in the image made.
        keep: ``fooled``: only images which the model first gets right and then takes for their new, wrong label;
            ``wrong``: only those whose new label is wrong; they are chosen of the images made, without another attack.
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
        others: Checkpoints of further models, attacked together with the first as one that gives the mean of their
            logits. What fools several networks fools others too: such perturbations say more of the data and less of
            one network.
        swap_low_frequencies: Augment training images: their low frequencies are those of another one, drawn at random;
            standard deviation of the Gaussian that passes them, in pixels, 0 for none. Colour and coarse shape, which
            belong to the old label, then say nothing, and the perturbation stays.
        attack_shift: At every step of the attack the models see the images shifted by up to so many pixels, the same
            way for all and drawn anew, zeros move in: what fools them wherever it lies fools other models more often
            (`Xie et al. 2019 <https://arxiv.org/abs/1803.06978>`_). The set itself is not moved, and the attack's
            ``keep: best`` compares what differently moved images give: ``last`` is meant here. 0 for none.
        attack_flip: Likewise mirrored left and right, at half of the steps.

    Raises:
        FileNotFoundError: If the checkpoint is absent.
        ValueError: If attack and targets do not fit, an argument is out of range, or on making, if nothing is kept.
    """

    kind = "relabeled"

    def __init__(
        self,
        source: ImageSplits,
        checkpoint: str,
        attack: PGD | None,
        targets: Targets = "random",
        keep: Keep = "all",
        control: Control = "none",
        data_dir: str = "data/generated",
        shard_size: int = 500,
        crop_padding: int = 0,
        flip: bool = False,
        batch_size: int = 128,
        set_seed: int = 0,
        seed: int = 0,
        num_workers: int = 0,
        others: Sequence[str] = (),
        swap_low_frequencies: float = 0.0,
        attack_shift: int = 0,
        attack_flip: bool = False,
    ) -> None:
        super().__init__(
            source, checkpoint, data_dir, shard_size, crop_padding, flip, batch_size, set_seed, seed, num_workers
        )
        for name, value, allowed in (
            ("targets", targets, ("random", "next", "other", "predicted")),
            ("keep", keep, ("all", "fooled", "wrong")),
            ("control", control, ("none", "unperturbed", "noise")),
        ):
            if value not in allowed:
                msg = f"RelabeledDataModule({name}={value!r}): must be one of {', '.join(allowed)}."
                raise ValueError(msg)
        if attack is not None and attack.targeted == (targets == "predicted"):
            msg = (
                f"RelabeledDataModule(targets={targets!r}): the attack must have targeted={targets != 'predicted'}; "
                "a targeted attack seeks the new label, 'predicted' is the one that an untargeted attack finds."
            )
            raise ValueError(msg)
        if not 0 <= 3 * swap_low_frequencies < min(source.input_shape[1:]) - 1:
            msg = (
                f"RelabeledDataModule(swap_low_frequencies={swap_low_frequencies}): must be at least 0 and, in pixels, "
                f"less than a third of the image, {source.input_shape[1]} x {source.input_shape[2]}; e.g. 1.5."
            )
            raise ValueError(msg)
        if not 0 <= attack_shift < min(source.input_shape[1:]):
            msg = (
                f"RelabeledDataModule(attack_shift={attack_shift}): must be at least 0 and, in pixels, less than the "
                f"image, {source.input_shape[1]} x {source.input_shape[2]}; e.g. 1."
            )
            raise ValueError(msg)
        self.attack = attack
        self.others = [self.existing("others", other) for other in others]
        self.targets: Targets = targets
        self.keep: Keep = keep
        self.control: Control = control
        self.swap_low_frequencies = swap_low_frequencies
        self.attack_shift = attack_shift
        self.attack_flip = attack_flip

    def settings(self) -> dict[str, Any]:
        """Give the rule of the targets and the attack; the controls, and what is kept, share the set."""
        settings: dict[str, Any] = {"targets": self.targets, "attack": None}
        if self.attack is not None:
            attack = {key: value for key, value in vars(self.attack).items() if not key.startswith("_")}
            settings["attack"] = {"class": type(self.attack).__name__, **attack}
        if self.others:
            settings["others"] = [file_digest(other) for other in self.others]
        if self.attack is not None and (self.attack_shift or self.attack_flip):
            settings["attack"]["moved"] = [self.attack_shift, self.attack_flip]
        return settings

    def fingerprint(self) -> str:
        """Give the name of the set, and of what is served of it."""
        served = [part for part in (self.keep, self.control) if part not in {"all", "none"}]
        return "-".join([super().fingerprint(), *served])

    def load_model(self) -> Any:
        """Give the model that is attacked."""
        return _MeanLogits([self.load(path) for path in (self.checkpoint, *self.others)])

    def bound(self) -> tuple[Norm, float] | None:
        """Give the ball of the attack."""
        return ("l2", 0.0) if self.attack is None else (self.attack.norm, self.attack.eps)

    def make(self, model: Any, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Attack images towards their targets, or away from their labels."""
        labels, images = self.source_labels[numbers], self.originals(numbers).to(model.device)
        if self.targets != "predicted":
            labels = draw_targets(labels, numbers, self.targets, self.num_classes, self.set_seed)
        labels = labels.to(model.device)
        if self.attack is not None:
            moving = _Moving(model, self.attack_shift, self.attack_flip, self.set_seed)
            images = self.attack(moving, images, labels, sample_id=numbers.to(model.device))
        if self.targets == "predicted":
            with torch.no_grad():
                labels = model(images).argmax(1)
        return images, labels

    def numbers(self, split: Split) -> Tensor:
        """Give the numbers of the images that are kept.

        Raises:
            ValueError: If there is none.
        """
        numbers = super().numbers(split)
        kept = numbers[torch.from_numpy(self.kept())[numbers]]
        if len(numbers) and not len(kept):
            msg = (
                f"RelabeledDataModule(keep={self.keep!r}): none of the {len(numbers)} images ({split}) is kept; "
                f"{self.report()}"
            )
            raise ValueError(msg)
        return kept

    def kept(self) -> np.ndarray:
        """Say of all images which are kept: bool."""
        label, original = self.field("label"), self.source_labels.numpy()
        if self.keep == "all":
            return np.ones_like(label, dtype=bool)
        wrong = label != original
        if self.keep == "wrong":
            return wrong
        return wrong & (self.field("before") == original) & (self.field("predicted") == label)

    def images(self, numbers: Tensor) -> Any:
        """Give the images, or those of the control."""
        return super().images(numbers) if self.control == "none" else _ControlImages(self, numbers)

    def statistics(self) -> dict[str, float]:
        """Give shares of all images made.

        ``known``: the model sees the original label in the original image; ``fooled``: it sees the new label in the new
        one; ``still_correct``: there it sees the original label; ``label_kept``: the new label is the original one;
        ``kept``: the image is served; ``moved``: mean L2 length of the perturbations.
        """
        label, predicted, original = self.field("label"), self.field("predicted"), self.source_labels.numpy()
        return {
            "known": float((self.field("before") == original).mean()),
            "fooled": float((predicted == label).mean()),
            "still_correct": float((predicted == original).mean()),
            "label_kept": float((label == original).mean()),
            "kept": float(self.kept().mean()),
            "moved": float(self.field("moved").mean()),
        }

    def report(self) -> str:
        """Say how many images fool the model."""
        found = self.statistics()
        return (
            f"{100 * found['fooled']:.1f} % fool the model, it still sees the original label in "
            f"{100 * found['still_correct']:.1f} %; {100 * found['label_kept']:.1f} % of the labels are the original "
            f"ones; {100 * found['kept']:.1f} % are kept; mean L2 length of the perturbations {found['moved']:.3f}."
        )


class _MeanLogits(nn.Module):
    """Several classifiers as one."""

    def __init__(self, models: Sequence[ImageClassifier]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.device = models[0].device

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([model(x) for model in self.models]).mean(0)


class _Moving(nn.Module):
    """A model that sees images shifted and mirrored, in another way at every call; the same for all of a batch.

    So what a call does to an image is a function of the seed and the number of the call, whatever the batch.
    """

    def __init__(self, model: nn.Module, shift: int, flip: bool, seed: int) -> None:
        super().__init__()
        self.model = model
        self.shift = shift
        self.flip = flip
        self.seed = seed
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.shift or self.flip:
            down, right, mirror = counter_uniforms(self.seed, torch.tensor([self.calls]), 3)[0]
            self.calls += 1
            top, left = (int(uniform * (2 * self.shift + 1)) for uniform in (down, right))
            x = F.pad(x, (self.shift,) * 4)[..., top : top + x.shape[-2], left : left + x.shape[-1]]
            x = x.flip(-1) if self.flip and mirror < 0.5 else x
        return self.model(x)


class _ControlImages:
    """The originals, or those with Gaussian noise as long as each image's perturbation, the same in every epoch."""

    def __init__(self, data: RelabeledDataModule, numbers: Tensor) -> None:
        self.originals = data.originals
        self.lengths = torch.from_numpy(data.field("moved"))
        self.numbers = numbers
        self.noisy = data.control == "noise"
        self.seed = data.set_seed

    def __getitem__(self, places: Tensor) -> Tensor:
        numbers = self.numbers[places]
        images = self.originals(numbers)
        if not self.noisy:
            return images
        noise = sample_normal(sample_generators(self.seed, numbers.tolist()), images.shape[1:])
        scale = self.lengths[numbers] / perturbation_norm(noise, "l2")
        return (images + scale.view(-1, 1, 1, 1) * noise).clamp_(0, 1)


def draw_targets(labels: Tensor, numbers: Tensor, rule: Targets, num_classes: int, seed: int) -> Tensor:
    """Give the target of each image, a pure function of (seed, number, label).

    Args:
        labels: Original labels, int64 (B,).
        numbers: Numbers of the images, int64 (B,).
        rule: ``random``, ``next`` or ``other``: see :class:`RelabeledDataModule`.
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
