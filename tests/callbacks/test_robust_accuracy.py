"""Robust accuracy: right counts in every loop and on every number of ranks, nothing left behind, masks found out."""

import csv

import pytest
import torch
from torch import nn

from theodolite.callbacks import RobustAccuracy
from theodolite.modules.attacks import FGSM, PGD, Attack, AutoAttack, MaskedGradientsWarning

from .classifiers import Boring, Images, StockClassifier, loader, small_net, torchvision_classifier, trainer


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def callback(**arguments):
    settings = {"eps": [0.5, 1.0], "checks": 0, "num_images": 2, **arguments}
    return RobustAccuracy([PGD(steps=5)], **settings)


def by_hand(eps, images=None, net=None):
    """Count correct samples under PGD, in one batch without Lightning."""
    images = images or Images()
    net = (net or small_net()).eval()
    changed = PGD(eps=eps, steps=5)(net, images.x, images.y, torch.arange(len(images)))
    return int(((net(images.x).argmax(1) == images.y) & (net(changed).argmax(1) == images.y)).sum())


def test_counts_are_those_of_one_batch_by_hand(tmp_path):
    result = trainer(tmp_path, callback()).test(StockClassifier(), loader(), verbose=False)[0]
    clean = int((small_net().eval()(Images().x).argmax(1) == Images().y).sum())
    counts = {"clean": clean, "l2_0.5": by_hand(0.5), "l2_1": by_hand(1.0)}
    assert 0 < counts["l2_1"] < counts["l2_0.5"] < clean <= 21
    assert result == {f"test/robust_accuracy/{name}": pytest.approx(count / 21) for name, count in counts.items()}
    rows = table(tmp_path / "tables/test/robust_accuracy.csv")
    assert {row["name"]: int(row["correct"]) for row in rows} == counts
    assert [row["samples"] for row in rows] == ["21"] * 3
    assert [row["attack"] for row in rows] == ["none", "PGD-5", "PGD-5"]
    classes = table(tmp_path / "tables/test/robust_accuracy_per_class.csv")
    assert sum(int(row["samples"]) for row in classes) == 21
    total = sum(int(row["samples"]) * float(row["l2_0.5"]) for row in classes)
    assert total == pytest.approx(counts["l2_0.5"])
    assert (tmp_path / "figures/test/robust_accuracy.png").is_file()
    assert (tmp_path / "figures/test/adversarial_examples.png").is_file()


@pytest.mark.parametrize("form", ["tuple", "numbered", "dictionary"])
@pytest.mark.parametrize("size", [1, 8, 21])
def test_form_and_size_of_batches_change_nothing(tmp_path, form, size):
    result = trainer(tmp_path, callback(num_images=0)).test(
        StockClassifier(), loader(Images(form=form), size), verbose=False
    )[0]
    assert result["test/robust_accuracy/l2_0.5"] == pytest.approx(by_hand(0.5) / 21)


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
@pytest.mark.parametrize("inference_mode", [True, False])
def test_every_loop_measures_with_default_flags(tmp_path, stage, inference_mode):
    runner = trainer(tmp_path, callback(), inference_mode=inference_mode)
    if stage == "fit":
        module = StockClassifier()
        runner.fit(module, loader(batch_size=7), loader())
        expected = by_hand(0.5, net=module.net) / 21
    else:
        getattr(runner, stage)(StockClassifier(), loader(), verbose=False)
        expected = by_hand(0.5) / 21
    key = "test" if stage == "test" else "val"
    assert runner.callback_metrics[f"{key}/robust_accuracy/l2_0.5"] == pytest.approx(expected)


def test_bfloat16_training_is_measured_in_full_precision(tmp_path):
    runner = trainer(tmp_path, callback(), precision="bf16-mixed")
    result = runner.test(StockClassifier(), loader(), verbose=False)[0]
    assert result["test/robust_accuracy/l2_0.5"] == pytest.approx(by_hand(0.5) / 21)


def test_a_spread_of_samples_is_measured(tmp_path):
    trainer(tmp_path, callback(max_samples=5)).test(StockClassifier(), loader(), verbose=False)
    images = Images()
    chosen = [4, 8, 12, 16, 20]  # every (21 / 5)-th, rounded up
    images.x, images.y = images.x[chosen], images.y[chosen]
    rows = table(tmp_path / "tables/test/robust_accuracy.csv")
    assert rows[0]["samples"] == "5"
    assert rows[0]["correct"] == str(int((small_net().eval()(images.x).argmax(1) == images.y).sum()))


