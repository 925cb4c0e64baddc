"""Small regression tasks, and runs that measure them in double precision."""

import csv
from functools import partial

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from theodolite.datamodules import RegressionDataModule
from theodolite.modules.regression import FeedForward, Regression

QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def task(seed, widths=(1, 4, 1), error="squared"):
    torch.manual_seed(seed)
    return Regression(FeedForward(widths), error, optimizer=partial(torch.optim.Adam, lr=0.02)).double()


def data(num_samples=9, batch_size=0):
    return RegressionDataModule(num_samples=num_samples, batch_size=batch_size)


def trainer(folder, *callbacks, **options):
    logger = CSVLogger(folder, name="", version="")
    return Trainer(
        accelerator="cpu", precision="64-true", logger=logger, callbacks=list(callbacks), **{**QUIET, **options}
    )


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(value) for row in rows for key, value in row.items() if value}


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


class Foreign(LightningModule):
    """A module of somebody else: no loss(batch), and dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.5), nn.Linear(3, 1))

    def test_step(self, batch, batch_idx):
        pass
