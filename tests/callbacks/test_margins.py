"""Margins against a direct computation: in every loop, on one process and two, for modules that nobody here wrote."""

import csv
import math

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.demos.boring_classes import BoringModel
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks import Margins
from theodolite.modules.attacks import PGD
from theodolite.modules.margins import output_margin, spectral_complexity

from .margin_classifier import LEVELS, Classifier, expected_values, loader, samples, trainer


@pytest.mark.parametrize("step", ["self", "network", "none"])
def test_values_are_those_of_a_direct_computation(tmp_path, step):
    module = Classifier(step=step)
    result = trainer(tmp_path, Margins(LEVELS)).test(module, loader(), verbose=False)[0]
    expected = expected_values(module, *samples())
    assert set(result) == set(expected)
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, rel=1e-6), key
    assert (tmp_path / "figures/test/margins.png").is_file()
    with (tmp_path / "tables/test/margins.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["margin/min"]) == pytest.approx(expected["test/margin/min"], rel=1e-6)


def test_logits_of_the_modules_own_step_are_not_computed_again(tmp_path):
    for step, calls in (("self", 2), ("network", 1), ("none", 1)):
        module = Classifier(step=step)
        with_none = trainer(tmp_path / step, Margins(normalized=False))
        with_none.test(module, loader(), verbose=False)
        assert module.calls == 3 * calls  # of three batches
        assert not module._forward_hooks


def test_a_single_class_in_every_batch_and_ties(tmp_path):
    module = Classifier()
    nn.init.zeros_(module.network[2].weight)
    data = DataLoader(TensorDataset(torch.rand(5, 4), torch.full((5,), 2)), batch_size=2)
    result = trainer(tmp_path, Margins(LEVELS)).test(module, data, verbose=False)[0]
    assert result["test/misclassified"] == 1  # a tie is not decided for the label
    assert result["test/margin/min"] == result["test/margin/q0.5"] == 0
    assert result["test/log_loss"] == pytest.approx(math.log(math.log(3)))
    assert not any("normalized" in key for key in result)  # the output is zero: nothing can be said


class Single(Classifier):
    """One output of two classes."""

    def __init__(self):
        super().__init__(classes=1)

    def forward(self, x):
        return self.network(x)[:, 0]


def test_single_output_of_two_classes(tmp_path):
    module = Single()
    x, y = samples(classes=2)
    result = trainer(tmp_path, Margins(LEVELS)).test(module, loader(classes=2), verbose=False)[0]
    margins = (module(x) * (2 * y - 1)).detach()
    assert result["test/margin/min"] == pytest.approx(float(margins.min()))
    assert result["test/log_loss"] == pytest.approx(float(functional.softplus(-margins).mean().log()), rel=1e-5)


def test_a_loss_that_underflows_is_still_measured(tmp_path):
    module = Classifier(classes=2)
    with torch.no_grad():
        module.network[2].weight.mul_(1e5)
    x, _ = samples()
    y = module.network(x).argmax(1)
    data = DataLoader(TensorDataset(x, y), batch_size=4)
    result = trainer(tmp_path, Margins(LEVELS)).test(module, data, verbose=False)[0]
    margin = result["test/margin/min"]
    assert margin > 800  # exp(-800) is 0 in float64
    assert -margin - math.log(11) <= result["test/log_loss"] <= -margin + 1e-3 * margin
    assert result["test/margin_smoothed"] == pytest.approx(result["test/margin_normalized/min"], rel=1e-3)


def test_input_margins_distance_and_spectral_margin(tmp_path):
    module = Classifier()
    attack = PGD(norm="l2", eps=1.0, steps=5, random_start=False)
    callback = Margins(LEVELS, spectral=True, input_norms=["l2", "linf"], attack=attack, bisections=6)
    result = trainer(tmp_path, callback).test(module, loader(), verbose=False)[0]
    x, y = samples()
    leaf = x.clone().requires_grad_()
    margin = output_margin(module.network(leaf), y)
    slope = torch.autograd.grad(margin.sum(), leaf)[0]
    for norm, length in (("l2", slope.norm(dim=1)), ("linf", slope.abs().sum(1))):
        assert result[f"test/input_margin_{norm}/min"] == pytest.approx(
            float((margin / length).min().detach()), rel=1e-4
        )
    scale = len(x) / (math.exp(spectral_complexity(module.network, x)) * float(x.norm()))
    assert result["test/margin_spectral/min"] == pytest.approx(scale * float(margin.min().detach()), rel=1e-4)
    assert result["test/distance_l2/min"] == 0  # some are misclassified
    assert 0 < result["test/misclassified"] < 1


@pytest.mark.parametrize("classes", [1, 2])
def test_linear_margins_are_distances_in_the_dual_norm(tmp_path, classes):
    """For two classes the first order is exact."""
    module = Single() if classes == 1 else Classifier(classes=2)
    module.network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, classes, bias=False))
    callback = Margins(LEVELS, input_norms=["l2", "linf"], weight_norms=["l2", "l1"])
    result = trainer(tmp_path, callback).test(module, loader(classes=2), verbose=False)[0]
    for weight_norm, input_norm in (("l2", "l2"), ("l1", "linf")):
        for statistic in ("min", "q0.5"):
            value = result[f"test/margin_{weight_norm}/{statistic}"]
            assert value == pytest.approx(result[f"test/input_margin_{input_norm}/{statistic}"], rel=1e-4)


