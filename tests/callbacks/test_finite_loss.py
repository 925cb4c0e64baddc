"""FiniteLoss stops a run before the weights are spoiled, in any Lightning project."""

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from theodolite.callbacks import FiniteLoss, NonFiniteLossError


class Explodes(LightningModule):
    """A loss that is finite for two steps."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(self.weight.detach().clone())
        return (self.weight * batch).sum() * (self.value if batch_idx == 2 else 1.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module, folder, callbacks):
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, DataLoader(torch.ones(4, 3), batch_size=1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_stay_those_before_the_bad_step(tmp_path, value):
    module = Explodes(value)
    with pytest.raises(NonFiniteLossError, match=r"loss is (nan|-?inf) at step 2, epoch 0.*no checkpoint yet"):
        fit(module, tmp_path, [FiniteLoss()])
    assert len(module.seen) == 3
    assert torch.equal(module.weight, module.seen[2])


def test_finite_loss_is_let_through(tmp_path):
    module = Explodes(1e30)
    fit(module, tmp_path, [FiniteLoss()])
    assert len(module.seen) == 4


@pytest.mark.ddp
@pytest.mark.timeout(600)  # two processes that import torch, on a busy machine
def test_a_bad_loss_on_one_rank_stops_both(tmp_path):
    """Rank one alone sees a NaN; if rank zero went on, it would wait for the other's gradients for ever."""
    data = torch.ones(4, 32)
    data[1] = torch.nan
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, callbacks=[FiniteLoss()],
        default_root_dir=tmp_path, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        limit_val_batches=0,
    )  # fmt: skip
    with pytest.raises(ProcessRaisedException, match=r"NonFiniteLossError: the training loss .* at step 0, epoch 0"):
        trainer.fit(BoringModel(), DataLoader(data, batch_size=1))
