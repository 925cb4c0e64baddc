"""Training sets that a trained model makes of another one, kept on disk."""

import hashlib
import json
import math
import pickle
import random
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from ...modules.attacks import Norm, perturbation_norm
from ...modules.classification import ImageClassifier
from ..sampling import Split
from .base import ImageDataset
from .shards import ShardedRecords, file_digest
from .splits import ImageSplits

__all__ = ["GeneratedDataModule", "StoredImages"]

#: Part of the name of a set: raise it when the same settings give other records.
_FORMAT = 2
#: Relative excess over the radius that float32 may show.
_ROUNDING = 1e-5


class StoredImages:
    """The images of the stored records with these numbers: indexed by places (B,) among them, they are (B, C, H, W)."""

    def __init__(self, records: ShardedRecords, numbers: Tensor) -> None:
        self.records = records
        self.numbers = numbers

    def __getitem__(self, places: Tensor) -> Tensor:
        """Read images, float32 in [0, 1]."""
        return torch.from_numpy(self.records.field("image", self.numbers[places].numpy()))


class Originals:
    """Images of several sets, one behind the other, by their numbers; they go to a loader's worker without the rest."""

    def __init__(self, parts: Sequence[ImageDataset], shape: Sequence[int]) -> None:
        self.parts = parts
        self.shape = tuple(shape)

    def __call__(self, numbers: Tensor) -> Tensor:
        """Give the images with these numbers, int64 (B,): float32 (B, C, H, W) in [0, 1]."""
        images, first = torch.empty(len(numbers), *self.shape), 0
        for part in self.parts:
            here = (numbers >= first) & (numbers < first + len(part))
            if here.any():
                images[here] = part.__getitems__((numbers[here] - first).tolist()).x
            first += len(part)
        return images


