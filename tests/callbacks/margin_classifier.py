"""A homogeneous classifier, its data and what its margins must be: for the tests of margins."""

import math

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from theodolite.modules.margins import output_margin

LEVELS = (0.1, 0.5)


class Classifier(LightningModule):
    """A homogeneous network; ``step`` says how its step computes the logits."""

    def __init__(self, classes=3, step="self", biases=False):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, classes, bias=biases))
        self.step = step
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.network(x)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x = batch[0]
        if self.step == "self":
            self(x)
            self(x + 1)  # as an adversarial accuracy does, after or before
        elif self.step == "network":
            self.network(x)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)


def samples(count=11, classes=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 4, generator=generator), torch.randint(classes, (count,), generator=generator)


def loader(count=11, classes=3, batch_size=4):
    return DataLoader(TensorDataset(*samples(count, classes)), batch_size=batch_size)


def trainer(folder, *callbacks, **arguments):
    return Trainer(
        **{
            "accelerator": "cpu",
            "logger": CSVLogger(folder, name="", version=""),
            "callbacks": list(callbacks),
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            **arguments,
        }
    )


def expected_values(module, x, y, stage="test"):
    """Compute directly, from all samples at once, in float64 where it is a matter of precision."""
    with torch.no_grad():
        scores = module.network(x)
    margins = output_margin(scores, y)
    norm = math.sqrt(sum(float(p.detach().double().square().sum()) for p in module.parameters()))
    losses = functional.cross_entropy(scores.double(), y, reduction="none")
    wanted = {f"q{level}": float(np.quantile(margins.double().numpy(), level)) for level in LEVELS}
    wanted["min"] = float(margins.min())
    values = {f"{stage}/margin/{name}": value for name, value in wanted.items()}
    values |= {f"{stage}/margin_normalized/{name}": value / norm**2 for name, value in wanted.items()}
    return values | {
        f"{stage}/misclassified": float((margins <= 0).double().mean()),
        f"{stage}/log_loss": float(losses.mean().log()),
        f"{stage}/parameter_norm": norm,
        f"{stage}/margin_smoothed": -math.log(math.expm1(float(losses.sum()))) / norm**2,
    }
