"""An attack inside a module's own steps, in all four loops of the Trainer with default flags."""

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from theodolite.modules.attacks import FGSM, PGD

from .networks import images, small_cnn

ATTACK = PGD(eps=0.3, steps=3, restarts=2)


class Attacked(LightningModule):
    """Attacks itself in every step, and keeps what it found."""

    def __init__(self):
        super().__init__()
        self.net = small_cnn()
        self.found = []

    def forward(self, x):
        return self.net(x)

    def _attack(self, batch):
        x, y, number = batch
        modes = [m.training for m in self.modules()]
        changed = ATTACK(self, x, y, number)
        assert [m.training for m in self.modules()] == modes
        self.found.append(changed.clone())
        return torch.nn.functional.cross_entropy(self(changed), y.clone())

    def training_step(self, batch, batch_idx):
        return self._attack(batch)

    def validation_step(self, batch, batch_idx):
        self._attack(batch)

    def test_step(self, batch, batch_idx):
        self._attack(batch)

    def predict_step(self, batch, batch_idx):
        return self._attack(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize("loop", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_loop_finds_the_same(tmp_path, loop, precision):
    x, y, number = images()
    expected = ATTACK(small_cnn(), x, y, number)
    module = Attacked()
    runner = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1,
        enable_model_summary=False, default_root_dir=tmp_path, precision=precision,
        log_every_n_steps=1, num_sanity_val_steps=0,
    )  # fmt: skip
    loader = DataLoader(TensorDataset(x, y, number), len(x))
    if loop == "fit":
        runner.fit(module, loader, loader)  # the validation inside fit has a gradient mode of its own
    else:
        getattr(runner, loop)(module, loader)
    assert len(module.found) == (2 if loop == "fit" else 1)
    torch.testing.assert_close(module.found[0], expected, rtol=0, atol=1e-6)


def test_fgsm_in_training_leaves_the_gradients_of_the_parameters_to_the_loss():
    model, (x, y, _) = small_cnn(), images()
    changed = FGSM(0.1)(model, x, y)
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.nn.functional.cross_entropy(model(changed), y).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
