"""The callbacks that find paths: in every loop, on one process and two, leaving the module as it was."""

import csv
from functools import partial

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from theodolite.callbacks import GeodesicPath, LevelSetGeodesics, LevelSetSnapshots, LevelSetTheorems
from theodolite.callbacks.geodesics import ModelLandscape, Path, connect, flat, unflat
from theodolite.callbacks.geodesics.training import Training
from theodolite.callbacks.level_set_geodesics import as_trained, fresh_points, pair_up
from theodolite.callbacks.level_set_report import agreements
from theodolite.datamodules import RegressionDataModule
from theodolite.modules.regression import FeedForward, Regression

#: Several runs of a test share a folder that has other files too.
pytestmark = pytest.mark.filterwarnings("ignore:Experiment logs directory")
QUIET = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def task(seed, widths=(1, 4, 1), error="squared"):
    torch.manual_seed(seed)
    return Regression(FeedForward(widths), error, optimizer=partial(torch.optim.Adam, lr=0.02)).double()


def data(num_samples=9, batch_size=0):
    return RegressionDataModule(num_samples=num_samples, batch_size=batch_size)


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.ckpt"
    torch.save({"state_dict": task(1).state_dict()}, path)
    return str(path)


def trainer(folder, *callbacks, **options):
    logger = CSVLogger(folder, name="", version="")
    return Trainer(
        accelerator="cpu", precision="64-true", logger=logger, callbacks=list(callbacks), **{**QUIET, **options}
    )


def metrics(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(value) for row in rows for key, value in row.items() if value}


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.mark.parametrize("command", ["validate", "test"])
def test_path_of_the_callback_is_that_of_the_function(tmp_path, reference, command):
    module, before = task(0), state_of(task(0))
    callback = GeodesicPath(reference, level=1.0)
    getattr(trainer(tmp_path, callback), command)(module, datamodule=data(), verbose=False)
    (batch,) = data().train_dataloader()
    expected = connect(
        task(0), task(1), [tuple(part.double() if part.is_floating_point() else part for part in batch)], 1.0
    )
    stage = {"validate": "val", "test": "test"}[command]
    logged = metrics(tmp_path)
    summary = expected.summary()
    summary["loss_barrier"] = summary.pop("barrier")
    for name, value in summary.items():
        assert logged[f"{stage}/geodesic/{name}"] == pytest.approx(value, rel=1e-6), name
    saved = Path.load(tmp_path / "paths" / f"{stage}.pt")
    torch.testing.assert_close(saved.beads, expected.beads)
    assert (tmp_path / "figures" / stage / "geodesic_profile.png").is_file()
    assert (tmp_path / "figures" / stage / "geodesic_plane.png").is_file()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def test_within_fit_training_is_not_disturbed(tmp_path, reference):
    """The weights after four epochs are the same with the callback and without."""
    results = []
    for callbacks in ([], [GeodesicPath(reference, every_n_epochs=2, max_steps=30, max_passes=1)]):
        module = task(0)
        torch.manual_seed(3)
        trainer(tmp_path / str(len(results)), *callbacks, max_epochs=4, log_every_n_steps=1).fit(module, data(9, 4))
        results.append(flat(module))
    assert torch.equal(*results)
    with (tmp_path / "1/metrics.csv").open() as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row.get("val/geodesic/length")]
    assert epochs == [1, 3]


def test_level_of_the_evaluated_batches(tmp_path, reference):
    """The level is the higher end on the validation batches, which a cubic has and the training batches have not."""

    class Held(RegressionDataModule):
        def dataset(self, split):
            held = RegressionDataModule("cubic", self.num_samples) if split == "test" else self
            return RegressionDataModule.dataset(held, split)

    module = task(0)
    callback = GeodesicPath(reference, quantity="evaluated", method="linear")
    trainer(tmp_path, callback).test(module, datamodule=Held(num_samples=9), verbose=False)
    path = Path.load(tmp_path / "paths/test.pt")
    assert float(path.values[0]) == pytest.approx(metrics(tmp_path)["test/loss"])
    assert path.level == pytest.approx(float(path.values[[0, -1]].max()))


