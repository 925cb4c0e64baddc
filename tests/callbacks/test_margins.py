"""Margins against a direct computation: in every loop, on one process and two, for modules that nobody here wrote."""

import csv
import math
import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks import Margins
from theodolite.modules.attacks import PGD
from theodolite.modules.margins import output_margin, spectral_complexity

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


def test_epochs_measured_within_fit_and_their_history(tmp_path):
    callback = Margins(LEVELS, every_n_epochs=2)
    module = Classifier()
    run = trainer(tmp_path, callback, max_epochs=4)
    run.fit(module, loader(), loader())
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/margin/min")]
    assert [int(row["epoch"]) for row in rows] == [1, 3]
    expected = expected_values(module, *samples(), stage="val")
    assert float(rows[-1]["val/margin/min"]) == pytest.approx(expected["val/margin/min"], rel=1e-5)
    with (tmp_path / "tables/val/margins.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "3"]
    assert (tmp_path / "figures/val/margins.png").is_file()
    resumed = Margins(LEVELS)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.history.rows == callback.history.rows


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


def learned(folder, callback, epochs, ckpt_path=None):
    """Train on what a network says itself, at a rate that lowers the loss every time; give what was logged."""
    x = samples()[0]
    y = Classifier().network(x).argmax(1)
    data = DataLoader(TensorDataset(x, y), batch_size=len(x))
    run = trainer(folder, callback, max_epochs=epochs)
    module = Classifier()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1.0)
    run.fit(module, data, data, ckpt_path=ckpt_path)
    with (folder / "metrics.csv").open() as file:
        return run, [row for row in csv.DictReader(file) if row.get("val/margin_smoothed")]


def test_growth_of_the_smoothed_margin_is_that_of_the_whole_run_also_after_a_restart(tmp_path):
    _, rows = learned(tmp_path / "whole", Margins(LEVELS), 12)
    values = [float(row["val/margin_smoothed"]) for row in rows]
    start = next(index for index, value in enumerate(values) if value > 0)
    assert 0 < start < 8
    rises = [float(row["val/margin_smoothed_rise"]) for row in rows]
    assert rises == pytest.approx([0.0] * start + [value - values[start] for value in values[start:]], rel=1e-9)
    assert rises[-1] > 0
    half, _ = learned(tmp_path / "half", Margins(LEVELS), 8)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = learned(tmp_path / "resumed", Margins(LEVELS), 12, tmp_path / "half.ckpt")
    for name in ("val/margin_smoothed_rise", "val/margin_smoothed_fall"):
        assert [row[name] for row in resumed] == [row[name] for row in rows[8:]]


def test_the_sanity_check_is_not_measured_and_zero_means_never(tmp_path):
    callback = Margins(every_n_epochs=0)
    trainer(tmp_path, callback, max_epochs=1, num_sanity_val_steps=2).fit(Classifier(), loader(), loader())
    assert callback.history.rows == {}
    assert not (tmp_path / "figures").exists()


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


class Stateful(Classifier):
    """BatchNorm and Dropout, and a step that does not call the module."""

    def __init__(self):
        super().__init__(step="none")
        self.network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def test_the_module_and_the_random_states_are_left_as_found(tmp_path):
    module = Stateful()
    module.network[0].weight.requires_grad_(False)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    attack = PGD(norm="linf", eps=0.3, steps=2)
    callback = Margins(input_norms=["l2"], attack=attack, bisections=2)
    states = []
    for callbacks in ([], [callback]):  # the loader itself draws a number
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        random.seed(5)
        trainer(tmp_path / str(len(callbacks)), *callbacks).test(module, loader(), verbose=False)
        states.append((torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()))  # noqa: NPY002
    assert states[0] == states[1]
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert [p.requires_grad for p in module.parameters()] == [False, *[True] * 5]


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for callbacks in ([], [Margins(input_norms=["l2"])]):
        module = Stateful()
        torch.manual_seed(3)
        trainer(tmp_path / str(len(callbacks)), *callbacks, max_epochs=2).fit(module, loader(), loader())
        weights.append(torch.cat([value.flatten().double() for value in module.state_dict().values()]))
    assert torch.equal(*weights)


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