def test_loaders_are_reported_apart(tmp_path):
    loaders = [loader(Images(form="numbered")), loader(Images(9, form="numbered"))]
    result = trainer(tmp_path, callback()).test(StockClassifier(), loaders, verbose=False)
    merged = {key: value for part in result for key, value in part.items()}
    assert merged["test/robust_accuracy/l2_0.5"] == pytest.approx(by_hand(0.5) / 21)
    assert merged["test/robust_accuracy/l2_0.5/loader_1"] == pytest.approx(by_hand(0.5, Images(9)) / 9)
    for place in ("test", "test/loader_1"):
        assert (tmp_path / f"figures/{place}/adversarial_examples.png").is_file()


class Grouped(Images):
    """Its third part is a group, and not the sample's number."""

    def __getitem__(self, i):
        return self.x[i], self.y[i], i // 3


def test_a_third_part_that_does_not_number_the_samples_is_refused(tmp_path):
    with pytest.raises(ValueError, match="numbers the samples, but here numbers repeat"):
        trainer(tmp_path, callback()).test(StockClassifier(), loader(Grouped()), verbose=False)


@pytest.mark.parametrize(("every", "epochs"), [(0, []), (1, [0, 1, 2]), (2, [1])])
def test_validation_within_fit_in_the_epochs_asked_for(tmp_path, every, epochs):
    runner = trainer(tmp_path, callback(every_n_epochs=every), max_epochs=3)
    runner.fit(StockClassifier(), loader(batch_size=7), loader())
    path = tmp_path / "metrics.csv"
    rows = table(path) if path.is_file() else []
    assert [int(row["epoch"]) for row in rows if row.get("val/robust_accuracy/l2_0.5")] == epochs


def test_measuring_changes_nothing_in_training(tmp_path):
    """Dropout and shuffling draw the same numbers, statistics and weights are the same to the last bit."""
    states = []
    for name, callbacks in (("without", []), ("with", [callback()])):
        torch.manual_seed(1)
        module = StockClassifier()
        runner = trainer(tmp_path / name, *callbacks, max_epochs=2)
        runner.fit(module, loader(batch_size=7, shuffle=True), loader())
        states.append(module.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_modules_that_nobody_here_wrote(tmp_path):
    images = Images(4, size=32, channels=3)
    settings = {"checks": 0, "num_images": 2}
    result = trainer(tmp_path, RobustAccuracy(PGD(eps=0.5, steps=2), **settings)).test(
        torchvision_classifier(), loader(images), verbose=False
    )[0]
    assert 0 <= result["test/robust_accuracy/l2_0.5"] <= result["test/robust_accuracy/clean"] <= 1
    numbers = torch.utils.data.TensorDataset(torch.rand(5, 32), torch.tensor([0, 1, 0, 1, 0]))
    result = trainer(tmp_path / "boring", RobustAccuracy(PGD(eps=10.0, steps=20), **settings)).test(
        Boring(), loader(numbers), verbose=False
    )[0]
    assert result["test/robust_accuracy/l2_10"] == 0


def test_autoattack_stands_beside_pgd_in_the_table(tmp_path):
    pytest.importorskip("pyautoattack")
    attacks = [PGD(eps=0.5, steps=20), AutoAttack(eps=0.5, attacks=["apgd-ce"])]
    result = trainer(tmp_path, RobustAccuracy(attacks, checks=0)).test(StockClassifier(), loader(), verbose=False)[0]
    assert result["test/robust_accuracy/autoattack_l2_0.5"] <= result["test/robust_accuracy/l2_0.5"]


class Saturated(nn.Module):
    """Logits so large that the softmax has no gradient left: the accuracy is the same, attacks by gradient fail."""

    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return 1e4 * self.net(x)


class Quantised(nn.Module):
    """Round the pixels: the gradient is zero everywhere."""

    def __init__(self):
        super().__init__()
        self.net = small_net()

    def forward(self, x):
        return self.net((x * 7).round() / 7)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Saturated, ["have a gradient of exactly zero", "stand even where every image is allowed", "gap of logits"]),
        (Quantised, ["have a gradient of exactly zero", "stand even where every image is allowed"]),
    ],
)
def test_masked_gradients_are_reported_in_plain_words(tmp_path, net, words):
    measure = RobustAccuracy(PGD(eps=1.0, steps=5, random_start=False), checks=21)
    with pytest.warns(MaskedGradientsWarning) as caught:
        trainer(tmp_path, measure).test(StockClassifier(net()), loader(), verbose=False)
    lines = [str(warning.message) for warning in caught if warning.category is MaskedGradientsWarning]
    for word in words:
        assert any(word in line for line in lines)
    assert all(line.startswith("The robust accuracy under l2_1 may be too high: of 17 samples") for line in lines)