def held_out_errors(points, module):
    """Loss and error of parameter vectors on the test samples, by hand."""
    x, y = (part.double() for part in next(iter(data().test_dataloader()))[:2])
    values = []
    for point in points:
        difference = torch.func.functional_call(module, unflat(point, module), (x,)) - y
        values.append([float(difference.square().mean()), float(difference.abs().mean())])
    return torch.tensor(values).double().T


@pytest.mark.parametrize("metric", ["loss", "error", "perplexity"])
def test_barriers_are_named_and_the_level_may_bound_any_metric_of_held_out_samples(tmp_path, reference, metric):
    """Squared loss, and mean absolute error as the module's error(batch); all by hand at every tested point."""
    module = task(0)
    callback = GeodesicPath(reference, metric=metric, quantity="evaluated", method="linear")
    trainer(tmp_path, callback).test(module, datamodule=data(), verbose=False)
    path, logged = Path.load(tmp_path / "paths/test.pt"), metrics(tmp_path)
    loss, error = held_out_errors([path.point(float(t)) for t in path.position], task(0))
    expected = {"loss": loss, "error": error, "perplexity": loss.exp()}
    torch.testing.assert_close(path.values, expected[metric], rtol=1e-6, atol=1e-9)
    assert path.level == pytest.approx(float(path.values[[0, -1]].max()))
    for name in {"loss", "error", metric}:
        barrier = float(expected[name].max() - expected[name][[0, -1]].max())
        assert logged[f"test/geodesic/{name}_barrier"] == pytest.approx(barrier, rel=1e-5, abs=1e-6), name
    assert ("test/geodesic/perplexity_barrier" in logged) == (metric == "perplexity")
    assert "test/geodesic/barrier" not in logged


def test_beads_are_trained_on_the_loss_until_the_error_is_low(tmp_path, reference):
    """Squared loss below, absolute error as the level: connected means that the error is low on all of the path."""
    torch.save({"state_dict": low(task(1)).state_dict()}, reference)
    callback = GeodesicPath(reference, 0.15, metric="error", quantity="evaluated", lr=0.01, max_steps=3000)
    trainer(tmp_path, callback).test(low(task(0)), datamodule=data(), verbose=False)
    path = Path.load(tmp_path / "paths/test.pt")
    assert path.connected
    assert path.num_beads > 2
    _, error = held_out_errors([path.point(t / 300) for t in range(301)], task(0))
    assert float(error.max()) <= 0.15 + 2e-4  # the tolerance of the certified maximum


def test_a_permuted_reference_is_aligned(tmp_path):
    module = low(task(0))
    order = torch.tensor([2, 0, 3, 1])
    state = dict(module.state_dict())
    for name, axis in (("layers.0.weight", 0), ("layers.0.bias", 0), ("layers.1.weight", 1)):
        state[f"network.{name}"] = state[f"network.{name}"].index_select(axis, order)
    torch.save({"state_dict": state}, tmp_path / "copy.ckpt")
    barriers = []
    for align in (False, True):
        callback = GeodesicPath(str(tmp_path / "copy.ckpt"), method="linear", align=align)
        trainer(tmp_path / str(align), callback).test(module, datamodule=data(), verbose=False)
        barriers.append(metrics(tmp_path / str(align))["test/geodesic/loss_barrier"])
    assert barriers[0] > 0
    assert barriers[1] == 0
    path = Path.load(tmp_path / "True/paths/test.pt")
    assert torch.equal(path.beads[0], path.beads[1])