class GeneratedDataModule(ImageSplits):
    """Train and validate on images that a model made of the source's; test on the source's own test set.

    The set is made once, in ``setup``, shard by shard: the processes share the shards, and so do runs that need one set
    at the same time; finished ones are kept if the run is killed, and damaged ones are made again. It lies in a folder
    named by a hash of the source's images and labels, the checkpoint, and all settings, so a set is never served for
    other settings; ``settings.json`` in it says which. On several machines the folder must be shared. The images are
    float32, mapped into memory.

    Args:
        source: Whose training and validation split are changed.
        checkpoint: Checkpoint of an :class:`ImageClassifier` trained by ``theodolite fit``.
        data_dir: Folder of the sets made.
        shard_size: Images in a file, and in a batch of the model.
        crop_padding: Augment training images, as in :class:`ImageDataModule`.
        flip: Augment training images, as in :class:`ImageDataModule`.
        batch_size: Images in a batch, **of each process**.
        set_seed: Seed of the set's random choices; runs that differ in ``seed`` alone share a set.
        seed: Seed of the training order and of the augmentation.
        num_workers: Loader workers of each process.

    Raises:
        FileNotFoundError: If the checkpoint is absent.
        ValueError: If an argument is out of range, the source validates on its training images, or on making, if the
            model has other classes than the source.
    """

    #: Name of the kind of set, the beginning of its folder's name.
    kind = ""

    def __init__(
        self,
        source: ImageSplits,
        checkpoint: str,
        data_dir: str,
        shard_size: int,
        crop_padding: int,
        flip: bool,
        batch_size: int,
        set_seed: int,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__(
            source.train_samples, source.val_samples, source.test_samples, source.split_seed, batch_size, seed,
            num_workers,
        )  # fmt: skip
        self.check_least(1, shard_size=shard_size)
        if getattr(source, "validate_on", "val") != "val":
            msg = f"{type(self).__name__}(source.validate_on='train'): the source must have its own validation split."
            raise ValueError(msg)
        self.check_least(0, crop_padding=crop_padding, set_seed=set_seed)
        self.checkpoint = self.existing("checkpoint", checkpoint)
        self.source = source
        self.data_dir = Path(data_dir).expanduser()
        self.shard_size = shard_size
        self.set_seed = set_seed
        self.crop_padding = crop_padding
        self.flip = flip
        self.swap_low_frequencies = 0.0
        self.num_classes = source.num_classes
        self.class_names = source.class_names
        self.input_shape = source.input_shape
        self._records: ShardedRecords | None = None

    def existing(self, name: str, checkpoint: str) -> Path:
        """Give the path of a checkpoint.

        Raises:
            FileNotFoundError: If it is absent.
        """
        path = Path(checkpoint).expanduser()
        if not path.is_file():
            msg = (
                f"{type(self).__name__}({name}={checkpoint!r}): there is no such file; train the model that makes "
                "the set first, by `theodolite fit`, and give its best.ckpt."
            )
            raise FileNotFoundError(msg)
        return path

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Give what, beside source and checkpoint, decides the set; it can be written as JSON."""

    @abstractmethod
    def make(self, model: ImageClassifier, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Give new images, float32 (B, C, H, W) in [0, 1], and new labels (B,), on the model's device.

        Both are a pure function of the number of the image: ``originals`` and ``source_labels`` have the old ones.
        """

    @abstractmethod
    def report(self) -> str:
        """Say what the set is like, in a line."""

    def bound(self) -> tuple[Norm, float] | None:
        """Give norm and radius of the ball around the originals in which the images must lie."""
        return None

    def prepare_data(self) -> None:
        """Download the source."""
        self.source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Make this process's part of the set, wait for the others, and open it; the test stage needs none."""
        self.source.setup(stage or "fit")
        if stage in ("test", "predict") or self._records is not None:
            return
        parts = [self.source.dataset(split, augmented=False) for split in ("train", "val")]
        self._sizes = [len(part) for part in parts]
        #: The images of the source by their numbers, those of the validation split behind those to train on.
        self.originals = Originals(parts, self.input_shape)
        self.source_labels = torch.cat([part.labels for part in parts])
        fields = [("image", "<f4", self.input_shape), ("moved", "<f4")]
        fields += [(name, "<i8") for name in ("label", "before", "predicted")]
        records = ShardedRecords(self._folder(), np.dtype(fields), len(self.source_labels), self.shard_size)
        self._make_together(records)
        self._records = records
        rank_zero_info(f"{records.folder}: {self.report()}")

    def _make_together(self, records: ShardedRecords) -> None:
        """Make this process's shards, and wait for the others."""
        distributed = dist.is_available() and dist.is_initialized()
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        missing = [shard for shard in range(rank, records.num_shards, ranks) if not self._is_good(records, shard)]
        self._make_shards(records, missing, rank == 0)
        if distributed:
            dist.barrier()
        absent = [shard for shard in range(records.num_shards) if not records.path(shard).is_file()]
        if absent:
            msg = (
                f"{type(self).__name__}(data_dir={str(self.data_dir)!r}): {len(absent)} shards that other processes "
                "made are not there; the folder must be shared by all machines."
            )
            raise FileNotFoundError(msg)

    def dataset(self, split: Split, augmented: bool = True) -> Any:
        """Give the images of a split; only training images are augmented, and only if that is asked for."""
        if split == "test":
            return self.source.dataset("test")
        numbers = self.numbers(split)
        images, labels = self.images(numbers), torch.from_numpy(self.field("label"))[numbers]
        if split == "val" or not augmented:
            return ImageDataset(images, labels)
        return ImageDataset(images, labels, self.crop_padding, self.flip, self.seed, self.swap_low_frequencies)

    def numbers(self, split: Split) -> Tensor:
        """Give the numbers of the records of a split; those of validation come behind those to train on."""
        size = len(self.records)  # makes the set if it is not there
        return torch.arange(self._sizes[0]) if split == "train" else torch.arange(self._sizes[0], size)

    def images(self, numbers: Tensor) -> Any:
        """Give the images with these numbers, to be indexed by a tensor of places among them."""
        return StoredImages(self.records, numbers)

    @property
    def records(self) -> ShardedRecords:
        """The set; made if it is not there."""
        if self._records is None:
            self.setup("fit")
        assert self._records is not None
        return self._records

    def field(self, name: str) -> np.ndarray:
        """Give one field of all records.

        ``label``; ``before`` and ``predicted``: what the model sees in the original and in the new image; ``moved``:
        their L2 distance.
        """
        return self.records.field(name, np.arange(len(self.records)))

    def fingerprint(self) -> str:
        """Give the name of the set, which is a digest of all that decides it."""
        return self.records.folder.name

    def _folder(self) -> Path:
        """Give the folder of the set."""
        text = json.dumps(self._identity(), sort_keys=True)
        return self.data_dir / f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "format": _FORMAT, "seed": self.set_seed, "shard_size": self.shard_size,
            "sizes": self._sizes, "source": self.source.fingerprint(), "checkpoint": file_digest(self.checkpoint),
            **self.settings(),
        }  # fmt: skip

    def _make_shards(self, records: ShardedRecords, shards: list[int], show: bool) -> None:
        if not shards:
            return
        records.folder.mkdir(parents=True, exist_ok=True)
        (records.folder / "settings.json").write_text(json.dumps(self._identity(), indent=2, sort_keys=True) + "\n")
        model = self.load_model()
        # each process in an order of its own: another run that makes this set now makes other shards of it
        shards = random.SystemRandom().sample(shards, len(shards))
        with Progress(console=Console(stderr=True), disable=not show, transient=True) as progress:
            for shard in progress.track(shards, description=f"Making {records.folder.name}"):
                if self._is_good(records, shard):
                    continue
                records.write(shard, self._make_shard(model, records, shard))
                if not self._is_good(records, shard):
                    msg = f"{type(self).__name__}: shard {shard} left the ball, or was damaged while it was written."
                    raise RuntimeError(msg)

    def _make_shard(self, model: ImageClassifier, records: ShardedRecords, shard: int) -> np.ndarray:
        numbers = torch.tensor(records.numbers(shard))
        images, labels = self.make(model, numbers)
        originals = self.originals(numbers)
        with torch.no_grad():
            before, predicted = (model(x.to(model.device)).argmax(1) for x in (originals, images))
        made = np.empty(len(numbers), records.dtype)
        made["image"] = images.cpu().numpy()
        made["label"] = labels.cpu().numpy()
        made["before"], made["predicted"] = before.cpu().numpy(), predicted.cpu().numpy()
        made["moved"] = perturbation_norm(images.cpu() - originals, "l2").numpy()
        return made

    def _is_good(self, records: ShardedRecords, shard: int) -> bool:
        """Say whether a shard is undamaged, and its images are within the ball and the box."""
        if not records.is_whole(shard):
            return False
        images = torch.from_numpy(records.shard(shard)["image"].copy())
        if not (images.min() >= 0 and images.max() <= 1):
            return False
        ball = self.bound()
        if ball is None or math.isinf(ball[1]):
            return True
        norm, eps = ball
        moved = perturbation_norm(images - self.originals(torch.tensor(records.numbers(shard))), norm)
        return bool((moved <= eps * (1 + _ROUNDING) + 1e-7).all())

    def load_model(self) -> ImageClassifier:
        """Give the model that makes the set, on this process's device."""
        return self.load(self.checkpoint)

    def load(self, checkpoint: Path) -> ImageClassifier:
        """Load a model of the source's classes onto this process's device.

        Raises:
            ValueError: If it has others, or the file is damaged or does not say what it is.
        """
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        try:
            if not zipfile.is_zipfile(checkpoint):
                msg = "the file is damaged, or no checkpoint"
                raise TypeError(msg)
            with isolate_rng():  # initial weights are drawn before they are replaced
                model = ImageClassifier.load_from_checkpoint(checkpoint, map_location=device).eval()
        except (TypeError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            msg = (
                f"{type(self).__name__}(checkpoint={str(checkpoint)!r}): it does not give an ImageClassifier "
                f"({reason}); checkpoints that `theodolite fit` writes do."
            )
            raise ValueError(msg) from error
        if model.num_classes != self.num_classes:
            msg = (
                f"{type(self).__name__}: the checkpoint has {model.num_classes} classes, the source "
                f"{self.num_classes}; train the model on the same classes."
            )
            raise ValueError(msg)
        return model