def test_a_weak_attack_is_reported(tmp_path):
    measure = RobustAccuracy(PGD(eps=1.0, steps=2, step_size=0.01, random_start=False), checks=21)
    with pytest.warns(MaskedGradientsWarning) as caught:
        trainer(tmp_path, measure).test(StockClassifier(), loader(), verbose=False)
    text = "\n".join(str(warning.message) for warning in caught)
    assert "against a single step of FGSM" in text
    assert "against five times the steps and two restarts; give it more steps" in text


def test_an_honest_model_and_attack_are_silent(tmp_path):
    measure = RobustAccuracy(PGD(steps=20), eps=[0.25, 0.5, 1.0], checks=21)
    trainer(tmp_path, measure).test(StockClassifier(), loader(), verbose=False)  # warnings are errors here
    checks = {row["l2_0.25"]: row for row in table(tmp_path / "tables/test/robust_accuracy_checks.csv")}
    right = int((small_net().eval()(Images().x).argmax(1) == Images().y).sum())
    assert all(row["samples"] == str(right) for row in checks.values())
    assert checks["whole box"]["count"] == checks["no gradient"]["count"] == "0"


class Backwards(Attack):
    """Gives up at large radii."""

    def __call__(self, model_fn, x, y, sample_id=None):
        return PGD(eps=self.eps, steps=5)(model_fn, x, y, sample_id) if self.eps < 1.2 else x


def test_accuracy_that_rises_with_the_radius_is_reported(tmp_path):
    measure = RobustAccuracy(Backwards("l2", 1.0), eps=[1.0, 2.0], checks=0)
    with pytest.warns(MaskedGradientsWarning, match=r"rises with the radius: .* against l2_1, but .* against l2_2"):
        trainer(tmp_path, measure).test(StockClassifier(), loader(), verbose=False)


class Cheater(Attack):
    def __call__(self, model_fn, x, y, sample_id=None):
        return (x + 0.3).clamp(0, 1) if self.eps else x + 2


@pytest.mark.parametrize(("eps", "message"), [(0.1, "moved a sample by 0.3 "), (0.0, r"allowed: \[0, 1\]")])
def test_an_attack_that_leaves_its_ball_is_refused(tmp_path, eps, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, RobustAccuracy(Cheater("linf", eps))).test(StockClassifier(), loader(), verbose=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustAccuracy([]), r"RobustAccuracy\(attacks=\[\]\): give at least one attack"),
        (lambda: RobustAccuracy(PGD(targeted=True)), r"the attack l2_0.5 is targeted"),
        (lambda: RobustAccuracy([PGD(), PGD(steps=5)]), r"two results would be called l2_0.5; give each attack a name"),
        (lambda: RobustAccuracy(PGD(), eps=[-1.0]), r"PGD\(eps=-1\)"),
        (lambda: RobustAccuracy(PGD(), max_samples=0), r"RobustAccuracy\(max_samples=0\)"),
        (lambda: RobustAccuracy(PGD(), every_n_epochs=-1), r"RobustAccuracy\(every_n_epochs=-1\)"),
        (lambda: RobustAccuracy(PGD(), checks=-1), r"RobustAccuracy\(checks=-1"),
    ],
)
def test_settings_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class OneLogit(StockClassifier):
    def forward(self, x):
        return self.net(x)[:, :1]

    def test_step(self, batch, batch_idx):
        pass


@pytest.mark.parametrize(
    ("module", "images", "message"),
    [
        (OneLogit(), Images(), r"logits of shape \(4, classes\) are needed"),
        (StockClassifier(), torch.utils.data.TensorDataset(Images().x * 3 - 1, Images().y), r"inputs in \[0, 1\]"),
    ],
)
def test_models_and_data_that_do_not_fit_are_named(tmp_path, module, images, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, callback()).test(module, loader(images), verbose=False)


def test_fgsm_and_pgd_of_both_norms_share_a_table(tmp_path):
    attacks = [FGSM(0.05), PGD("linf", 0.05, steps=10), PGD("l2", 0.5, steps=10)]
    result = trainer(tmp_path, RobustAccuracy(attacks, checks=0)).test(StockClassifier(), loader(), verbose=False)[0]
    assert result["test/robust_accuracy/linf_0.05"] <= result["test/robust_accuracy/fgsm_linf_0.05"]
