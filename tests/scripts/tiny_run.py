"""A task and a datamodule small enough to run the whole command line in a second.

Dropout, a shuffling loader with torch's own generator and a scheduler: what a resume could get wrong.
"""

import os
import signal
import time

import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks.media import log_figure, log_table
from theodolite.modules import Task


class TinyTask(Task):
    """Fit a line through dropout; the command line sets its width and rate."""

    monitor, mode = "val/loss", "min"

    def __init__(self, num_classes: int = 7, width: int = 4, lr: float = 0.1, explode_at: int = -1) -> None:
        super().__init__()
        if width < 1:
            msg = f"TinyTask(width={width}): width must be >= 1."
            raise ValueError(msg)
        self.save_init_arguments()
        self.num_classes = num_classes
        self.lr = lr
        self.explode_at = explode_at
        self.net = nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5), nn.Linear(width, num_classes))

    def forward(self, x):
        return self.net(x)

    def num_samples(self, batch):
        return len(batch[0])

    def loss(self, batch):
        if self.training and self.global_step == self.explode_at:
            return self(batch[0]).sum() * float("nan")
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        time.sleep(float(os.environ.get("TINY_STEP_SECONDS", "0")))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), batch_size=float(len(batch[0])), sync_dist=True)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self.loss(batch), batch_size=float(len(batch[0])), sync_dist=True)

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.7)]


class TinyData(LightningDataModule):
    """Points and labels drawn from a fixed seed."""

    def __init__(
        self, num_classes: int = 3, samples: int = 24, batch_size: int = 4, fail_in_setup: bool = False
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.samples = samples
        self.batch_size = batch_size
        self.fail_in_setup = fail_in_setup

    def setup(self, stage):
        if self.fail_in_setup:
            msg = "no data in /nowhere; download them from there."
            raise FileNotFoundError(msg)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(self.samples, 3, generator=generator)
        y = torch.randint(self.num_classes, (self.samples,), generator=generator)
        self.dataset = TensorDataset(x, y)

    def train_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.dataset, batch_size=self.batch_size)

    test_dataloader = predict_dataloader = val_dataloader


class Draws(Callback):
    """Log a figure and a table, as our measurements do."""

    def on_test_end(self, trainer, pl_module):
        figure = Figure()
        figure.subplots().plot([0, 1], [1, 0])
        log_figure(trainer, "test/curve", figure)
        log_table(trainer, "test/table", ["snr", "overlap"], [[1.0, 0.5], [2.0, 0.75]])


class Terminated(Callback):
    """A long measurement after the last batch, which a scheduler ends."""

    def on_test_epoch_end(self, trainer, pl_module):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("goes on after the signal")

    on_validation_epoch_end = on_predict_epoch_end = on_test_epoch_end


class TerminatedOnOneRank(Callback):
    """The first process gets the signal while the others wait for it in a collective."""

    def on_test_epoch_end(self, trainer, pl_module):
        if trainer.global_rank == 0:
            time.sleep(0.5)
            signal.raise_signal(signal.SIGTERM)
        dist.all_gather_object([None] * trainer.world_size, torch.zeros(1000))
        raise AssertionError("goes on after the signal")


class PressesCtrlC(Callback):
    """Interrupt the process in the second epoch, as a user does."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