class Foreign(LightningModule):
    """A module of somebody else: no loss(batch), and dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.5), nn.Linear(3, 1))

    def test_step(self, batch, batch_idx):
        pass


def squared(module, batch):
    return (module.net(batch[0]) - batch[1]).square().mean()


def far(module, batch):
    return ((module.net(batch[0]) - batch[1]).abs() > 0.1).double().mean()


def test_any_module_with_a_loss_function(tmp_path):
    torch.manual_seed(0)
    module, other = Foreign(), Foreign()
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.ckpt")
    callback = GeodesicPath(str(tmp_path / "other.ckpt"), level=5.0, loss_fn=squared)
    trainer(tmp_path, callback).test(module, datamodule=data(), verbose=False)
    assert metrics(tmp_path)["test/geodesic/connected"] == 1
    assert "test/geodesic/error_barrier" not in metrics(tmp_path)
    callback = GeodesicPath(str(tmp_path / "other.ckpt"), 5.0, loss_fn=squared, error_fn=far)
    trainer(tmp_path / "errs", callback).test(module, datamodule=data(), verbose=False)
    assert (metrics(tmp_path / "errs")["test/geodesic/error_barrier"] * 9) % 1 == pytest.approx(0, abs=1e-6)
    callback = GeodesicPath(str(tmp_path / "other.ckpt"), metric="error", loss_fn=squared)
    with pytest.raises(ValueError, match=r"Foreign has no error\(batch\); give GeodesicPath error_fn"):
        trainer(tmp_path, callback).test(module, datamodule=data(), verbose=False)
    with pytest.raises(ValueError, match=r"Foreign has no loss\(batch\); give loss_fn"):
        trainer(tmp_path, GeodesicPath(str(tmp_path / "other.ckpt"))).test(module, datamodule=data(), verbose=False)


def test_a_killed_search_of_the_callback_goes_on(tmp_path, reference, monkeypatch):
    """Killed at its second exchange: what was trained is not trained again, and the path is that of one go."""
    torch.save({"state_dict": low(task(1)).state_dict()}, reference)
    module, options = low(task(0)), {"lr": 0.01, "max_steps": 3000}
    trainer(tmp_path / "whole", GeodesicPath(reference, 0.03, **options)).test(module, data(), verbose=False)
    expected = Path.load(tmp_path / "whole/paths/test.pt")
    assert expected.num_beads > 3
    trained, original = [], Training.advance

    def dies(self):
        trained.append(len(self.owners))
        if len(trained) == 2:
            raise RuntimeError("killed")
        return original(self)

    monkeypatch.setattr(Training, "advance", dies)
    file = tmp_path / "search.pt"
    resumed = GeodesicPath(reference, 0.03, **options, resume=str(file))
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tmp_path / "dead", resumed).test(module, data(), verbose=False)
    assert file.is_file()
    resumed = GeodesicPath(reference, 0.03, **options, resume=str(file))
    trainer(tmp_path / "again", resumed).test(module, data(), verbose=False)
    path = Path.load(tmp_path / "again/paths/test.pt")
    torch.testing.assert_close(path.beads, expected.beads, rtol=0, atol=0)
    assert path.connected == expected.connected
    assert not file.exists()


class Normalised(Foreign):
    """Batch normalisation: its statistics belong to no point of a path."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


