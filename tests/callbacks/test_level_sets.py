"""Snapshots at levels, and the callbacks that train pairs of networks and connect them."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn

from theodolite.callbacks import LevelSetComponents, LevelSetGeodesics, LevelSetSnapshots, LevelSetTheorems
from theodolite.callbacks.geodesics import ModelLandscape, descent, flat
from theodolite.callbacks.level_set_geodesics import as_trained, fresh_points, pair_up
from theodolite.callbacks.level_set_report import agreements
from theodolite.datamodules import RegressionDataModule
from theodolite.modules.regression import FeedForward, Regression

from .regressions import QUIET, Foreign, data, metrics, task, trainer

#: Several runs of a test share a folder that has other files too.
pytestmark = pytest.mark.filterwarnings("ignore:Experiment logs directory")


def test_snapshots_are_taken_once_at_the_first_epoch_below_each_level(tmp_path):
    callback = LevelSetSnapshots([0.05, 0.2, 1e-9])
    trainer(tmp_path, callback, max_epochs=30, log_every_n_steps=1).fit(task(0), data())
    with (tmp_path / "metrics.csv").open() as file:
        losses = {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")}
    assert callback.reached == [0.2, 0.05]
    for level in (0.2, 0.05):
        content = torch.load(tmp_path / f"snapshots/val_loss_{level:g}.ckpt", weights_only=True)
        first = min(epoch for epoch, loss in losses.items() if loss < level)
        assert content["epoch"] == first
        module = task(5)
        module.load_state_dict(content["state_dict"])
        result = trainer(tmp_path / "again").validate(module, data(), verbose=False)[0]
        assert result["val/loss"] == pytest.approx(losses[first], rel=1e-6)
    assert not (tmp_path / "snapshots/val_loss_1e-09.ckpt").exists()


def test_snapshots_stop_and_are_not_repeated_after_a_resume(tmp_path):
    callback = LevelSetSnapshots([0.2], stop=True)
    runner = trainer(tmp_path, callback, max_epochs=200, log_every_n_steps=1)
    runner.fit(task(0), data())
    assert runner.current_epoch < 200
    resumed = LevelSetSnapshots([0.2])
    resumed.load_state_dict(callback.state_dict())
    (tmp_path / "snapshots/val_loss_0.2.ckpt").unlink()
    trainer(tmp_path, resumed, max_epochs=2, log_every_n_steps=1).fit(task(0), data())
    assert not (tmp_path / "snapshots/val_loss_0.2.ckpt").exists()
    with pytest.raises(ValueError, match=r"monitor='val/none'\): no such quantity was logged; there are .*val/loss"):
        trainer(tmp_path, LevelSetSnapshots([1.0], "val/none"), max_epochs=1, log_every_n_steps=1).fit(task(0), data())


class NineHeldOut(RegressionDataModule):
    """Data with another number of samples to validate on."""

    def dataset(self, split):
        return RegressionDataModule.dataset(data(9) if split == "val" else self, split)


def test_snapshots_wait_for_validations_that_come_in_some_epochs_only(tmp_path):
    """Validated in every third epoch: the first of these below the level; a wrong key is noticed at the first one."""
    callbacks = [LevelSetSnapshots([0.05]), LevelSetSnapshots([0.05], monitor="val/mae")]
    often = {"check_val_every_n_epoch": 3, "log_every_n_steps": 1}
    trainer(tmp_path, *callbacks, max_epochs=30, **often).fit(task(0), data())
    content = torch.load(tmp_path / "snapshots/val_loss_0.05.ckpt", weights_only=True)
    assert content["epoch"] % 3 == 2
    assert (tmp_path / "snapshots/val_mae_0.05.ckpt").is_file() == (bool(callbacks[1].reached))
    wrong = trainer(tmp_path, LevelSetSnapshots([0.1], "val/los"), max_epochs=9, **often)
    with pytest.raises(ValueError, match=r"monitor='val/los'\): no such quantity was logged; there are .*val/loss"):
        wrong.fit(task(0), data())
    assert wrong.current_epoch == 2


@pytest.mark.ddp
@pytest.mark.slow
def test_snapshots_on_two_processes_are_those_of_one(tmp_path):
    """Eight samples to train in one batch on all ranks together, nine to validate."""
    for devices in (1, 2):
        more = {"devices": 2, "strategy": "ddp_spawn"} if devices == 2 else {}
        callback, folder = LevelSetSnapshots([0.2, 0.05, 1e-9]), tmp_path / str(devices)
        held = NineHeldOut(num_samples=8, batch_size=8 // devices)
        trainer(folder, callback, max_epochs=20, log_every_n_steps=1, **more).fit(task(0), held)
    one, two = (
        {path.name: torch.load(path, weights_only=True) for path in (tmp_path / devices / "snapshots").iterdir()}
        for devices in ("1", "2")
    )
    assert set(one) == set(two) == {"val_loss_0.2.ckpt", "val_loss_0.05.ckpt"}
    for name, content in one.items():
        for key in ("level", "epoch", "global_step"):
            assert two[name][key] == content[key]
        assert two[name]["value"] == pytest.approx(content["value"], rel=1e-6)
        torch.testing.assert_close(two[name]["state_dict"], content["state_dict"])


def test_levels_of_small_networks(tmp_path):
    """Easy levels of the quadratic: every pair gets there and is connected; the module keeps its weights."""
    torch.manual_seed(0)
    module = Regression(FeedForward(output="sigmoid", bias=False, initial="uniform")).double()
    before = flat(module)
    callback = LevelSetGeodesics([0.15, 0.19], pairs=3, lr=0.01, max_steps=500, bead_steps=2000,
                                 published=[[0.15, 1.0, 10.0, 3.0], [0.19, 50.0, 1.0, 50.0]], mark=0.1875)  # fmt: skip
    trainer(tmp_path, callback).test(module, datamodule=data(50), verbose=False)
    logged = metrics(tmp_path)
    for level in ("0.15", "0.19"):
        assert logged[f"test/geodesic/connected/level_{level}"] == 1
        assert logged[f"test/geodesic/length/level_{level}"] >= 1
        assert logged[f"test/geodesic/beads/level_{level}"] >= 3
        assert logged[f"test/geodesic/maximum/level_{level}"] <= 1.11
        assert logged[f"test/geodesic/length/level_{level}_stderr"] >= 0
    assert logged["test/geodesic/length_agreement"] == 0.5
    assert torch.equal(flat(module), before)
    with (tmp_path / "tables/test/geodesics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["pairs"], row["published_beads"]) for row in rows] == [
        ("0.19", "3", "50.0"), ("0.15", "3", "3.0")]  # fmt: skip
    assert (tmp_path / "figures/test/geodesics.png").is_file()


def test_beads_have_a_rate_of_their_own(tmp_path):
    """Beads that hardly move connect fewer pairs of the same networks."""
    for bead_lr in (1e-9, 0.01):
        torch.manual_seed(0)
        module = Regression(FeedForward(output="sigmoid", bias=False, initial="uniform")).double()
        callback = LevelSetGeodesics(
            [0.1], pairs=3, lr=0.01, bead_lr=bead_lr, max_steps=900, bead_steps=300, max_passes=3
        )
        trainer(tmp_path / str(bead_lr), callback).test(module, datamodule=data(50), verbose=False)
    still, moving = metrics(tmp_path / "1e-09"), metrics(tmp_path / "0.01")
    assert still["test/geodesic/connected/level_0.1"] < moving["test/geodesic/connected/level_0.1"]


@pytest.mark.ddp
@pytest.mark.slow
def test_levels_and_theorems_on_two_processes_are_those_of_one(tmp_path):
    """Fifty samples, three pairs: the open segments of a level are an odd number now and then."""
    for devices in (1, 2):
        torch.manual_seed(0)
        module = Regression(FeedForward(output="sigmoid", bias=False, initial="uniform")).double()
        callbacks = [LevelSetGeodesics([0.1], pairs=3, lr=0.01, max_steps=900, bead_steps=2000),
                     LevelSetTheorems("wide_two_layer", instances=2)]  # fmt: skip
        more = {"devices": devices, "strategy": "ddp_spawn"} if devices == 2 else {}
        trainer(tmp_path / str(devices), *callbacks, **more).test(module, datamodule=data(50), verbose=False)
    one, two = metrics(tmp_path / "1"), metrics(tmp_path / "2")
    assert one["test/geodesic/beads/level_0.1"] > 3
    assert set(one) == set(two)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-6, abs=1e-12), key


def measured(folder: Path, resume: Path | None = None, dies_at: str | None = None) -> dict[str, float]:
    """Measure two levels of three small networks; the process dies as soon as it has kept a file of a name."""

    def replace(draft, path):
        replace_file(draft, path)
        if path.name == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    replace_file, os.replace = os.replace, replace
    try:
        torch.manual_seed(0)
        module = Regression(FeedForward(output="sigmoid", bias=False, initial="uniform")).double()
        callback = LevelSetGeodesics([0.1, 0.15], pairs=3, networks=3, lr=0.01, max_steps=900, bead_steps=2000,
                                     resume=None if resume is None else str(resume))  # fmt: skip
        trainer(folder, callback).test(module, datamodule=data(50), verbose=False)
    finally:
        os.replace = replace_file
    return metrics(folder)


def test_a_killed_measurement_goes_on_where_it_was(tmp_path, monkeypatch):
    """Killed twice, among the beads of the first level and of the second: networks and levels are not made again."""
    expected = measured(tmp_path / "whole")
    kept = tmp_path / "kept"
    for file in ("authors-0.15.beads", "authors-0.1.beads"):
        process = torch.multiprocessing.get_context("spawn").Process(target=measured, args=(tmp_path, kept, file))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    (folder,) = kept.iterdir()
    assert {"authors-0.15.pt", "authors-0.1.beads"} < {file.name for file in folder.iterdir()}
    monkeypatch.setattr(descent, "_snapshots", lambda *_: pytest.fail("networks are trained again"))
    resumed = measured(tmp_path / "resumed", kept)
    assert resumed == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert not list(kept.iterdir())


def test_a_level_that_is_not_reached_is_reported(tmp_path):
    callback = LevelSetGeodesics([1e-6], pairs=2, max_steps=3)
    with pytest.warns(UserWarning, match="0 of 2 pairs got there in 3 steps"):
        trainer(tmp_path, callback).test(task(0), datamodule=data(), verbose=False)
    assert metrics(tmp_path)["test/geodesic/connected/level_1e-06"] == 0


class Noisy(LightningModule):
    """A module of somebody else with dropout, a loss, and a large error."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def test_step(self, batch, batch_idx):
        pass

    def loss(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean()

    def error(self, batch):
        assert not self.training
        return (self.net(batch[0]) - batch[1]).abs().mean() + 1


def test_level_of_a_held_out_error_with_dropout_in_training(tmp_path):
    """Networks and beads train with dropout, the error is measured without, and ends are shared in a ring."""
    torch.manual_seed(0)
    callback = LevelSetGeodesics([1.1], pairs=3, networks=3, metric="error", convention="both", lr=0.02, clip=1.0,
                                 max_steps=400, network_block=20, bead_steps=400, accept=1.05, grid=9)  # fmt: skip
    trainer(tmp_path, callback).test(Noisy().double(), datamodule=data(20, 10), verbose=False)
    logged = metrics(tmp_path)
    for prefix in ("", "certified/"):
        assert logged[f"test/geodesic/{prefix}connected/level_1.1"] == 1
        assert logged[f"test/geodesic/{prefix}length/level_1.1"] >= 1
    assert 0.9 < logged["test/geodesic/certified/maximum/level_1.1"] <= 1.001
    with (tmp_path / "tables/test/geodesics.csv").open() as file:
        assert [row["convention"] for row in csv.DictReader(file)] == ["authors", "certified"]
    for measure in (LevelSetGeodesics([1.0], pairs=1), LevelSetComponents([1.0], networks=2)):
        with pytest.raises(ValueError, match="this trainer has none: give it a datamodule"):
            trainer(tmp_path, measure).test(task(0), data().test_dataloader(), verbose=False)
    foreign = LevelSetGeodesics([1.0], pairs=1, metric="error")
    with pytest.raises(ValueError, match=r"Foreign has no error\(batch\)"):
        trainer(tmp_path, foreign).test(Foreign(), datamodule=data(), verbose=False)


def test_gradients_are_taken_as_in_training_with_the_masks_of_the_step():
    module = Regression(nn.Sequential(nn.Linear(1, 6), nn.Dropout(0.5), nn.Linear(6, 1))).eval()
    runner = Trainer(accelerator="cpu", precision="bf16-mixed", logger=False, **QUIET)
    batch = next(iter(data().train_dataloader()))
    landscape = ModelLandscape(module, [batch], training=as_trained(runner, module, seed=3))
    points = torch.stack([flat(module), flat(module), flat(module) + 1])
    _, together = landscape.gradient(points, 4)
    _, alone = landscape.gradient(points[1:2], 4)
    _, other = landscape.gradient(points[1:2], 5)
    assert torch.equal(together[0], together[1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-2, atol=1e-3)  # bfloat16 has 8 bits
    assert not torch.allclose(alone, other, rtol=0.1)
    assert not module.training


def test_pairs_are_apart_or_a_ring():
    assert pair_up(6, 6, 3) == ([0, 2, 4], [1, 3, 5])
    assert pair_up(5, 6, 3) == ([0, 2], [1, 3])
    assert pair_up(3, 3, 3) == ([0, 1, 0], [1, 2, 2])
    assert pair_up(2, 3, 3) == ([0], [1])
    assert pair_up(1, 3, 3) == pair_up(0, 4, 2) == ([], [])
    first, second = pair_up(4, 4, 6)
    assert len(set(zip(first, second, strict=True))) == 6


def test_agreement_by_hand():
    rows = [[0.1, 20, 1, 1.30, 0.05, 5.0, 0.2, 1.1], [0.2, 20, 1, 1.10, 0.05, 4.0, 0.2, 1.1]]
    published = [[0.1, 1.35, 0.02, 5.9], [0.2, 1.05, 0.02, 3.0], [0.3, 1.0, 0.1, 3.0]]
    assert agreements(rows, published) == {"length": 0.0, "beads": 0.5}
    assert agreements(rows, [[0.2, 1.085, 0.01, 3.4]]) == {"length": 1.0, "beads": 1.0}
    assert agreements(rows, []) == {}
    few = [[0.2, 20, 0.35, 1.10, 0.05, 4.0, 0.2, 1.1]]
    assert agreements(few, [[0.2, 1.085, 0.01, 3.4]]) == {"length": 0.0, "beads": 0.0}


def test_fresh_points_leave_the_statistics_of_batch_normalisation():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    module(torch.randn(8, 2))
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    fresh_points(module, 2, seed=0)
    assert int(before["1.num_batches_tracked"]) == 1
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_fresh_points_are_the_seeds_and_leave_module_and_random_state():
    module, state = task(0), torch.get_rng_state()
    before = flat(module)
    points = fresh_points(module, 3, seed=4)
    assert torch.equal(points, fresh_points(module, 3, seed=4))
    assert not torch.equal(points, fresh_points(module, 3, seed=5))
    assert len({tuple(point.tolist()) for point in points}) == 3
    assert torch.equal(flat(module), before)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="none of its parts has a reset_parameters"):
        fresh_points(nn.PReLU(), 2, seed=0)


def test_mistakes_are_one_clear_line():
    with pytest.raises(ValueError, match=r"LevelSetSnapshots\(levels=\[\]\)"):
        LevelSetSnapshots([])
    with pytest.raises(ValueError, match=r"LevelSetGeodesics\(levels=\[0.0\]\)"):
        LevelSetGeodesics([0.0])
    with pytest.raises(ValueError, match=r"theorem='pythagoras'\): choose from curvy_valley"):
        LevelSetTheorems("pythagoras")
    with pytest.raises(ValueError, match=r"LevelSetTheorems\(instances=0\)"):
        LevelSetTheorems("curvy_valley", instances=0)
    with pytest.raises(ValueError, match=r"bead_lr=-1\): rates must be positive"):
        LevelSetGeodesics([0.1], bead_lr=-1)
    with pytest.raises(ValueError, match=r"networks=2\): 3 different pairs take"):
        LevelSetGeodesics([0.1], pairs=3, networks=2)
    with pytest.raises(ValueError, match=r"metric='bits'\): choose from loss, error, perplexity"):
        LevelSetGeodesics([0.1], metric="bits")
    with pytest.raises(ValueError, match="each point is"):
        LevelSetGeodesics([0.1], published=[[0.1, 1.0]])
