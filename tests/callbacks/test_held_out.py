"""What measurements of held-out samples have in common: a mistake ends a run before it has trained or evaluated."""

import pytest
import torch

from theodolite.callbacks import (
    CertifiedAccuracy,
    DirectionConvergence,
    GeodesicPath,
    RobustAccuracy,
    Transferability,
)
from theodolite.callbacks.held_out import gather_rows
from theodolite.modules.attacks import PGD

from .classifiers import Images, StockClassifier, loader, trainer

MEASUREMENTS = {
    "geodesic": lambda path, n: GeodesicPath(path, every_n_epochs=n, loss_fn=StockClassifier._loss),
    "without a loss": lambda path, n: GeodesicPath(path, every_n_epochs=n),
    "direction": lambda path, n: DirectionConvergence(path, every_n_epochs=n),
    "transfer": lambda path, n: Transferability(PGD(eps=0.5), {"other": path}, every_n_epochs=n),
}


class Counted(StockClassifier):
    """Counts how often it is called."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Unchecked(StockClassifier):
    """Does not look at the labels itself."""

    def validation_step(self, batch, batch_idx):
        pass


@pytest.fixture
def other(tmp_path):
    """A checkpoint of another architecture, with what Lightning writes beside the weights."""
    path = tmp_path / "other.ckpt"
    state = {f"net.{name}": value for name, value in torch.nn.Linear(3, 2).state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.5.0", "epoch": 0, "global_step": 0}, path)
    return str(path)


@pytest.mark.parametrize("every_n_epochs", [0, 2])
@pytest.mark.parametrize("command", ["fit", "validate", "test"])
@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_wrong_checkpoint_ends_the_run_before_anything_else(tmp_path, other, name, command, every_n_epochs):
    """Also of what only the test after a training would measure."""
    module = Counted()
    run = trainer(tmp_path / "run", MEASUREMENTS[name](other, every_n_epochs), max_epochs=2, num_sanity_val_steps=0)
    data = (loader(), loader()) if command == "fit" else (loader(),)
    with pytest.raises(ValueError, match=r"other\.ckpt|has no loss\(batch\)"):
        getattr(run, command)(module, *data)
    assert module.calls == 0


class Bytes(Images):
    def __getitem__(self, i):
        return 255 * self.x[i], self.y[i]


class Late(Images):
    def __getitem__(self, i):
        return self.x[i], self.y[i] + 2


@pytest.mark.parametrize(
    ("make", "dataset", "message"),
    [
        (lambda: RobustAccuracy(PGD(), every_n_epochs=0), Bytes(), r"An attack needs inputs in \[0, 1\]"),
        (lambda: RobustAccuracy(PGD(), every_n_epochs=2), Late(), "Labels are in 2 .. 3"),
        (lambda: CertifiedAccuracy(0.1), Late(), "Labels are in 2 .. 3"),
        (lambda: Transferability(PGD(), {}), Bytes(), r"An attack needs inputs in \[0, 1\]"),
    ],
)
def test_what_cannot_be_attacked_is_seen_in_the_sanity_check(tmp_path, make, dataset, message):
    """Not at the end of an epoch, or of a training."""
    run = trainer(tmp_path, make())
    with pytest.raises(ValueError, match=message):
        run.fit(Unchecked(), loader(batch_size=7), loader(dataset))
    assert run.global_step == 0


def test_two_that_would_write_the_same_are_refused(tmp_path):
    """Two certificates of other noise write apart; two of one noise, or two lists of attacks, do not."""
    attacks = [RobustAccuracy(PGD(eps=eps, steps=2)) for eps in (0.1, 0.2)]
    certificates = [CertifiedAccuracy(sigma, n=10, max_samples=1) for sigma in (0.1, 0.2, 0.2)]
    trainer(tmp_path, attacks[0], *certificates[:2]).test(Counted(), loader(), verbose=False)
    for callbacks in (attacks, certificates):
        module = Counted()
        with pytest.raises(ValueError, match="two of them in one trainer would write over each other's results"):
            trainer(tmp_path / "run", *callbacks).test(module, loader(), verbose=False)
        assert module.calls == 0


def test_samples_of_one_number_with_two_labels_are_refused():
    """Each process has its own part of the set, and numbers it from 0: a repeat is none."""
    rows = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5], [0.0, 1.0, 0.25], [1.0, 1.0, 0.5]])
    assert len(gather_rows(rows[:3])) == 2
    with pytest.raises(ValueError, match="samples of one number have different labels"):
        gather_rows(rows)
