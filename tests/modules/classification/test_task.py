"""The task: what it logs is exact on any number of ranks, attacks are in pixels, and the usual switches work."""

import copy

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from theodolite.datamodules.images import ImageDataModule
from theodolite.modules.attacks import PGD
from theodolite.modules.classification import Adversarial, ImageClassifier, Objective, SmallCNN


class Dots(ImageDataModule):
    """Images whose brighter half tells the class."""

    all_classes, image_shape = ("left", "right"), (1, 8, 8)

    def read(self, train):
        generator = torch.Generator().manual_seed(int(train))
        labels = torch.arange(61) % 2
        images = torch.randint(0, 150, (61, 1, 8, 8), generator=generator, dtype=torch.uint8)
        images[labels == 0, :, :, :4] += 60
        images[labels == 1, :, :, 4:] += 60
        return images, labels


ATTACK = PGD(norm="linf", eps=0.02, steps=3)


def classifier(**kwargs):
    torch.manual_seed(0)
    network = SmallCNN(num_classes=2, input_shape=(1, 8, 8), width=4)
    return ImageClassifier(**{"network": network, "num_classes": 2, "mean": [0.4], "std": [0.2], **kwargs})


def trainer(**kwargs):
    return pl.Trainer(**{
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0, **kwargs,
    })  # fmt: skip


def data(**kwargs):
    return Dots(**{"val_samples": 21, "batch_size": 8, **kwargs})


def test_what_it_logs_is_computed_over_all_images():
    model, images = classifier(val_attack=ATTACK), data()
    logged = trainer().validate(model, images, verbose=False)[0]
    held_out = images.dataset("val").__getitems__(range(21))
    logits = model(held_out.x)
    assert logged["val/accuracy"] == pytest.approx((logits.argmax(1) == held_out.y).double().mean().item())
    assert logged["val/loss"] == pytest.approx(nn.functional.cross_entropy(logits, held_out.y).item(), rel=1e-6)
    attacked = ATTACK(model, held_out.x, held_out.y, sample_id=held_out.sample_id)
    robust = (model(attacked).argmax(1) == held_out.y).double().mean().item()
    assert logged["val/robust_accuracy"] == pytest.approx(robust)
    assert set(trainer().test(model, images, verbose=False)[0]) == {"test/loss", "test/accuracy"}


@pytest.mark.ddp
def test_two_processes_log_what_one_does():
    logged = []
    for devices in (1, 2):
        strategy = "ddp_spawn" if devices == 2 else "auto"
        run = trainer(devices=devices, strategy=strategy)
        run.validate(classifier(val_attack=ATTACK), data(batch_size=5), verbose=False)
        logged.append({key: value.item() for key, value in run.callback_metrics.items()})
    assert logged[0].keys() == {"val/loss", "val/accuracy", "val/robust_accuracy"}
    assert logged[1] == pytest.approx(logged[0], rel=1e-6)


def test_training_helps_and_the_best_checkpoint_is_the_most_robust_one():
    model, images = classifier(objective=Adversarial(ATTACK), val_attack=ATTACK), data()
    before = trainer().validate(model, images, verbose=False)[0]["val/robust_accuracy"]
    trainer(max_epochs=15).fit(model, images)
    after = trainer().validate(model, images, verbose=False)[0]["val/robust_accuracy"]
    assert after > max(before, 0.7)
    assert (model.monitor, model.mode) == ("val/robust_accuracy", "max")
    assert classifier().monitor == "val/accuracy"


class Spy(Objective):
    """Note the numbers of the samples that attacks would start from."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, forward, x, y, sample_id=None):
        self.seen.append(sample_id)
        return self.cross_entropy(forward(x), y)


def test_attacks_start_elsewhere_in_every_epoch():
    spy = Spy()
    trainer().fit(classifier(objective=spy), data())
    first, second = torch.cat(spy.seen[:5]), torch.cat(spy.seen[5:])
    assert sorted(first.tolist()) == list(range(40))
    assert not set(first.tolist()) & set(second.tolist())
    assert sorted((second % 2**40).tolist()) == list(range(40))


def test_normalisation_is_the_networks_own():
    model = classifier(network=nn.Flatten(), num_classes=64)
    torch.testing.assert_close(model(torch.full((1, 1, 8, 8), 0.6)), torch.ones(1, 64))
    plain = classifier(network=nn.Flatten(), num_classes=64, mean=None, std=None)
    torch.testing.assert_close(plain(torch.full((1, 1, 8, 8), 0.6)), torch.full((1, 64), 0.6))


def test_channels_last_changes_no_logit():
    model = classifier()
    turned = classifier(network=copy.deepcopy(model.network), channels_last=True)
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(turned(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_what_convolutions_see(channels):
    model = classifier(network=nn.Identity(), num_classes=channels, channels_last=True, mean=None, std=None)
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].stride()))
    with pytest.raises(ValueError, match="the network gave the shape"):
        model(torch.rand(2, channels, 4, 5))
    assert seen == [(20 * channels, 1, 5 * channels, channels)]


def test_averaged_weights_and_mixed_precision_train_under_attack(tmp_path):
    model = classifier(objective=Adversarial(ATTACK), val_attack=ATTACK)
    run = trainer(callbacks=[EMAWeightAveraging(decay=0.5)], precision="bf16-mixed")
    run.fit(model, data())
    assert run.callback_metrics["train/loss"].isfinite()
    run.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(
        tmp_path / "last.ckpt", network=SmallCNN(num_classes=2, input_shape=(1, 8, 8), width=4), num_classes=2
    )
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded(x), model(x))


@pytest.mark.parametrize("numbered", [True, False])
def test_other_batches_of_pairs_are_taken_too(numbered):
    parts = [torch.rand(6, 1, 8, 8), torch.arange(6) % 2, *[torch.arange(6)] * numbered]
    loader = DataLoader(TensorDataset(*parts), batch_size=3)
    run = trainer(max_epochs=1)
    run.fit(classifier(objective=Adversarial(ATTACK)), loader, loader)
    assert run.global_step == 2


def test_bad_settings_are_one_line():
    for arguments in ({"mean": [0.5, 0.5]}, {"std": [0.0]}, {"mean": None}):
        with pytest.raises(ValueError, match=r"ImageClassifier\(mean=.*one mean and one deviation > 0 a channel"):
            classifier(**arguments)
    with pytest.raises(ValueError, match=r"num_classes=3\): the network gave the shape \(5, 2\) for 5 images"):
        classifier(num_classes=3)(torch.rand(5, 1, 8, 8))
