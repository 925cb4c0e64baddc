"""The transfer matrix against attacks made by hand, on one process and on two."""

import csv

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from theodolite.callbacks import Transferability
from theodolite.modules.attacks import PGD, MaskedGradientsWarning

from .classifiers import Boring, Images, StockClassifier, loader, torchvision_classifier, trainer

NAMES = ["tested", "second", "third"]
ATTACK = PGD(eps=0.5, steps=10)


class Shifted(StockClassifier):
    """A classifier whose weights depend on an argument that the checkpoint holds."""

    def __init__(self, seed=0, scale=1.0):
        super().__init__()
        self.save_hyperparameters()
        self.scale = scale
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                weight += 0.15 * torch.randn(weight.shape, generator=generator)

    def forward(self, x):
        return self.scale * self.net(x)


@pytest.fixture
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")

    def save(**modules):
        paths = {}
        for name, module in modules.items():
            runner = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
            runner.strategy.connect(module)
            paths[name] = str(folder / f"{name}.ckpt")
            runner.save_checkpoint(paths[name])
        return paths

    return save


def table(path):
    with path.open() as file:
        return {row["made against"]: row for row in csv.DictReader(file)}


def test_entries_are_those_of_attacks_by_hand(tmp_path, checkpoints):
    models = [Shifted(seed).eval() for seed in range(3)]
    measure = Transferability(ATTACK, checkpoints(second=models[1], third=models[2]))
    result = trainer(tmp_path, measure).test(models[0], loader(), verbose=False)[0]
    x, y, rows = Images().x, Images().y, table(tmp_path / "tables/test/transfer_accuracy.csv")
    right = [model(x).argmax(1) == y for model in models]
    values = []
    for a, source in enumerate(NAMES):
        changed = ATTACK(models[a], x, y, torch.arange(21))
        for b, target in enumerate(NAMES):
            both = right[a] & right[b]
            expected = float((models[b](changed).argmax(1) == y)[both].double().mean())
            assert result[f"test/transfer_accuracy/{source}_to_{target}"] == pytest.approx(expected)
            assert float(rows[source][target]) == pytest.approx(expected)
            values.append(expected)
    assert len(set(values)) > 4  # the entries can be told apart
    for b, target in enumerate(NAMES):
        assert float(rows["clean"][target]) == pytest.approx(float(right[b].double().mean()))
        assert float(rows["noise"][target]) > float(rows[target][target])
    assert (tmp_path / "figures/test/transfer_accuracy.png").is_file()


def test_the_same_model_twice_is_fooled_by_its_own_examples(tmp_path, checkpoints):
    measure = Transferability(ATTACK, checkpoints(twin=Shifted()))
    result = trainer(tmp_path, measure).test(Shifted(), loader(), verbose=False)[0]
    entries = {result[f"test/transfer_accuracy/{a}_to_{b}"] for a in ("tested", "twin") for b in ("tested", "twin")}
    assert len(entries) == 1


def test_transfer_that_beats_the_own_attack_is_reported(tmp_path, checkpoints):
    """Saturated logits have no gradient; examples made against the same weights without the factor fool them."""
    measure = Transferability(PGD(eps=1.0, steps=10, random_start=False), checkpoints(masked=Shifted(scale=1e4)))
    with pytest.warns(MaskedGradientsWarning, match=r"made against tested fool masked more often than its own"):
        trainer(tmp_path, measure).test(Shifted(), loader(), verbose=False)


class NeedsMore(LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def test_step(self, batch, batch_idx):
        pass


def test_a_checkpoint_that_does_not_rebuild_the_module_is_named(tmp_path, checkpoints):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    measure = Transferability(ATTACK, checkpoints(other=NeedsMore(net)))
    with pytest.raises(ValueError, match=r"other.ckpt does not give a NeedsMore: .*missing 1 required"):
        trainer(tmp_path, measure).test(NeedsMore(net), loader(), verbose=False)


def test_mistakes_are_refused_at_construction(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a is said to be in .*missing.ckpt, but there is no such file"):
        Transferability(ATTACK, {"a": str(tmp_path / "missing.ckpt")})
    for name in ("noise", "tested", "a/b", ""):
        with pytest.raises(ValueError, match="cannot be a name; avoid tested, noise, clean"):
            Transferability(ATTACK, {name: "a.ckpt"})
    with pytest.raises(ValueError, match="must be untargeted and of finite radius"):
        Transferability(PGD(targeted=True), {})
    with pytest.raises(ValueError, match=r"Transferability\(seed=-1\)"):
        Transferability(ATTACK, {}, seed=-1)


class OfTorchvision(StockClassifier):
    def __init__(self):
        super().__init__(torchvision_classifier().net)


@pytest.mark.parametrize("kind", ["demo", "torchvision"])
def test_modules_that_nobody_here_wrote(tmp_path, checkpoints, kind):
    """Lightning's own demo, and a network of torchvision: a copy is fooled by what fools the original."""
    torch.manual_seed(0)
    module, x = (Boring(), torch.rand(5, 32)) if kind == "demo" else (OfTorchvision(), torch.rand(4, 3, 32, 32))
    data = torch.utils.data.TensorDataset(x, module.eval()(x).argmax(1))
    measure = Transferability(PGD(eps=10.0, steps=20), checkpoints(copy=module))
    result = trainer(tmp_path, measure).test(module, loader(data), verbose=False)[0]
    rows = table(tmp_path / "tables/test/transfer_accuracy.csv")
    assert float(rows["tested"]["tested"]) < 1
    assert rows["copy"]["tested"] == rows["tested"]["tested"] == rows["tested"]["copy"]
    assert any(key.startswith("test/transfer_accuracy") for key in result)
