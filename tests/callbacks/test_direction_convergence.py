"""Directions against closed forms and direct computations, on one process and two, for modules of other projects."""

import math

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks import DirectionConvergence

from .classifiers import Images, StockClassifier, loader, trainer


class Stock(LightningModule):
    """What another project writes: a network and cross-entropy, of two classes for a single output."""

    def __init__(self, network, lr=0.5):
        super().__init__()
        self.network = network
        self.lr = lr

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        scores = self(x)
        if scores.shape[1] == 1:
            return functional.softplus(-scores[:, 0] * (2 * y - 1)).mean()
        return functional.cross_entropy(scores, y)

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def test_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Data(LightningDataModule):
    """The same samples to train on and to measure."""

    def __init__(self, x, y, batch_size=4):
        super().__init__()
        self.loader = DataLoader(TensorDataset(x, y), batch_size=batch_size)

    def train_dataloader(self):
        return self.loader

    def val_dataloader(self):
        return self.loader

    def test_dataloader(self):
        return self.loader


def linear(weight):
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


def relu_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False))


def measured(folder, module, data, *arguments, stage="test", **keywords):
    callback = DirectionConvergence(*arguments, **keywords)
    result = trainer(folder, callback, logger=False).test(module, data, verbose=False)[0]
    return result[f"{stage}/direction_angle_degrees"], result.get(f"{stage}/direction_margin_ratio")


def saved(path, module):
    torch.save({"state_dict": module.state_dict()}, path)
    return str(path)


def test_rule_at_45_degrees_to_the_largest_margin(tmp_path):
    """Two points at (1, 0) and (-1, 0): the maximum-margin rule is the first axis, with margin 1."""
    data = Data(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([1, 0]))
    angle, ratio = measured(tmp_path, Stock(linear([[3.0, 3.0]])), data)
    assert angle == pytest.approx(45.0, abs=1e-5)
    assert ratio == pytest.approx(math.sqrt(0.5), rel=1e-6)
    two_outputs = Stock(linear([[0.0, 0.0], [3.0, 3.0]]))  # the reference moves both outputs, by as much
    angle, ratio = measured(tmp_path, two_outputs, data)
    assert angle == pytest.approx(60.0, abs=1e-5)
    assert ratio == pytest.approx(3 / math.sqrt(18) / math.sqrt(2), rel=1e-6)


def test_three_classes_at_120_degrees_are_their_own_reference(tmp_path):
    points = [[math.cos(2 * math.pi * k / 3), math.sin(2 * math.pi * k / 3)] for k in range(3)]
    data = Data(torch.tensor(points), torch.arange(3))
    angle, ratio = measured(tmp_path, Stock(linear(points)), data)
    assert angle == pytest.approx(0, abs=1e-4)
    assert ratio == pytest.approx(1, rel=1e-6)


def test_gradient_descent_turns_to_the_largest_margin_of_the_training_samples(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, generator=generator)
    y = (x[:, 0] > 0).long()
    x[:, 0] += 0.5 * (2 * y - 1)
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 1, bias=False))
    values = []
    for epochs in (1, 60):
        run = trainer(tmp_path, DirectionConvergence(every_n_epochs=epochs), max_epochs=epochs, logger=False)
        run.fit(Stock(deep), datamodule=Data(x, y, batch_size=11))
        values.append(
            [float(run.callback_metrics[f"val/direction_{name}"]) for name in ("angle_degrees", "margin_ratio")]
        )
    (first, ratio), (last, better) = values
    assert last < first / 2
    assert ratio < better <= 1


def test_checkpoint_of_the_same_direction_and_of_another(tmp_path):
    torch.manual_seed(3)
    x = torch.randn(11, 4)
    module, other = Stock(relu_network(0)), Stock(relu_network(1))
    y = other(x).argmax(1)
    data = Data(x, y)
    twice = Stock(relu_network(1))
    twice.load_state_dict({name: 2 * value for name, value in other.state_dict().items()})
    assert measured(tmp_path, other, data, saved(tmp_path / "twice.ckpt", twice)) == pytest.approx((0, 1), abs=1e-5)
    angle, ratio = measured(tmp_path, module, data, saved(tmp_path / "other.ckpt", other))
    flat = [torch.cat([p.detach().double().flatten() for p in m.parameters()]) for m in (module, other)]
    cosine = float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm())
    assert angle == pytest.approx(math.degrees(math.acos(cosine)), rel=1e-6)
    least = []
    for network, weights in zip((module, other), flat, strict=True):
        scores = network(x).detach().double()
        own = scores.gather(1, y[:, None])[:, 0]
        least.append(float((own - scores.scatter(1, y[:, None], -torch.inf).amax(1)).min() / weights.norm() ** 2))
    assert ratio == pytest.approx(least[0] / least[1], rel=1e-5)
    given = measured(tmp_path, module, data, saved(tmp_path / "other.ckpt", other), degree=2.0)
    assert given == pytest.approx((angle, ratio), rel=1e-9)


