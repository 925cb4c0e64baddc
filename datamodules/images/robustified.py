"""Sets of images that contain only what a model's representation contains."""

from typing import Any

import torch
from torch import Tensor

from ...modules.attacks import pgd
from ...modules.classification import ImageClassifier, Representation
from .augmentation import counter_uniforms
from .generated import GeneratedDataModule
from .splits import ImageSplits

__all__ = ["RobustifiedDataModule", "draw_others"]


class RobustifiedDataModule(GeneratedDataModule):
    r"""For every training image another one that a model represents alike, with the same label.

    .. math:: x_r = \arg\min_{z \in [0, 1]^d} \| g(z) - g(x) \|_2

    by gradient steps of fixed L2 length from another training image, drawn at random, so that whatever g does not see
    has nothing to do with the label; g is what the last linear layer is fed. From `Ilyas et al. 2019
    <https://arxiv.org/abs/1905.02175>`_: of an adversarially trained model it makes D_R, from which standard training
    gets robust accuracy; of a standard model D_NR, from which it gets none. The nearest iterate is kept. Validation
    images are treated alike; the test set stays as it is.

    Cost: ``steps`` forward and backward passes an image.

    Args:
        source: Whose training and validation split are robustified.
        checkpoint: Of the model that represents, an :class:`ImageClassifier` trained by ``theodolite fit``.
        steps: Gradient steps, >= 1; 1000 in the paper.
        step_size: L2 length of a step, in pixels of [0, 1], > 0.
        bfloat16: Descend in bfloat16 where autocast knows how: faster, and far finer than the distances left.
        data_dir: As in :class:`GeneratedDataModule`, and so the others.
        shard_size: Images in a file, and in a batch of the descent.
        crop_padding: Augment training images by shifts of up to so many pixels; 0 for none.
        flip: Augment training images by mirroring half of them.
        batch_size: Images in a batch, **of each process**.
        set_seed: Seed of the starts; runs that differ in ``seed`` alone share a set.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.

    Raises:
        FileNotFoundError: If the checkpoint is absent.
        ValueError: If an argument is out of range.
    """

    kind = "robustified"

    def __init__(
        self,
        source: ImageSplits,
        checkpoint: str,
        steps: int = 1000,
        step_size: float = 0.1,
        bfloat16: bool = False,
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
        self.check_least(1, steps=steps)
        if not step_size > 0:
            msg = f"RobustifiedDataModule(step_size={step_size}): must be positive, in pixels of [0, 1], e.g. 0.1."
            raise ValueError(msg)
        self.steps = steps
        self.step_size = step_size
        self.bfloat16 = bfloat16

    def settings(self) -> dict[str, Any]:
        """Give the settings of the descent."""
        return {"steps": self.steps, "step_size": self.step_size, "bfloat16": self.bfloat16}

    def make(self, model: ImageClassifier, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Match the representation of images, from others."""
        represent = Representation(model)
        images = self.originals(numbers).to(model.device)
        with torch.no_grad():
            wanted = represent(images)
        # a training image, for validation images too: nothing of the held-out ones gets into the starts
        start = self.originals(draw_others(numbers, self._sizes[0], self.set_seed)).to(model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self.bfloat16):
            made = pgd(
                represent,
                start,
                wanted,
                norm="l2",
                eps=float("inf"),
                step_size=self.step_size,
                steps=self.steps,
                random_start=False,
                targeted=True,
                objective=lambda features, goal: torch.linalg.vector_norm(features.float() - goal, dim=1),
                full_precision=not self.bfloat16,
            )
        return made, self.source_labels[numbers].to(model.device)

    def statistics(self) -> dict[str, float]:
        """Give ``still_correct``, the share that the model labels right, and ``moved``, the mean L2 distance."""
        return {
            "still_correct": float((self.field("predicted") == self.field("label")).mean()),
            "moved": float(self.field("moved").mean()),
        }

    def report(self) -> str:
        """Say how many images the model labels right."""
        found = self.statistics()
        return (
            f"the model labels {100 * found['still_correct']:.1f} % right; mean L2 distance to the originals "
            f"{found['moved']:.2f}."
        )


def draw_others(numbers: Tensor, size: int, seed: int) -> Tensor:
    """Draw for each image another one of the first ``size``, a pure function of (seed, number).

    Args:
        numbers: Numbers of the images, int64 (B,), of these or of further ones.
        size: Number of images to draw from, at least 2.
        seed: Of the choices.

    Returns:
        Numbers in 0 .. size - 1, never an image's own, int64 (B,).
    """
    uniforms = torch.from_numpy(counter_uniforms(seed, numbers, 1)[:, 0])
    steps = 1 + (uniforms * (size - 1)).long()
    return torch.where(numbers < size, (numbers + steps) % size, (uniforms * size).long())
