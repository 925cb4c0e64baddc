"""The radius rises step by step, whatever the ranks, and is back in place afterwards."""

import pytest
import torch
from torch import nn

from theodolite.callbacks import RadiusWarmUp
from theodolite.modules.attacks import PGD
from theodolite.modules.classification import Adversarial, ImageClassifier

from .classifiers import Images, StockClassifier, loader, trainer


class Recorded(PGD):
    """Notes the radius and the step of each call."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.calls = []

    def __call__(self, *arguments, **more):
        self.calls.append((self.eps, self.step_size))
        return super().__call__(*arguments, **more)


def classifier(attack):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return ImageClassifier(net, 2, objective=Adversarial(attack))


@pytest.mark.parametrize(("epochs", "rise"), [(1.5, 9), (0.5, 3), (5, 30)])
def test_radius_and_step_rise_linearly_and_are_put_back(tmp_path, epochs, rise):
    attack = Recorded(norm="linf", eps=0.3, step_size=0.1, steps=1)
    module = classifier(attack)
    trainer(tmp_path, RadiusWarmUp(epochs), max_epochs=2).fit(module, loader(), loader())  # 2 x 6 batches of 21 images
    shares = [min(1, (step + 1) / rise) for step in range(12)]
    assert [eps for eps, _ in attack.calls] == pytest.approx([0.3 * share for share in shares])
    assert [step for _, step in attack.calls] == pytest.approx([0.1 * share for share in shares])
    assert module.objective.attack is attack


def test_a_resumed_run_goes_on_with_the_radius_of_its_step(tmp_path):
    attack = Recorded(norm="linf", eps=0.3, steps=1)
    run = trainer(tmp_path, RadiusWarmUp(3), max_epochs=1)
    run.fit(classifier(attack), loader(), loader())
    run.save_checkpoint(tmp_path / "first.ckpt")
    resumed = Recorded(norm="linf", eps=0.3, steps=1)
    trainer(tmp_path / "more", RadiusWarmUp(3), max_epochs=2).fit(
        classifier(resumed), loader(), loader(), ckpt_path=tmp_path / "first.ckpt"
    )
    assert [eps for eps, _ in resumed.calls] == pytest.approx([0.3 * (step + 1) / 18 for step in range(6, 12)])


def test_an_interrupted_run_leaves_the_full_radius(tmp_path):
    class Interrupts(Recorded):
        def __call__(self, *arguments, **more):
            raise RuntimeError("stop")

    attack = Interrupts(norm="linf", eps=0.3, steps=1)
    module = classifier(attack)
    with pytest.raises(RuntimeError, match="stop"):
        trainer(tmp_path, RadiusWarmUp(3), max_epochs=1).fit(module, loader(), loader())
    assert module.objective.attack is attack


class Final(RadiusWarmUp):
    """Writes down the radius of the last step of each rank."""

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        path = trainer.default_root_dir + f"/radius-{trainer.global_rank}.pt"
        torch.save((trainer.global_step, pl_module.objective.attack.eps), path)


@pytest.mark.ddp
def test_two_processes_take_the_same_steps(tmp_path):
    run = trainer(
        tmp_path, Final(2), max_epochs=1, strategy="ddp_spawn", devices=2, default_root_dir=str(tmp_path), logger=False
    )
    run.fit(classifier(PGD(norm="linf", eps=0.3, steps=1)), loader(Images(21)), loader())
    found = [torch.load(tmp_path / f"radius-{rank}.pt") for rank in (0, 1)]
    assert found[0] == found[1] == (3, pytest.approx(0.3 * 3 / 6))  # 11 images each, 3 batches an epoch


def test_user_errors_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"RadiusWarmUp\(epochs=0\): must be > 0"):
        RadiusWarmUp(0)
    with pytest.raises(ValueError, match="RadiusWarmUp needs a model with an attack in its objective, and StockCl"):
        trainer(tmp_path, RadiusWarmUp()).fit(StockClassifier(), loader(), loader())
