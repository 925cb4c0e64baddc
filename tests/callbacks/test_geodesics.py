"""The callback that finds paths: in every loop, on one process and two, leaving the module as it was."""

import csv

import pytest
import torch
from pytorch_lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from theodolite.callbacks import GeodesicPath
from theodolite.callbacks.geodesics import Path, connect, flat, unflat
from theodolite.callbacks.geodesics.training import Training
from theodolite.datamodules import RegressionDataModule

from .regressions import Foreign, data, metrics, state_of, task, trainer

#: Several runs of a test share a folder that has other files too.
pytestmark = pytest.mark.filterwarnings("ignore:Experiment logs directory")


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference.ckpt"
    torch.save({"state_dict": task(1).state_dict()}, path)
    return str(path)


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
    with (tmp_path / "tables" / stage / "geodesic_profile.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == pytest.approx(expected.values.tolist())
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


class Hooked(Foreign):
    """Normalises where Lightning lets a module do so: 2 x before the transfer, and 1 more after it."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [2 * batch[0], *batch[1:]]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return [batch[0] + 1, *batch[1:]]


@pytest.mark.filterwarnings("ignore:You have overridden")
@pytest.mark.parametrize("quantity", ["training", "evaluated"])
def test_batches_pass_the_modules_hooks_once(tmp_path, quantity):
    torch.manual_seed(0)
    module = Hooked()
    torch.save({"state_dict": Hooked().state_dict()}, tmp_path / "other.ckpt")
    callback = GeodesicPath(str(tmp_path / "other.ckpt"), None, "linear", quantity=quantity, loss_fn=squared)
    trainer(tmp_path, callback).test(module, datamodule=data(), verbose=False)
    x, y = (part.double() for part in next(iter(data().test_dataloader()))[:2])
    with torch.no_grad():
        expected = (module.double().eval().net(2 * x + 1) - y).square().mean()
    assert float(Path.load(tmp_path / "paths/test.pt").values[0]) == pytest.approx(float(expected), rel=1e-6)


class Padded(LightningDataModule):
    """Nine samples in torch's own loaders: on two processes Lightning's sampler repeats one of the held-out ones."""

    def loader(self):
        x = torch.linspace(0, 1, 9)[:, None]
        return DataLoader(TensorDataset(x, x.square()), batch_size=4)

    train_dataloader = test_dataloader = loader


@pytest.mark.ddp
@pytest.mark.slow
def test_a_sample_that_a_sampler_repeats_counts_once(tmp_path):
    torch.manual_seed(0)
    module = Foreign()
    torch.save({"state_dict": Foreign().state_dict()}, tmp_path / "other.ckpt")
    for devices in (1, 2):
        more = {"devices": devices, "strategy": "ddp_spawn"} if devices == 2 else {}
        callback = GeodesicPath(str(tmp_path / "other.ckpt"), None, "linear", "error", "evaluated", loss_fn=squared,
                                error_fn=far)  # fmt: skip
        trainer(tmp_path / str(devices), callback, **more).test(module, datamodule=Padded(), verbose=False)
    one, two = (Path.load(tmp_path / str(devices) / "paths/test.pt") for devices in (1, 2))
    assert set((9 * one.values).round(decimals=6).tolist()) <= set(range(10))
    assert torch.equal(one.values, two.values)
    assert metrics(tmp_path / "2") == pytest.approx(metrics(tmp_path / "1"), rel=1e-6)


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
    callback._show = lambda trainer, plane, path, stage: paths.append(path)  # no figures: they take seconds
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


def test_samples_that_a_sampler_leaves_out_train_nothing(tmp_path, reference):
    """What is held out by a sampler over a part of the dataset is neither in the level nor in the beads' loss."""
    x = torch.linspace(0, 1, 9)[:, None]
    part = [0, 2, 5]

    class Partly(LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(x, x.square()), 9, sampler=SubsetRandomSampler(part))

        def test_dataloader(self):
            return DataLoader(TensorDataset(x, x.square()), 9)

    module = task(0)
    callback = GeodesicPath(reference, method="linear", loss_fn=lambda module, batch: errors(module, *batch))
    trainer(tmp_path, callback).test(module, datamodule=Partly(), verbose=False)
    expected = errors(task(0), x[part].double(), x[part].square().double())
    assert float(Path.load(tmp_path / "paths/test.pt").values[0]) == pytest.approx(expected.item(), rel=1e-6)


def errors(module, x, y):
    return (module(x) - y).square().mean()


def test_mistakes_are_one_clear_line(tmp_path, reference):
    with pytest.raises(FileNotFoundError, match=r"GeodesicPath\(reference='nowhere.ckpt'\): there is no such"):
        GeodesicPath("nowhere.ckpt")
    with pytest.raises(ValueError, match=r"metric='mae'\): choose from loss, error, perplexity"):
        GeodesicPath(reference, metric="mae")
    with pytest.raises(ValueError, match=r"quantity='held_out'\): choose from training, evaluated"):
        GeodesicPath(reference, quantity="held_out")
    with pytest.raises(ValueError, match=r"convention='author': choose from certified, authors"):
        GeodesicPath(reference, convention="author")
    with pytest.raises(ValueError, match=r"count='weight'\): choose from all, weights"):
        GeodesicPath(reference, count="weight")
    with pytest.raises(ValueError, match=r"GeodesicPath\(level=nan\): must be a finite number"):
        GeodesicPath(reference, level=float("nan"))
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
    (tmp_path / "half.ckpt").write_bytes((tmp_path / "nan.ckpt").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"half.ckpt cannot be read: it is damaged"):
        trainer(tmp_path, GeodesicPath(str(tmp_path / "half.ckpt"))).test(task(0), datamodule=data(), verbose=False)
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