def test_foreign_module_that_is_not_homogeneous_has_an_angle_and_is_left_as_found(tmp_path, caplog):
    module, other = StockClassifier(), StockClassifier()
    torch.manual_seed(5)
    nn.init.normal_(other.net[2].weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with caplog.at_level("INFO"):
        angle, ratio = measured(tmp_path, module, loader(), saved(tmp_path / "other.ckpt", other))
    assert 0 < angle < 180
    assert ratio is None
    assert "DirectionConvergence: the network is not homogeneous" in caplog.text
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_reference_that_misclassifies_has_an_angle_alone(tmp_path, caplog):
    x = torch.randn(5, 4)
    module = Stock(relu_network())
    data = Data(x, (module(x).argmax(1) + 1) % 3)
    with caplog.at_level("INFO"):
        angle, ratio = measured(tmp_path, module, data, saved(tmp_path / "same.ckpt", module))
    assert (angle, ratio) == (0, None)
    assert "the reference misclassifies a sample" in caplog.text


def test_bad_arguments_and_references_are_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"DirectionConvergence\(reference='no.ckpt'\): there is no such"):
        DirectionConvergence("no.ckpt")
    with pytest.raises(ValueError, match=r"DirectionConvergence\(degree=0\): must be > 0"):
        DirectionConvergence(degree=0.0)
    with pytest.raises(ValueError, match=r"DirectionConvergence\(max_samples=0\)"):
        DirectionConvergence(max_samples=0)
    other = saved(tmp_path / "other.ckpt", Stock(linear([[1.0]])))
    data = Data(torch.randn(5, 4), torch.randint(3, (5,)))
    with pytest.raises(
        ValueError, match=r"DirectionConvergence\(reference=.*give a checkpoint of the same architecture"
    ):
        measured(tmp_path, Stock(relu_network()), data, other)


def test_what_has_no_largest_margin_is_one_clear_line(tmp_path):
    x, y = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="the data are not separable by a linear rule without intercept"):
        measured(tmp_path, Stock(linear([[1.0, 0.0]])), Data(x, y))
    with pytest.raises(ValueError, match="the weights are all zero, so they have no direction"):
        measured(tmp_path, Stock(linear([[0.0, 0.0]])), Data(x, 1 - y + torch.tensor([0, 1])))
    with pytest.raises(ValueError, match=r"not linear in its input without intercept .* compare with a checkpoint"):
        measured(tmp_path, Stock(relu_network()), Data(torch.randn(5, 4), torch.randint(3, (5,))))
    with pytest.raises(ValueError, match="needs training batches, and this trainer has none: give it a datamodule"):
        measured(tmp_path, StockClassifier(), loader(Images()))
    wide = Stock(nn.Linear(3000, 3, bias=False))
    with pytest.raises(ValueError, match=r"has 9.0e\+07 numbers, more than 2e\+07; give a checkpoint"):
        measured(tmp_path, wide, Data(torch.randn(5000, 3000), torch.randint(3, (5000,))))


@pytest.mark.ddp
@pytest.mark.timeout(600)  # two processes that import torch, on a busy machine
@pytest.mark.parametrize("kind", ["checkpoint", "largest margin"])
def test_two_ranks_give_what_one_gives_with_a_count_that_two_does_not_divide(tmp_path, kind):
    """Lightning's own distributed sampler repeats a sample here: it must count once."""
    torch.manual_seed(0)
    x = torch.randn(11, 4)
    other = Stock(relu_network(1) if kind == "checkpoint" else nn.Linear(4, 3, bias=False))
    module = Stock(relu_network(0) if kind == "checkpoint" else nn.Linear(4, 3, bias=False))
    data = Data(x, other(x).argmax(1))
    words = [saved(tmp_path / "other.ckpt", other)] if kind == "checkpoint" else []
    one = measured(tmp_path / "one", module, data, *words)
    runner = trainer(tmp_path / "two", DirectionConvergence(*words), devices=2, strategy="ddp_spawn", logger=False)
    two = runner.test(module, data, verbose=False)[0]
    assert None not in one
    assert [two["test/direction_angle_degrees"], two["test/direction_margin_ratio"]] == pytest.approx(one, rel=1e-9)
