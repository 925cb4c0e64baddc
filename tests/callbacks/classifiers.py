"""Classifiers and images for the callbacks, of the kinds that other projects have."""

import torch
import torchvision
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    """Two kinds of noisy images, bright above or bright below, in the forms that loaders give."""

    def __init__(self, number=21, form="tuple", size=8, channels=1, noise=0.4):
        generator = torch.Generator().manual_seed(0)
        self.y = torch.randint(2, (number,), generator=generator)
        pattern = torch.zeros(2, channels, size, size)
        pattern[0, :, : size // 2] = pattern[1, :, size // 2 :] = 0.17
        noise = noise * torch.randn(number, channels, size, size, generator=generator)
        self.x = (0.4 + pattern[self.y] + noise).clamp(0, 1)
        self.form = form

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        match self.form:
            case "tuple":
                return self.x[i], self.y[i]
            case "numbered":
                return self.x[i], self.y[i], i
            case _:
                return {"image": self.x[i], "label": self.y[i]}


class StockClassifier(LightningModule):
    """What any project writes: a network, cross-entropy, a few logged numbers. It has not heard of theodolite."""

    def __init__(self, net=None):
        super().__init__()
        self.net = net or small_net()

    def forward(self, x):
        return self.net(x)

    def _loss(self, batch):
        x, y = batch.values() if isinstance(batch, dict) else batch[:2]
        return nn.functional.cross_entropy(self(x), y)

    def training_step(self, batch, batch_idx):
        return self._loss(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self._loss(batch)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self._loss(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Boring(BoringModel):
    """Lightning's own demo: 32 numbers to 2 logits; its steps would not take a label."""

    def test_step(self, batch, batch_idx):
        return super().test_step(batch[0], batch_idx)


def small_net():
    """A network with batch normalisation and dropout that gets most of the images right, without training."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in net:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
    with torch.no_grad():
        half = torch.cat([torch.ones(32), -torch.ones(32)])
        net[1].running_mean += 0.5
        net[2].weight += 0.1 * half * torch.tensor([1.0, -1.0]).repeat(4)[:, None]
        net[5].weight += torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 4)
    return net


def torchvision_classifier():
    """A network of torchvision, smaller."""
    torch.manual_seed(0)
    return StockClassifier(torchvision.models.squeezenet1_1(num_classes=2))


def loader(dataset=None, batch_size=4, **arguments):
    return DataLoader(dataset or Images(), batch_size, **arguments)


def trainer(tmp_path, *callbacks, **arguments):
    defaults = {
        "accelerator": "cpu",
        "logger": CSVLogger(tmp_path, name="", version=""),
        "callbacks": list(callbacks),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return Trainer(**{**defaults, **arguments})