def test_batch_norm_is_re_estimated_and_everything_is_left_as_found(tmp_path):
    """The ends' losses are those of the batch's own statistics; buffers, modes and random state stay."""
    torch.manual_seed(0)
    module, other = Normalised(), Normalised()
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.ckpt")
    module.net[1].running_mean.fill_(7.0)
    module.net[0].weight.requires_grad_(False)
    module.net[1].eval()
    before, modes = state_of(module), [part.training for part in module.modules()]
    callback = GeodesicPath(str(tmp_path / "other.ckpt"), 5.0, "linear", loss_fn=squared)
    paths, states = [], []
    callback._show = lambda trainer, landscape, path, stage: paths.append(path)  # no figures: they take seconds
    for callbacks in ([], [callback]):  # the loaders draw too
        torch.manual_seed(1)
        trainer(tmp_path, *callbacks).test(module, datamodule=data(), verbose=False)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
    assert all(torch.equal(value, before[name]) for name, value in state_of(module).items())
    assert [part.training for part in module.modules()] == modes
    assert not module.net[0].weight.requires_grad
    x, y = (part.double() for part in next(iter(data().train_dataloader()))[:2])
    with torch.no_grad():
        hidden = module.double().net[0](x)
        scaled = (hidden - hidden.mean(0)) / (hidden.var(0) + 1e-5).sqrt() * module.net[1].weight + module.net[1].bias
        expected = (module.net[3](scaled.tanh()) - y).square().mean()
    assert float(paths[0].values[0]) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_find_the_path_of_one(tmp_path, reference):
    """Nine samples on two ranks; beads of a level are shared out, and the path is the same."""
    level, options = 0.03, {"lr": 0.01, "max_steps": 3000}
    for devices in (1, 2):
        callback = GeodesicPath(reference, level=level, **options)
        more = {"devices": devices, "strategy": "ddp_spawn"} if devices == 2 else {}
        module = task(0)
        torch.save({"state_dict": low(task(1)).state_dict()}, reference)
        trainer(tmp_path / str(devices), callback, **more).test(low(module), datamodule=data(), verbose=False)
    one, two = (Path.load(tmp_path / str(devices) / "paths/test.pt") for devices in (1, 2))
    assert one.connected
    assert one.num_beads > 3
    torch.testing.assert_close(one.beads, two.beads, rtol=1e-8, atol=1e-8)
    assert one.maximum == pytest.approx(two.maximum, rel=1e-8)
    for key, value in metrics(tmp_path / "1").items():
        assert metrics(tmp_path / "2")[key] == pytest.approx(value, rel=1e-6), key


def low(module):
    """Train a module to a low loss, so that there is something to connect."""
    (x, y, _) = next(iter(data().train_dataloader()))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        (module(x.double()) - y.double()).square().mean().backward()
        optimizer.step()
    return module


def test_snapshots_are_taken_once_at_the_first_epoch_below_each_level(tmp_path):
    callback = LevelSetSnapshots([0.05, 0.2, 1e-9])
    trainer(tmp_path, callback, max_epochs=30, log_every_n_steps=1).fit(task(0), data())
    with (tmp_path / "metrics.csv").open() as file:
        losses = {int(row["epoch"]): float(row["val/loss"]) for row in csv.DictReader(file) if row.get("val/loss")}
    assert callback.reached == [0.2, 0.05]
    for level in (0.2, 0.05):
        content = torch.load(tmp_path / f"snapshots/level_{level:g}.ckpt", weights_only=True)
        first = min(epoch for epoch, loss in losses.items() if loss < level)
        assert content["epoch"] == first
        module = task(5)
        module.load_state_dict(content["state_dict"])
        result = trainer(tmp_path / "again").validate(module, data(), verbose=False)[0]
        assert result["val/loss"] == pytest.approx(losses[first], rel=1e-6)
    assert not (tmp_path / "snapshots/level_1e-09.ckpt").exists()


def test_snapshots_stop_and_are_not_repeated_after_a_resume(tmp_path):
    callback = LevelSetSnapshots([0.2], stop=True)
    runner = trainer(tmp_path, callback, max_epochs=200, log_every_n_steps=1)
    runner.fit(task(0), data())
    assert runner.current_epoch < 200
    resumed = LevelSetSnapshots([0.2])
    resumed.load_state_dict(callback.state_dict())
    (tmp_path / "snapshots/level_0.2.ckpt").unlink()
    trainer(tmp_path, resumed, max_epochs=2, log_every_n_steps=1).fit(task(0), data())
    assert not (tmp_path / "snapshots/level_0.2.ckpt").exists()
    with pytest.raises(ValueError, match=r"monitor='val/none'\): no such quantity was logged; there are .*val/loss"):
        trainer(tmp_path, LevelSetSnapshots([1.0], "val/none"), max_epochs=1, log_every_n_steps=1).fit(task(0), data())


