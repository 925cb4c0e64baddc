"""The loss-based rate: on prescribed losses by hand, on a real one by what it is for, and over a restart."""

import csv
import math

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks import LossBasedLearningRate, Margins
from theodolite.modules.bias import log_logistic_loss


class Prescribed(LightningModule):
    """One weight that a step lowers by the rate; its loss begins at e, and its validation logs what it is told."""

    def __init__(self, log_losses, momentum=0.0, weight=100.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]).double())
        self.log_losses = log_losses
        self.momentum = momentum
        self.seen = []

    def training_step(self, batch, batch_idx):
        return self.weight.sum() + (math.e - self.weight.detach()).sum()  # e, with the slope one

    def validation_step(self, batch, batch_idx):
        if self.log_losses:
            self.log("val/log_loss", self.log_losses[self.current_epoch])

    def on_train_epoch_start(self):
        self.seen.append(float(self.weight.detach()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=self.momentum)


def fit(folder, module, *callbacks, batches=1, ckpt_path=None, **arguments):
    data = DataLoader(torch.zeros(batches, 1), batch_size=1)
    defaults = {
        "accelerator": "cpu",
        "logger": CSVLogger(folder, name="", version=""),
        "callbacks": list(callbacks),
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    runner = Trainer(**{**defaults, **arguments})
    runner.fit(module, data, data, ckpt_path=ckpt_path)
    return runner


def test_rates_and_weights_of_prescribed_losses_by_hand(tmp_path):
    """Up 4, down 2: alpha is 1/2, 2, 8, then the third epoch is taken back and alpha 4."""
    module = Prescribed([0.0, -1.0, -0.5, -2.0])
    fit(tmp_path, module, LossBasedLearningRate(up=4, down=2), max_epochs=4)
    rates = [0.5, 2 * math.e, 8 * math.e**2, 4 * math.e**2]  # alpha times L0 / L, L0 = e
    expected = [100.0, 100 - rates[0], 100 - rates[0] - rates[1], 100 - rates[0] - rates[1]]
    assert module.seen == pytest.approx(expected, rel=1e-6)
    assert float(module.weight.detach()) == pytest.approx(expected[-1] - rates[3], rel=1e-6)
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/rate"]]
    assert [float(row["train/rate"]) for row in rows] == pytest.approx(rates, rel=1e-6)
    assert [float(row["train/rejected_epochs"]) for row in rows] == [0, 0, 1, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_loss_that_is_not_lower_is_taken_back_with_the_momentum(tmp_path, value):
    module = Prescribed([0.0, value, -1.0], momentum=0.9)
    callback = LossBasedLearningRate(up=1, down=2)
    fit(tmp_path, module, callback, max_epochs=2)
    (buffer,) = module.optimizers().optimizer.state.values()
    assert float(buffer["momentum_buffer"]) == 1  # of one step, not of two
    assert float(module.weight.detach()) == pytest.approx(99.5)


def test_weights_that_leave_within_an_epoch_are_put_back_at_once(tmp_path):
    """A rate of 64 moves a weight of 100 by more than its norm in two steps; 32 in four; 16 stays through six."""
    module = Prescribed([0.0], weight=100.0)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=64.0)
    callback = LossBasedLearningRate(down=2)
    fit(tmp_path, module, callback, batches=2 + 4 + 6, max_epochs=1)
    assert float(module.weight.detach()) == pytest.approx(100 - 6 * 16)
    assert callback.state_dict()["rejected"] == 2


def test_training_stops_at_the_loss_asked_for(tmp_path):
    callback = LossBasedLearningRate(stop_log_loss=-1.5)
    runner = fit(tmp_path, Prescribed([0.0, -1.0, -2.0, -3.0, -4.0]), callback, max_epochs=5)
    assert runner.current_epoch == 3


@pytest.mark.parametrize("losses", [[0.0, -1.0, -0.5, -2.0], [0.0, 0.5, -1.0, -2.0]])
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path, losses):
    """In both, the second or the third epoch is taken back; the checkpoint is that of the second."""
    whole = Prescribed(losses, momentum=0.5)
    fit(tmp_path / "a", whole, LossBasedLearningRate(up=4, down=2), max_epochs=4)
    half = Prescribed(losses, momentum=0.5)
    runner = fit(tmp_path / "b", half, LossBasedLearningRate(up=4, down=2), max_epochs=2)
    runner.save_checkpoint(tmp_path / "half.ckpt")
    resumed = Prescribed(losses, momentum=0.5)
    again = LossBasedLearningRate(up=4, down=2)
    fit(tmp_path / "c", resumed, again, max_epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(resumed.weight, whole.weight)


class Separable(LightningModule):
    """A linear rule of two inputs on separable samples, by the logistic loss."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1, bias=False).double()
        nn.init.constant_(self.layer.weight, 0.1)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return log_logistic_loss(self(x)[:, 0] * (2 * y - 1)).exp() / len(y)

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def separable(batch_size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 2, generator=generator).double()
    y = (x[:, 0] > 0).long()
    x[:, 0] += 0.3 * (2 * y - 1)
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def fit_separable(folder, data, *callbacks, **arguments):
    runner = Trainer(
        callbacks=[Margins(levels=[0.5]), *callbacks], accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **arguments,
    )  # fmt: skip
    runner.fit(Separable(), data, data)
    return {key: float(value) for key, value in runner.callback_metrics.items()}


def test_the_loss_falls_exponentially_where_a_constant_rate_crawls(tmp_path):
    fast = fit_separable(tmp_path, separable(2), LossBasedLearningRate(), max_epochs=40)
    slow = fit_separable(tmp_path, separable(2), max_epochs=40)
    assert fast["val/log_loss"] < math.log(1e-8)
    assert slow["val/log_loss"] > math.log(1e-2)


@pytest.mark.ddp
@pytest.mark.timeout(600)  # two processes that import torch, on a busy machine
def test_two_ranks_with_half_the_batch_take_the_same_steps(tmp_path):
    one = fit_separable(tmp_path, separable(20), LossBasedLearningRate(up=8), max_epochs=6)
    two = fit_separable(
        tmp_path, separable(10), LossBasedLearningRate(up=8), max_epochs=6, devices=2, strategy="ddp_spawn"
    )
    assert one["train/rejected_epochs"] > 0  # what was taken back, was so on both
    assert two == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("arguments", [{"up": 0.5}, {"down": 1.0}, {"up": math.inf}])
def test_factors_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=r"LossBasedLearningRate\(up=.*needs up >= 1 and down > 1"):
        LossBasedLearningRate(**arguments)


def test_a_run_that_does_not_measure_the_loss_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"the validation logs only .*; name the logarithm"):
        fit(tmp_path, Prescribed([]), LossBasedLearningRate(), max_epochs=1)
    with pytest.raises(ValueError, match=r"needs one optimizer, and a validation on the training samples"):
        fit(tmp_path, Prescribed([0.0]), LossBasedLearningRate(), max_epochs=1, limit_val_batches=0)
