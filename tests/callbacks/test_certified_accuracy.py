"""Certified accuracy: right, the same on two processes, never above what an attack leaves."""

import csv

import pytest
import torch

from theodolite.callbacks import CertifiedAccuracy
from theodolite.modules.attacks import PGD
from theodolite.modules.smoothing import Smoothing, largest_radius

from .classifiers import Boring, Images, StockClassifier, loader, small_net, trainer


def callback(**arguments):
    return CertifiedAccuracy(**{"sigma": 0.25, "n0": 50, "n": 200, "alpha": 0.01, "max_samples": None, **arguments})


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def by_hand():
    images, smoothing = Images(), Smoothing(small_net().eval(), 0.25)
    return [smoothing.certify(x, y, i, 50, 200, 0.01) for i, (x, y) in enumerate(zip(images.x, images.y))]


def test_shares_and_radii_are_those_of_certificates_one_by_one(tmp_path):
    result = trainer(tmp_path, callback()).test(StockClassifier(), loader(), verbose=False)[0]
    found, labels = by_hand(), Images().y.tolist()
    rows = table(tmp_path / "tables/test/certified_accuracy_sigma_0.25.csv")
    assert [(int(row["certified class"]), float(row["radius"])) for row in rows] == found
    assert [int(row["label"]) for row in rows] == labels
    for radius in (0.0, 0.25):
        share = sum(c == y and r >= radius for (c, r), y in zip(found, labels)) / 21
        assert result[f"test/certified_accuracy/sigma_0.25_r_{radius:g}"] == pytest.approx(share)
    assert result["test/certified_accuracy/sigma_0.25_abstained"] == pytest.approx(sum(c < 0 for c, _ in found) / 21)
    assert result["test/certified_accuracy/sigma_0.25_radius"] == pytest.approx(
        sum(r for (c, r), y in zip(found, labels) if c == y) / 21
    )
    assert (tmp_path / "figures/test/certified_accuracy_sigma_0.25.png").is_file()
    assert 0.25 < largest_radius(200, 0.01, 0.25) < 0.5
    assert "test/certified_accuracy/sigma_0.25_r_0.5" not in result  # which cannot be certified


@pytest.mark.parametrize("size", [1, 21])
def test_batches_change_nothing(tmp_path, size):
    trainer(tmp_path, callback(batch_size=100)).test(StockClassifier(), loader(batch_size=size), verbose=False)
    rows = table(tmp_path / "tables/test/certified_accuracy_sigma_0.25.csv")
    assert [(int(row["certified class"]), float(row["radius"])) for row in rows] == by_hand()


def test_certified_never_exceeds_what_an_attack_on_the_smoothed_classifier_leaves(tmp_path):
    radii = [0.0, 0.1, 0.2, 0.3, 0.4]
    measure = callback(radii=radii, n=1000, attack=PGD(steps=10))
    result = trainer(tmp_path, measure).test(StockClassifier(), loader(), verbose=False)[0]
    certified = [result[f"test/certified_accuracy/sigma_0.25_r_{r:g}"] for r in radii]
    attacked = [result[f"test/smoothed_robust_accuracy/sigma_0.25_r_{r:g}"] for r in radii]
    assert all(low <= high + 1e-6 for low, high in zip(certified, attacked))
    assert certified == sorted(certified, reverse=True)
    assert attacked[-1] < attacked[0]  # the attack does something
    assert certified[-1] < certified[0]


def test_every_loop_and_a_module_nobody_here_wrote(tmp_path):
    runner = trainer(tmp_path, callback(every_n_epochs=1, max_samples=4))
    runner.fit(StockClassifier(), loader(batch_size=7), loader())
    assert "val/certified_accuracy/sigma_0.25_r_0" in runner.callback_metrics
    trainer(tmp_path / "validate", callback(max_samples=4)).validate(StockClassifier(), loader(), verbose=False)
    numbers = torch.utils.data.TensorDataset(torch.rand(5, 32), torch.tensor([0, 1, 0, 1, 0]))
    result = trainer(tmp_path / "boring", callback()).test(Boring(), loader(numbers), verbose=False)[0]
    assert 0 <= result["test/certified_accuracy/sigma_0.25_r_0"] <= 1


def test_training_is_not_changed(tmp_path):
    states = []
    for name, callbacks in (("without", []), ("with", [callback(every_n_epochs=1, max_samples=3)])):
        torch.manual_seed(1)
        module = StockClassifier()
        trainer(tmp_path / name, *callbacks, max_epochs=2).fit(module, loader(batch_size=7, shuffle=True), loader())
        states.append(module.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, r"CertifiedAccuracy\(sigma=0\): must be > 0"),
        ({"alpha": 1.0}, r"CertifiedAccuracy\(alpha=1.0\)"),
        ({"n": 0}, r"CertifiedAccuracy\(n0=50, n=0"),
        ({"seed": -1}, r"seed=-1"),
        ({"attack_draws": 101}, r"attack_draws=101\): needs"),
        ({"attack": PGD("linf", 0.1)}, r"certificates are of l2 balls"),
        ({"attack": PGD(targeted=True)}, r"give an untargeted attack"),
        ({"radii": [-1.0]}, r"CertifiedAccuracy\(radii=\[-1.0\]\)"),
        ({"max_samples": 0}, r"CertifiedAccuracy\(max_samples=0\)"),
        ({"every_n_epochs": -1}, r"CertifiedAccuracy\(every_n_epochs=-1\)"),
    ],
)
def test_settings_are_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        callback(**arguments)
