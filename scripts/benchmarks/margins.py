"""What measuring margins adds to a validation, and what two processes gain."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ...callbacks import Margins
from ...modules.margins import first_order_margin, output_margin, summaries
from .timing import row

__all__ = ["run"]

# The whole validation split of CIFAR-10 has 5,000 images.
_IMAGES, _BATCH, _EPOCHS, _ROUNDS = 4096, 128, 13, 7


class _Convnet(LightningModule):
    """A small convolutional network with the usual validation step, that trains on next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _network()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        del batch_idx
        return functional.cross_entropy(self(batch[0][:2]), batch[1][:2])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        del batch_idx
        logits = self(batch[0])
        self.log("val/loss", functional.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class _Stopwatch(Callback):
    """Time every validation, from before its first hook to after its last."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        del trainer, pl_module
        self._start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        del trainer, pl_module
        self.seconds.append(time.perf_counter() - self._start)


def run() -> list[dict[str, Any]]:
    """Time validations with and without :class:`Margins` in turn, and margins on two processes against one.

    In the first part every second epoch of one run is measured, by output and normalized margins; the first two epochs
    warm up, with the test of homogeneity in them. In the second part, the first-order distances of images are measured
    by one process and by two with the same number each, the quantiles and the histogram of all included. Its bound is
    on two free cores.
    """
    with tempfile.TemporaryDirectory() as folder:
        overhead = _overhead(folder)
        mp.spawn(_process, args=(folder,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
        ratio = float((Path(folder) / "ratio").read_text())
    setting = f"{_IMAGES} images of 3x32x32, convnet"
    return [
        row(f"validation with Margins over that without, {setting}", overhead, "x", at_most=1.05),
        row("Margins with input distances, throughput of 2 processes over 1", ratio, "x", at_least=1.8),
    ]


def _overhead(folder: str) -> float:
    torch.manual_seed(0)
    watch = _Stopwatch()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2 * _EPOCHS,
        callbacks=[watch, Margins(every_n_epochs=2)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        limit_train_batches=2,
    )
    loader = DataLoader(TensorDataset(*_images(_IMAGES)), batch_size=_BATCH)
    trainer.fit(_Convnet(), loader, loader)
    pairs = zip(watch.seconds[2::2], watch.seconds[3::2], strict=True)
    return statistics.median(measured / bare for bare, measured in pairs)


def _process(rank: int, folder: str) -> None:
    """Take rounds of measurements, in turn on rank 0 alone and on both; rank 0 writes the ratio of throughputs."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = _network().eval()
    x, y = _images(_IMAGES // 4)
    ratios = []
    for _ in range(_ROUNDS + 1):
        alone = _measure(network, x, y, lambda counts: counts) if rank == 0 else 0.0
        dist.barrier()
        both = _measure(network, x, y, _add)
        dist.barrier()
        ratios.append(2 * alone / both)
    if rank == 0:
        (Path(folder) / "ratio").write_text(str(statistics.median(ratios[1:])))  # the first round warms up
    dist.destroy_process_group()


def _measure(network: nn.Module, x: Tensor, y: Tensor, add: Any) -> float:
    """Measure as the callback does and give the seconds."""
    start = time.perf_counter()
    rows = []
    for images, labels in zip(x.split(_BATCH), y.split(_BATCH), strict=True):
        with torch.no_grad():
            margin = output_margin(network(images), labels)
        rows.append(torch.stack([margin, first_order_margin(network, images, labels, "l2")], dim=1))
    summaries(torch.cat(rows).double(), [0.0, 0.01, 0.1, 0.5, 0.9], 50, add)
    return time.perf_counter() - start


def _add(counts: Tensor) -> Tensor:
    dist.all_reduce(counts)
    return counts


def _network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1, bias=False),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10, bias=False),
    )  # fmt: skip


def _images(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, 3, 32, 32, generator=generator), torch.randint(10, (number,), generator=generator)
