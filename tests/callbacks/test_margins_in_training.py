"""Margins within a training: when they are measured, how they grow, and that nothing else notices."""

import csv
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks import Margins
from theodolite.modules.attacks import PGD

from .margin_classifier import LEVELS, Classifier, expected_values, loader, samples, trainer


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