class NineHeldOut(RegressionDataModule):
    """Data with another number of samples to validate on."""

    def dataset(self, split):
        return RegressionDataModule.dataset(data(9) if split == "val" else self, split)


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
    assert set(one) == set(two) == {"level_0.2.ckpt", "level_0.05.ckpt"}
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


def test_mistakes_are_one_clear_line(tmp_path, reference):
    with pytest.raises(FileNotFoundError, match=r"GeodesicPath\(reference='nowhere.ckpt'\): there is no such"):
        GeodesicPath("nowhere.ckpt")
    with pytest.raises(ValueError, match=r"metric='mae'\): choose from loss, error, perplexity"):
        GeodesicPath(reference, metric="mae")
    with pytest.raises(ValueError, match=r"num_batches=-1"):
        GeodesicPath(reference, num_batches=-1)
    with pytest.raises(ValueError, match=r"layers.0.weight is \(4, 1\) there and \(5, 1\) here"):
        trainer(tmp_path, GeodesicPath(reference)).test(task(0, (1, 5, 1)), datamodule=data(), verbose=False)
    diverged = {name: value * float("nan") for name, value in task(0).state_dict().items()}
    torch.save({"state_dict": diverged}, tmp_path / "nan.ckpt")
    for level in (1.0, None):
        callback = GeodesicPath(str(tmp_path / "nan.ckpt"), level)
        with pytest.raises(ValueError, match="the value of an end is not a number"):
            trainer(tmp_path, callback).test(task(0), datamodule=data(), verbose=False)
    del diverged["network.layers.1.bias"]
    torch.save({"state_dict": diverged}, tmp_path / "partial.ckpt")
    with pytest.raises(ValueError, match=r"network.layers.1.bias is absent there and \(1,\) here"):
        trainer(tmp_path, GeodesicPath(str(tmp_path / "partial.ckpt"))).test(task(0), datamodule=data(), verbose=False)
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(ValueError, match="holds no state_dict"):
        trainer(tmp_path, GeodesicPath(str(tmp_path / "list.ckpt"))).test(task(0), datamodule=data(), verbose=False)
    with pytest.raises(ValueError, match="this trainer has none: give it a datamodule"):
        trainer(tmp_path, GeodesicPath(reference)).test(task(0), data().test_dataloader(), verbose=False)
    listed = data()
    listed.train_dataloader = lambda: [data().train_dataloader()]
    with pytest.raises(ValueError, match="the training data are a list"):
        trainer(tmp_path, GeodesicPath(reference)).test(task(0), datamodule=listed, verbose=False)
    with pytest.raises(ValueError, match="an end has the value"):
        trainer(tmp_path, GeodesicPath(reference, level=1e-9)).test(task(0), datamodule=data(), verbose=False)
    with pytest.raises(ValueError, match=r"LevelSetSnapshots\(levels=\[\]\)"):
        LevelSetSnapshots([])
    with pytest.raises(ValueError, match=r"LevelSetGeodesics\(levels=\[0.0\]\)"):
        LevelSetGeodesics([0.0])
    with pytest.raises(ValueError, match=r"theorem='pythagoras'\): choose from curvy_valley"):
        LevelSetTheorems("pythagoras")
    with pytest.raises(ValueError, match=r"LevelSetTheorems\(instances=0\)"):
        LevelSetTheorems("curvy_valley", instances=0)
    with pytest.raises(ValueError, match=r"networks=2\): 3 different pairs take"):
        LevelSetGeodesics([0.1], pairs=3, networks=2)
    with pytest.raises(ValueError, match=r"metric='bits'\): choose from loss, error, perplexity"):
        LevelSetGeodesics([0.1], metric="bits")
    with pytest.raises(ValueError, match="each point is"):
        LevelSetGeodesics([0.1], published=[[0.1, 1.0]])
