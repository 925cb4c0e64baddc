"""What callbacks need to measure a classifier that nobody here wrote: its batches, its samples' numbers, its state."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler

from ..modules.attacks import Attack, evaluation_mode
from ..modules.attacks.checks import check_input, check_logits
from .held_out import HeldOutMeasurement

__all__ = [
    "ClassifierMeasurement",
    "Labelled",
    "Samples",
    "dataloader",
    "left_as_found",
    "place_samples",
    "spread",
    "unpack",
]

#: Names that a dictionary batch may give its parts.
_KEYS = {
    "x": ("x", "image", "images", "input", "inputs", "pixel_values"),
    "y": ("y", "label", "labels", "target", "targets"),
    "sample_id": ("sample_id", "index", "indices", "idx"),
}
#: Samples of a further dataloader are numbered from here on; a float64 holds 2^13 loaders of such numbers exactly.
_LOADER = 2**40


class Labelled(NamedTuple):
    """Inputs (N, ...), labels int (N,), and the samples' numbers int (N,) where the batch has them."""

    x: Tensor
    y: Tensor
    sample_id: Tensor | None


class Samples(NamedTuple):
    """What is measured of a batch, N >= 1: inputs (N, ...), labels, numbers, and places among all that is measured.

    ``total`` is the number of samples that all ranks measure, ``None`` if it is not known; ``detail`` goes behind the
    keys of the batch's dataloader.
    """

    x: Tensor
    y: Tensor
    sample_id: Tensor
    place: Tensor
    total: int | None
    detail: str = ""


def unpack(batch: Any, owner: str) -> Labelled:
    """Find inputs, labels and sample numbers in a batch.

    Args:
        batch: ``(x, y)``, ``(x, y, sample_id)``, what unpacks as ``(x, y)`` and has an attribute sample_id, or a
            dictionary with the keys x, image(s), input(s) or pixel_values; y, label(s) or target(s); and perhaps
            sample_id, index, indices or idx. What else it holds is left alone.
        owner: Who asks, for the error.

    Raises:
        ValueError: If it is something else, or the labels are not integers (N,).
    """
    if isinstance(batch, Mapping):
        parts = [next((batch[key] for key in keys if key in batch), None) for keys in _KEYS.values()]
        found = f"a dictionary with the keys {sorted(map(str, batch))}"
    else:
        number = getattr(batch, "sample_id", None)
        unpacks = isinstance(batch, tuple | list) or number is not None
        parts = [*batch, number][:3] if unpacks and len(batch) > 1 else [None] * 3
        found = f"a {type(batch).__name__}"
    x, y, number = parts
    if not (isinstance(x, Tensor) and isinstance(y, Tensor) and y.shape == x.shape[:1] and _whole(y)):
        msg = (
            f"{owner}: the batch is {found}; it must be (x, y), (x, y, sample_id) or a dictionary with x (or image, "
            "input) and y (or label, target), the labels integers of shape (N,) and one a sample."
        )
        raise ValueError(msg)
    if not (isinstance(number, Tensor) and number.shape == y.shape and _whole(number)):
        return Labelled(x, y.long(), None)
    return Labelled(x, y.long(), number.long())


def _whole(value: Tensor) -> bool:
    return not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool


