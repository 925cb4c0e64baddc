"""What a relabeled training set is like: its labels, its perturbations, and some of its images."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from .adversarial_figures import Example, draw_examples
from .media import log_figure, log_table

if TYPE_CHECKING:
    from typing import Any

__all__ = ["RelabeledReport"]

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class RelabeledSet(Protocol):
    """What the report asks a datamodule for, such as :class:`~theodolite.datamodules.RelabeledDataModule`."""

    class_names: list[str]
    source_labels: Tensor
    targets: str

    def statistics(self) -> dict[str, float]: ...
    def field(self, name: str) -> np.ndarray: ...
    def numbers(self, split: "Any") -> Tensor: ...
    def originals(self, numbers: Tensor) -> Tensor: ...
    def images(self, numbers: Tensor) -> "Any": ...


class RelabeledReport(Callback):
    """Say at the beginning of training what the relabeled set is like, so that a result can be judged by it.

    Writes to the run directory, of the images trained on: the table ``train/relabeled_labels`` (each class: images of
    that original label, images of that new label, and the shares of the former that fool the model that relabelled, and
    that it still gets right), the table ``train/relabeled_lengths`` (quantiles of the perturbations' L2 lengths), and
    the figure ``train/relabeled_examples`` of originals, enlarged perturbations, and results with their new labels.

    Logs in the first epoch ``train/relabeled/<name>``, the statistics of all images made: see
    :meth:`~theodolite.datamodules.RelabeledDataModule.statistics`. On several ranks the first one writes.

    Args:
        num_images: Number of images in the figure, evenly spread over the set; 0 for none.
        factor: Enlarges the perturbations in the figure, > 0.

    Raises:
        ValueError: If an argument is out of range, or on training, if the datamodule has no relabeled set.
    """

    def __init__(self, num_images: int = 8, factor: float = 10.0) -> None:
        if num_images < 0 or not factor > 0:
            msg = f"RelabeledReport(num_images={num_images}, factor={factor:g}): needs num_images >= 0 and factor > 0."
            raise ValueError(msg)
        self.num_images = num_images
        self.factor = factor

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write tables and figure."""
        del pl_module
        data = self._set(trainer)
        if not trainer.is_global_zero:
            return
        numbers = data.numbers("train")
        chosen = {name: torch.from_numpy(data.field(name))[numbers] for name in ("label", "predicted", "moved")}
        original = data.source_labels[numbers]
        rows = []
        for label, name in enumerate(data.class_names):
            own = original == label
            shares = [float((chosen["predicted"] == seen)[own].float().mean()) for seen in (chosen["label"], original)]
            rows.append([name, int(own.sum()), int((chosen["label"] == label).sum()), *shares])
        log_table(trainer, "train/relabeled_labels", ("class", "original", "new", "fooled", "still correct"), rows)
        lengths = chosen["moved"].double().quantile(torch.tensor(_QUANTILES).double()).tolist()
        log_table(
            trainer, "train/relabeled_lengths", ("quantile", "L2 length"), list(zip(_QUANTILES, lengths, strict=True))
        )
        if self.num_images:
            places = torch.linspace(0, len(numbers) - 1, min(self.num_images, len(numbers))).long()
            pictures = zip(data.originals(numbers[places]), data.images(numbers)[places], strict=True)
            examples = [
                Example(before, after, int(original[place]), int(chosen["label"][place]))
                for (before, after), place in zip(pictures, places.tolist(), strict=True)
            ]
            figure = draw_examples(examples, "relabelling", data.class_names, self.factor)
            print(f"Figure: {log_figure(trainer, 'train/relabeled_examples', figure)}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the statistics, once."""
        if trainer.current_epoch == 0:
            for name, value in self._set(trainer).statistics().items():
                pl_module.log(f"train/relabeled/{name}", value, sync_dist=True)

    def _set(self, trainer: Trainer) -> RelabeledSet:
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by fit
        if not (hasattr(data, "source_labels") and hasattr(data, "targets")):
            msg = f"RelabeledReport needs a RelabeledDataModule; the data are {type(data).__name__}."
            raise ValueError(msg)
        return data
