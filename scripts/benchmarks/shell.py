"""What Lightning, logging and callbacks cost on top of a bare training loop."""

import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ...modules.community import CommunityDetection, assignment_loss
from .timing import row

__all__ = ["run"]

_CONFIG = Path(__file__).parent.parent / "configs" / "community" / "quickstart.yaml"
_CLIP, _RATE = 40.0, 0.004
_EPOCHS = 12


class _BareEpochs(Callback):
    """Train a copy of the network by a bare loop before each epoch of Lightning's, on the same batches, and time both.

    Lightning's time is that from one bare loop to the next: steps, logging, checkpoints and progress bar.
    """

    def __init__(self, datamodule: Any) -> None:
        self.loader = datamodule.train_dataloader()
        self.bare: list[float] = []
        self.lightning: list[float] = []
        self._start: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the network."""
        del trainer, stage
        assert isinstance(pl_module, CommunityDetection)
        self.network = copy.deepcopy(pl_module.network)
        self.optimizer = torch.optim.Adamax(self.network.parameters(), lr=_RATE)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the time of Lightning's last epoch and run the bare one."""
        del pl_module
        start = time.perf_counter()
        if self._start is not None:
            self.lightning.append(start - self._start)
        self.loader.sampler.set_epoch(trainer.current_epoch)
        self._epoch()
        self._start = time.perf_counter()
        self.bare.append(self._start - start)

    def _epoch(self) -> None:
        for batch in self.loader:
            loss = assignment_loss(self.network(batch), batch.y, batch.batch, batch.num_graphs).mean()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), _CLIP)
            self.optimizer.step()


def run() -> list[dict[str, Any]]:
    """Train the quick-start's network through the command line's own Trainer, epoch by epoch beside the bare loop.

    As shipped: W&B (offline) and CSV loggers, checkpoints, resume and finite-loss callbacks. The first epoch warms up.
    The scheduler and the readouts on the way are left out on both sides, and so is validation, which a bare loop does
    not have.
    """
    from ..cli import TheodoliteCLI

    with tempfile.TemporaryDirectory() as folder:
        words = ["fit", "--config", str(_CONFIG), "--runs_dir", folder, "--wandb", "offline"]
        words += ["--test_after_fit", "false", "--trainer.max_epochs", str(_EPOCHS), "--trainer.limit_val_batches", "0"]
        words += ["--trainer.gradient_clip_val", str(_CLIP), "--model.init_args.lr_scheduler", "null"]
        words += ["--model.init_args.network.init_args.readout_every", "0"]
        words += ["--model.init_args.optimizer", "torch.optim.Adamax"]
        words += ["--model.init_args.optimizer.init_args.lr", str(_RATE)]
        words += ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
        cli = TheodoliteCLI(words)
        epochs = _BareEpochs(cli.datamodule)
        cli.trainer.callbacks.append(epochs)  # pyright: ignore[reportAttributeAccessIssue]
        cli.execute()
    pairs = list(zip(epochs.bare, epochs.lightning, strict=False))[1:]
    overhead = statistics.median(lightning / bare for bare, lightning in pairs) - 1
    return [row("Lightning shell, time over a bare loop", 100 * overhead, "%", at_most=5)]