@contextmanager
def left_as_found(module: LightningModule) -> Iterator[None]:
    """Measure in evaluation mode, and restore mode, buffers, ``requires_grad`` and random states afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    trained = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    with evaluation_mode(module), isolate_rng():
        try:
            yield
        finally:
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
            for parameter, required in trained:
                parameter.requires_grad_(required)


def place_samples(loader: Any, seen: int, size: int, trainer: Trainer) -> tuple[Tensor, int | None]:
    """Find where the next samples of this process stand in the order of the whole set.

    A ``DistributedSampler``, Lightning's or :class:`ShardedSampler`, deals the order to the ranks like cards, and may
    repeat its beginning at the end: position p >= total is the sample of position p - total.

    Args:
        loader: The dataloader.
        seen: Number of samples that this process has had of it in this epoch.
        size: Number of samples that come.
        trainer: Knows the ranks.

    Returns:
        Positions, int64 (size,), different for different samples of all ranks; and the number of samples of the whole
        set, ``None`` where the loader does not tell, or the ranks' orders are not known to be parts of one.
    """
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    place = torch.arange(seen, seen + size)
    if isinstance(sampler, DistributedSampler):
        return sampler.rank + place * sampler.num_replicas, len(sampler.dataset)  # pyright: ignore[reportArgumentType]
    if isinstance(sampler, SequentialSampler) or (isinstance(sampler, Sized) and trainer.world_size == 1):
        return place, len(sampler)
    return trainer.global_rank + place * trainer.world_size, None


def spread(place: Tensor, total: int | None, number: int) -> Tensor:
    """Choose ``number`` of ``total`` places, evenly spread; the first ones if the total is not known: bool (N,)."""
    if total is None or total <= number:
        return place < number
    return (place + 1) * number // total > place * number // total


class ClassifierMeasurement(HeldOutMeasurement):
    """Measure each held-out sample of a classifier: any LightningModule whose ``forward(x)`` gives logits.

    Batches are ``(x, y)``, ``(x, y, sample_id)`` or dictionaries, see :func:`unpack`. Where they carry no sample
    numbers, a sample is known by its position in the order of the set, so that what Lightning's distributed sampler
    repeats counts once. The module is left as it was found: mode, buffers, gradients, random states.

    Several dataloaders are reported on apart, those after the first with ``/loader_<i>`` behind the keys.

    Args:
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        max_samples: Measure so many samples of the set at most, evenly spread over it; ``None`` for all. Of a set
            whose size is not known, the first ones.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, every_n_epochs: int, max_samples: int | None) -> None:
        super().__init__(every_n_epochs)
        if max_samples is not None and max_samples < 1:
            msg = f"{type(self).__name__}(max_samples={max_samples}): must be at least 1, or null for all."
            raise ValueError(msg)
        self.max_samples = max_samples
        self._seen: dict[int, int] = {}

    @abstractmethod
    def measure(self, pl_module: LightningModule, samples: Samples) -> Tensor:
        """Give what is measured of each sample, (N, columns); called within :func:`left_as_found`."""

    @abstractmethod
    def summarise(self, trainer: Trainer, pl_module: LightningModule, stage: str, detail: str, rows: Tensor) -> None:
        """Log, store and draw; rows (samples, 2 + columns) begin with the sample's number and its label.

        ``detail`` goes behind every key.
        """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new count of samples."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._seen = {}

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new count of samples."""
        super().on_test_epoch_start(trainer, pl_module)
        self._seen = {}

    def check_samples(self, pl_module: LightningModule, x: Tensor, y: Tensor) -> None:
        """Refuse samples (N, ...) with labels (N,), or outputs of the module, that could not be measured.

        Called on the first batch of the sanity check, so that a mistake does not wait for the end of an epoch.
        """

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take a validation batch; of the sanity check only the first is looked at."""
        if trainer.sanity_checking and batch_idx == 0:
            x, y, _ = unpack(batch, type(self).__name__)
            with left_as_found(pl_module), torch.no_grad():
                self.check_samples(pl_module, x, y)
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def measure_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> Tensor:
        """Give one row a sample that is to be measured: its number, its label, and what was measured."""
        x, y, sample_id = unpack(batch, type(self).__name__)
        loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        seen = self._seen.get(dataloader_idx, 0)
        self._seen[dataloader_idx] = seen + len(y)
        place, total = place_samples(dataloader(loaders, dataloader_idx), seen, len(y), trainer)
        if total is not None:
            place = place % total
        number = place if sample_id is None else sample_id.cpu()
        if len(number.unique()) < len(number):
            msg = (
                f"{type(self).__name__}: the third part of a batch, or its sample_id or index, numbers the samples, "
                "but here numbers repeat; give each sample its own, or (x, y) alone."
            )
            raise ValueError(msg)
        if self.max_samples is not None:
            wanted = spread(place, total, self.max_samples)
            if not wanted.any():
                return torch.zeros(0, 1)
            x, y, number, place = x[wanted.to(x.device)], y[wanted.to(y.device)], number[wanted], place[wanted]
            if total is not None and total > self.max_samples:
                place, total = place * self.max_samples // total, self.max_samples
        with left_as_found(pl_module):
            values = self.measure(pl_module, Samples(x, y, number, place, total, _detail(dataloader_idx)))
        found = torch.stack([number + dataloader_idx * _LOADER, y.cpu()], dim=1)
        return torch.cat([found.double(), values.double().cpu()], dim=1)

    def report(self, trainer: Trainer, pl_module: LightningModule, stage: str, rows: Tensor) -> None:
        """Report on the samples of each dataloader."""
        loaders = (rows[:, 0] / _LOADER).long()
        for index in loaders.unique().tolist():
            part = rows[loaders == index].clone()
            part[:, 0] -= index * _LOADER
            self.summarise(trainer, pl_module, stage, _detail(index), part)

    def check_attackable(self, pl_module: LightningModule, x: Tensor, y: Tensor, attacks: Sequence[Attack]) -> None:
        """Refuse outputs that are no logits, labels out of range, and inputs outside of an attack's bounds."""
        self.predict(pl_module, x, y)
        for attack in attacks:
            check_input(x, y, getattr(attack, "bounds", (0.0, 1.0)))

    def predict(self, pl_module: LightningModule, x: Tensor, y: Tensor) -> Tensor:
        """Give the class of the largest logit, int (N,); checks shape of the logits and range of the labels."""
        logits = pl_module(x)
        check_logits(logits, y)
        return logits.argmax(1)


def _detail(index: int) -> str:
    return f"/loader_{index}" if index else ""


def dataloader(loaders: Any, index: int) -> Any:
    """Pick a dataloader of what the Trainer holds: one, a sequence or a mapping."""
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    return loaders[index] if isinstance(loaders, list | tuple) else loaders
