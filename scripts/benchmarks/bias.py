"""Toy problems of implicit bias: many runs side by side in one training step, against one Lightning loop a seed."""

import logging
import tempfile
import time
from typing import Any

import torch
from pytorch_lightning import Trainer

from ...datamodules import SeparableDataModule
from ...modules.bias import Dense, ImplicitBias, SteepestDescent
from .timing import row

__all__ = ["run"]

_SEEDS, _STEPS = 5, 300


def run() -> list[dict[str, Any]]:
    """Measure the steps a second of five seeds: together, and each in a Lightning loop.

    Both use the same task and optimizer; the loop takes one optimizer step a training step. The fits are timed whole,
    their beginning included, which is the same for both and small beside the steps.
    """
    together = _seconds(problems=_SEEDS, steps=20 * _STEPS, epochs=20) / (20 * _STEPS)
    alone = _SEEDS * _seconds(problems=1, steps=_STEPS, epochs=_STEPS) / _STEPS
    return [row("five toy runs side by side over one Lightning loop a seed", alone / together, "x", at_least=10)]


def _seconds(problems: int, steps: int, epochs: int) -> float:
    """Give the seconds of a fit."""
    torch.manual_seed(0)
    task = ImplicitBias(
        Dense(8, problems),
        "log_exponential",
        steps=steps,
        optimizer=lambda parameters: SteepestDescent(parameters, lr=1.0, norm="l1", batch_dims=1),
    )
    data = SeparableDataModule(problems=problems, normalize="linf")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder, max_epochs=epochs, logger=False, enable_checkpointing=False, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, log_every_n_steps=1,
        )  # fmt: skip
        start = time.perf_counter()
        trainer.fit(task, data)
        return time.perf_counter() - start