def test_linear_margins_of_a_module_that_is_not_linear_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the model is not linear in its input without intercept"):
        trainer(tmp_path, Margins(weight_norms=["l1"])).test(Classifier(), loader(), verbose=False)


def test_validate_measures_and_max_samples_spreads_over_the_set(tmp_path):
    module = Classifier()
    x, y = samples()
    result = trainer(tmp_path, Margins(LEVELS, max_samples=3)).validate(module, loader(), verbose=False)[0]
    margins = output_margin(module.network(x), y).detach()
    margins, third = margins.detach(), [3, 7, 10]  # of eleven, evenly spread
    assert result["val/margin/min"] == pytest.approx(float(margins[third].min()), rel=1e-5)
    assert result["val/misclassified"] == pytest.approx(float((margins[third] <= 0).double().mean()))


def test_several_dataloaders_are_apart(tmp_path):
    module = Classifier()
    result = trainer(tmp_path, Margins(LEVELS)).test(module, [loader(), loader(5)], verbose=False)
    merged = {key: value for part in result for key, value in part.items()}
    first, second = (output_margin(module.network(x), y).min().detach() for x, y in (samples(), samples(5)))
    assert merged["test/margin/min"] == pytest.approx(float(first), rel=1e-5)
    assert merged["test/margin/min/loader_1"] == pytest.approx(float(second), rel=1e-5)


def test_what_breaks_homogeneity_is_said_and_a_given_degree_is_taken(tmp_path, caplog):
    with caplog.at_level("INFO"):
        result = trainer(tmp_path / "a", Margins(LEVELS)).test(Classifier(biases=True), loader(), verbose=False)[0]
    # a bias at zero breaks nothing; torch's is not
    assert "not homogeneous" in caplog.text
    assert "network.2.bias" in caplog.text
    assert not any("normalized" in key or "smoothed" in key for key in result)
    module = Classifier(biases=True)
    result = trainer(tmp_path / "b", Margins(LEVELS, degree=3)).test(module, loader(), verbose=False)[0]
    expected = result["test/margin/min"] / result["test/parameter_norm"] ** 3
    assert result["test/margin_normalized/min"] == pytest.approx(expected, rel=1e-5)


class Torchvision(LightningModule):
    """A stock network of torchvision; its step does not use ``self.forward``."""

    def __init__(self):
        super().__init__()
        from torchvision.models import squeezenet1_1

        torch.manual_seed(0)
        self.model = squeezenet1_1(num_classes=4)

    def forward(self, x):
        return self.model(x)

    def test_step(self, batch, batch_idx):
        x, y = batch
        self.log("test/loss", functional.cross_entropy(self.model(x), y))


def test_foreign_module_around_a_torchvision_network(tmp_path):
    module = Torchvision()
    x, y = torch.rand(5, 3, 32, 32), torch.tensor([0, 1, 2, 3, 0])
    data = DataLoader(TensorDataset(x, y), batch_size=2)
    result = trainer(tmp_path, Margins(LEVELS)).test(module, data, verbose=False)[0]
    with torch.no_grad():
        margins = output_margin(module.eval()(x), y)
    assert result["test/margin/min"] == pytest.approx(float(margins.min()), rel=1e-4)


class BoringClassifier(BoringModel):
    """Lightning's own demo, whose output has two columns, on labelled batches."""

    def test_step(self, batch, batch_idx):
        return {"y": self.loss(self.layer(batch[0]))}


def test_lightnings_demo_model(tmp_path):
    module = BoringClassifier()
    x, y = torch.randn(5, 32), torch.tensor([0, 1, 1, 0, 1])
    result = trainer(tmp_path, Margins(LEVELS)).test(module, DataLoader(TensorDataset(x, y), 2), verbose=False)[0]
    margins = output_margin(module(x), y).detach()
    assert result["test/margin/min"] == pytest.approx(float(margins.min()), rel=1e-5)
    norm = float(torch.cat([p.detach().flatten() for p in module.parameters()]).norm())  # (w, b) of one layer: degree 1
    assert result["test/margin_normalized/min"] == pytest.approx(float(margins.min()) / norm, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": []}, r"Margins\(levels=\[\]\): give one or more numbers between 0 and 1"),
        ({"levels": [0.5, 1.0]}, r"Margins\(levels=\[0.5, 1.0\]\)"),
        ({"input_norms": ["l1"]}, r"Margins\(input_norms=\['l1'\]\): each must be 'l2' or 'linf'"),
        ({"weight_norms": ["l0"]}, r"Margins\(weight_norms=\['l0'\]\): 'l0' is no norm of weights; give e.g. l1"),
        ({"bins": 0}, r"Margins\(bins=0\): must be at least 1"),
        ({"bisections": -1}, r"Margins\(bisections=-1\): must be at least 0"),
        ({"max_samples": 0}, r"Margins\(max_samples=0\): must be at least 1"),
        ({"degree": 0.0}, r"Margins\(degree=0\): must be > 0"),
        ({"every_n_epochs": -1}, r"Margins\(every_n_epochs=-1\)"),
    ],
)
def test_bad_arguments_are_one_clear_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        Margins(**arguments)


def test_outputs_and_batches_that_are_no_classification_are_refused(tmp_path):
    module = Classifier(classes=2)
    with pytest.raises(ValueError, match=r"labels are in 0 .. 2, but the classes are 0 .. 1"):
        trainer(tmp_path, Margins()).test(module, loader(), verbose=False)
    with pytest.raises(ValueError, match=r"Margins: the batch is a Tensor"):
        trainer(tmp_path, Margins()).test(module, DataLoader(samples()[0], 4), verbose=False)
    assert not module._forward_hooks


@pytest.mark.ddp
@pytest.mark.timeout(600)  # two processes that import torch, on a busy machine
def test_two_ranks_give_what_one_gives_with_a_count_that_two_does_not_divide(tmp_path):
    """Lightning's own distributed sampler repeats a sample here: it must count once."""
    module = Classifier()
    one = trainer(tmp_path / "one", Margins(LEVELS, spectral=True)).test(module, loader(), verbose=False)[0]
    runner = trainer(tmp_path / "two", Margins(LEVELS, spectral=True), devices=2, strategy="ddp_spawn")
    two = runner.test(module, loader(), verbose=False)[0]
    assert set(one) == set(two)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-6), key
