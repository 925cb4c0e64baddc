"""What a search sees of a model is what the model itself gives, in whatever chunks."""

import math

import pytest
import torch
from torch import nn

from theodolite.callbacks.geodesics import ModelLandscape, Surface, as_measured, flat, unflat
from theodolite.callbacks.geodesics import descent as descents
from theodolite.callbacks.geodesics import landscape as landscapes
from theodolite.callbacks.geodesics import recorded as recordings
from theodolite.callbacks.geodesics.descent import descend, snapshots
from theodolite.callbacks.geodesics.elastic_band import tangents
from theodolite.callbacks.geodesics.memory import Remembered
from theodolite.modules.regression import FeedForward, Regression


def task(seed=0, bias=True):
    torch.manual_seed(seed)
    return Regression(FeedForward((1, 4, 4, 1), bias=bias)).double()


def batches(sizes=(30, 11)):
    generator = torch.Generator().manual_seed(5)
    return [(x := torch.rand(n, 1, generator=generator).double(), x**3, torch.arange(n)) for n in sizes]


def points(module, n=50):
    return flat(module) + torch.randn(n, len(flat(module)), generator=torch.Generator().manual_seed(1)).double()


def put(module, point):
    with torch.no_grad():
        for name, value in unflat(point, module).items():
            module.get_parameter(name).copy_(value)
    return module


@pytest.mark.parametrize("chunk_bytes", [1, 200_000, 2**23])
def test_values_and_gradients_are_the_modules_own(chunk_bytes):
    """One by one, in chunks of a few, all at once: a mean over samples of unequal batches, and autograd's gradient."""
    module, data = task(), batches()
    landscape = ModelLandscape(module, data, chunk_bytes=chunk_bytes)
    where = points(module)
    losses, gradients = landscape.gradient(where, step=3)  # the second batch of two
    values = landscape.values(where)
    for i, point in enumerate(where):
        own = put(task(1), point)
        loss = own.loss(data[1])
        loss.backward()
        torch.testing.assert_close(losses[i], loss.detach())
        torch.testing.assert_close(gradients[i], torch.cat([p.grad.reshape(-1) for p in own.parameters()]))
        everything = tuple(torch.cat(parts) for parts in zip(*data, strict=True))
        torch.testing.assert_close(values[i], own.loss(everything).detach())


@pytest.mark.parametrize("n", [1, 2, 5, 50])
@pytest.mark.parametrize("chunk_bytes", [1, 2**23])
def test_recorded_gradients_are_the_modules_own(monkeypatch, n, chunk_bytes):
    """After many calls the operations alone are repeated: on other points, and on samples changed in between."""
    monkeypatch.setattr(recordings, "_CALLS", 2)
    asked = []

    def loss_fn(module, batch):
        asked.append(batch)
        return module.loss([part.view(part.shape).detach() for part in batch])

    module, (batch, _) = task(bias=False), batches()
    landscape = ModelLandscape(module, [batch], loss_fn=loss_fn, chunk_bytes=chunk_bytes)
    where = points(module, n)
    for step in range(5):
        before = len(asked)
        losses, gradients = landscape.gradient(where + step, step)
        assert step < 2 or len(asked) == before
        for i, point in enumerate(where + step):
            own = put(task(1, bias=False), point)
            loss = own.loss(batch)
            loss.backward()
            torch.testing.assert_close(losses[i], loss.detach())
            torch.testing.assert_close(gradients[i], torch.cat([p.grad.reshape(-1) for p in own.parameters()]))
        batch[0].mul_(0.9)


def test_a_loss_that_asks_for_values_is_asked_at_every_step(monkeypatch):
    """The operations of one branch are not those of the other, so nothing is recorded."""
    monkeypatch.setattr(recordings, "_CALLS", 1)
    module, (batch, _) = task(), batches()

    def loss_fn(module, batch):
        loss = module.loss(batch)
        return 2 * loss if sum(module.network.state_dict()["layers.0.weight"].tolist()[0]) > 0 else loss

    landscape = ModelLandscape(module, [batch], loss_fn=loss_fn)
    first = points(module, 1)
    first[0, 0] = 1
    second = first.clone()
    second[0, 0] = -1
    for where, factor in ((first, 2), (second, 1), (first, 2)):
        losses, _ = landscape.gradient(where, 0)
        torch.testing.assert_close(losses[0], factor * put(task(1), where[0]).loss(batch).detach())


def test_a_weight_that_two_layers_share_changes_in_both():
    """One parameter by name, used twice: loss and gradient are the module's own."""
    module = Regression(FeedForward((4, 4, 4, 4), bias=False)).double()
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    layers[1].weight = layers[0].weight
    x, y = torch.rand(2, 20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    landscape = ModelLandscape(module, [(x, y)])
    where = points(module, 3)
    assert where.shape[1] == 32
    losses, gradients = landscape.gradient(where, step=0)
    for i, point in enumerate(where):
        put(module, point)
        loss = module.loss((x, y))
        torch.testing.assert_close(losses[i], loss.detach())
        own = torch.autograd.grad(loss, list(module.parameters()))
        torch.testing.assert_close(gradients[i], torch.cat([part.reshape(-1) for part in own]))


def test_chunks_follow_the_size_of_a_batch(monkeypatch):
    """Eight megabytes hold thousands of points on 20 samples, and few on 10,000: those go one by one."""
    module, calls = task(), []
    original = landscapes.vmap
    monkeypatch.setattr(landscapes, "vmap", lambda *words, **options: calls.append(1) or original(*words, **options))
    where = points(module, 40)
    ModelLandscape(module, batches((20,))).values(where)
    assert len(calls) == 1
    calls.clear()
    ModelLandscape(module, batches((10_000,))).values(where[:3])
    assert not calls


def test_weights_alone_are_counted():
    assert ModelLandscape(task(), batches()).counted is None
    counted = ModelLandscape(task(), batches(), count="weights").counted
    assert counted is not None
    assert int(counted.sum()) == 4 + 16 + 4
    assert len(counted) == 24 + 9


class Normalised(nn.Module):
    """A network with batch normalisation and a loss."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))

    def loss(self, batch):
        return (self.net(batch[0]) - batch[1]).square().mean()


def test_batch_norm_is_re_estimated_at_every_point_and_left_as_it_was():
    """On one batch, the re-estimated mean and variance are the batch's own: evaluated by hand at each point."""
    torch.manual_seed(0)
    module = Normalised().double()
    module.net[1].running_mean.fill_(3.0)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (data,) = batches((40,))
    with as_measured(module):
        landscape = ModelLandscape(module, [data])
        where = points(module, 3)
        values = landscape.values(where)
        landscape.gradient(where, 0)
    for point, value in zip(where, values, strict=True):
        layer = put(Normalised().double(), point).net
        hidden = layer[0](data[0])
        scaled = (hidden - hidden.mean(0)) / (hidden.var(0) + 1e-5).sqrt()
        output = layer[3](torch.tanh(scaled * layer[1].weight + layer[1].bias))
        torch.testing.assert_close(value, (output - data[1]).square().mean().detach())
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert module.net[1].momentum == 0.1
    assert module.training


def test_statistics_that_cannot_be_re_estimated_are_refused():
    tracking = nn.Sequential(nn.Linear(1, 6), nn.InstanceNorm1d(6, track_running_stats=True))
    with pytest.raises(ValueError, match=r"1 \(InstanceNorm1d\) keeps running statistics, .*track_running_stats=False"):
        ModelLandscape(tracking, batches(), loss_fn=lambda module, batch: module(batch[0]).mean())
    module = Normalised().double().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ValueError, match=r"cannot be re-estimated on a batch of one sample .*change the batch size"):
        ModelLandscape(module, batches((4, 1))).values(flat(module)[None])
    beside = ModelLandscape(
        module,
        batches(),
        loss_fn=lambda net, batch: net.net[3].weight.square().sum(),
        level_fn=lambda net, batch: net.loss(batch),
    )
    with pytest.raises(ValueError, match="BatchNorm1d of 6 channels cannot be re-estimated: the training loss never"):
        beside.values(flat(module)[None])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.net[1].training


def test_as_measured_restores_each_parts_mode():
    module = Normalised()
    module.net[1].eval()
    with as_measured(module):
        assert not any(part.training for part in module.modules())
    assert module.training
    assert not module.net[1].training


def test_descent_of_many_is_descent_of_each_alone():
    """Rows that are done leave; Adam's memory of the others goes on as if they had been alone all the time."""
    module, data = task(), batches((30,))
    landscape, where = ModelLandscape(module, data), points(module, 5)
    options = {"lr": 0.01, "block": 15, "max_steps": 90}
    together, values = descend(landscape, where, 0.1, **options)
    for i in range(5):
        point, value = descend(landscape, where[i : i + 1], 0.1, **options)
        torch.testing.assert_close(together[i], point[0])
        torch.testing.assert_close(values[i], value[0])
    torch.testing.assert_close(values, landscape.values(together))


def test_descent_is_torchs_adam():
    module, data = task(), batches((30,))
    point, _ = descend(ModelLandscape(module, data), flat(module)[None], 0.0, lr=0.01, block=7, max_steps=20)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        module.loss(data[0]).backward()
        optimizer.step()
    torch.testing.assert_close(point[0], flat(module))


def test_snapshots_are_the_first_points_below_each_level():
    module, data = task(), batches((30,))
    landscape = ModelLandscape(module, data)
    start = points(module, 3)
    levels = [0.3, 0.15, 0.0]
    kept, reached = snapshots(landscape, start, levels, lr=0.05, max_steps=150)
    assert reached.tolist() == [[True] * 3, [True] * 3, [False] * 3]
    for i in range(3):
        track, point = [], torch.nn.Parameter(start[i : i + 1].clone())
        optimizer = torch.optim.Adam([point], lr=0.05)
        for _ in range(150):
            losses, gradient = landscape.gradient(point.detach(), 0)
            track.append((float(losses[0]), point.detach()[0].clone()))
            point.grad = gradient
            optimizer.step()
        for number, level in enumerate(levels[:2]):
            first = next(where for loss, where in track if loss < level)
            torch.testing.assert_close(kept[number, i], first)


def test_snapshots_of_several_batches_are_below_the_level_on_all_of_them():
    """Looked at every 7 steps, as a step's loss is that of one batch: the first of these points below each level."""
    module, data = task(), batches((30, 9))
    landscape = ModelLandscape(module, data)
    assert not landscape.level_is_loss
    assert ModelLandscape(module, data[:1]).level_is_loss
    start, levels = points(module, 2), [0.3, 0.15]
    kept, reached = snapshots(landscape, start, levels, lr=0.05, max_steps=150, block=7)
    assert bool(reached.all())
    for i in range(2):
        track, point = [], torch.nn.Parameter(start[i : i + 1].clone())
        optimizer = torch.optim.Adam([point], lr=0.05)
        for step in range(150):
            track.append((float(landscape.values(point.detach())), point.detach()[0].clone()))
            point.grad = landscape.gradient(point.detach(), step)[1]
            optimizer.step()
        for number, level in enumerate(levels):
            first = next(where for loss, where in track[7::7] if loss < level)
            torch.testing.assert_close(kept[number, i], first)


def test_tangents_at_a_slope_and_at_extrema():
    """Right-angled steps (1, 0) and (0, 2): the higher neighbour on a slope, the weighted sum at a maximum."""
    chain = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    up = tangents(chain, torch.tensor([0.0, 1.0, 2.0]))
    down = tangents(chain, torch.tensor([2.0, 1.0, 0.0]))
    torch.testing.assert_close(up, torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(down, torch.tensor([[1.0, 0.0]]))
    # maximum 3 between 0 and 2: differences 3 (max) and 1 (min); the end is higher, so forward * 3 + backward * 1
    top = tangents(chain, torch.tensor([0.0, 3.0, 2.0]))
    torch.testing.assert_close(top, torch.tensor([[1.0, 6.0]]) / 37**0.5)
    top = tangents(chain, torch.tensor([2.0, 3.0, 0.0]))
    torch.testing.assert_close(top, torch.tensor([[3.0, 2.0]]) / 13**0.5)
    level = tangents(chain, torch.ones(3))
    torch.testing.assert_close(torch.linalg.vector_norm(level, dim=1), torch.ones(1))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="chunk_bytes=0"):
        ModelLandscape(task(), batches(), chunk_bytes=0)
    zeros = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="no first tensor"):
        ModelLandscape(nn.Linear(1, 1), ["words"], loss_fn=lambda module, batch: module.bias.sum()).values(zeros)


def test_a_remembered_landscape_evaluates_no_point_twice():
    evaluated = []

    def values(points):
        evaluated.append(len(points))
        return points.square().sum(1)

    landscape, where = Remembered(Surface(values)), torch.randn(5, 3)
    expected = where.square().sum(1)
    assert torch.equal(landscape.values(where[:3]), expected[:3])
    assert torch.equal(landscape.values(where[[4, 1, 0]]), expected[[4, 1, 0]])
    assert torch.equal(landscape.values(where[:2]), expected[:2])
    assert evaluated == [3, 1]
    assert torch.equal(landscape.gradient(where, 0)[1], 2 * where)
    module = task()
    original = ModelLandscape(module, batches(), count="weights")
    kept = Remembered(original)
    assert kept.period == 2
    assert kept.counted is original.counted
    assert torch.equal(kept.gradient(points(module, 2), 1)[1], original.gradient(points(module, 2), 1)[1])


def test_steps_of_large_networks_are_taken_one_after_another(monkeypatch):
    """Three rows of which two fit: the same points and snapshots as all together."""
    landscape, starts = Surface(lambda points: (points - 1).square().sum(1)), torch.randn(3, 4).double()
    options = {"lr": 0.05, "max_steps": 200}
    together = descend(landscape, starts, 1e-3, block=7, **options)
    kept = snapshots(landscape, starts, [0.5, 1e-3], block=3, **options)
    monkeypatch.setattr(descents, "_NUMBERS", 8)
    for one, other in zip(
        (*together, *kept),
        (*descend(landscape, starts, 1e-3, block=7, **options),
         *snapshots(landscape, starts, [0.5, 1e-3], block=3, **options)),
        strict=True,
    ):  # fmt: skip
        assert torch.equal(one, other)


def test_clipped_descent_by_hand():
    """On |x|^2 from (3, 4) the gradient (6, 8) of norm 10 is cut to norm 5, then steps of 0.1 are taken."""
    landscape = Surface(lambda points: points.square().sum(1))
    options = {"lr": 0.1, "block": 1, "max_steps": 1, "optimizer": "sgd", "clip": 5.0}
    point, value = descend(landscape, torch.tensor([[3.0, 4.0]]).double(), 0.0, **options)
    assert point[0].tolist() == pytest.approx([2.7, 3.6])
    assert float(value) == pytest.approx(20.25)
    small, _ = descend(landscape, torch.tensor([[0.3, 0.4]]).double(), 0.0, **options)
    assert small[0].tolist() == pytest.approx([0.24, 0.32])


def test_descent_at_a_rate_that_drops_by_hand():
    """On |x|^2 every step multiplies by 1 - 2 lr, and the rate falls to a tenth after two steps."""
    landscape, options = Surface(lambda points: points.square().sum(1)), {"lr": 0.1, "optimizer": "sgd"}
    factors = [0.8, 0.8, 0.98, 0.98]
    start = torch.tensor([[3.0, 4.0]]).double()
    point, _ = descend(landscape, start, 0.0, block=3, max_steps=4, drop_steps=2, **options)
    torch.testing.assert_close(point, start * math.prod(factors))
    level = float((start * math.prod(factors[:3])).square().sum()) + 1e-9
    kept, reached = snapshots(landscape, start, [level], max_steps=9, drop_steps=2, **options)
    assert bool(reached.all())
    torch.testing.assert_close(kept[0], start * math.prod(factors[:3]))


def test_a_loss_that_branches_on_a_value_is_evaluated_point_by_point():
    """vmap has no rule for it; values and gradients are those of single points."""

    def branching(module, batch):
        loss = (module(batch[0]) - batch[1]).square().mean()
        return 2 * loss if loss > 0.2 else loss

    module, (batch,) = task(), batches((30,))
    some = points(module, 7)
    landscape = ModelLandscape(module, [batch], loss_fn=branching)
    values, gradients = landscape.gradient(some, 0)
    for point, value, gradient in zip(some, values, gradients, strict=True):
        put(module, point).zero_grad()
        loss = branching(module, batch)
        loss.backward()
        torch.testing.assert_close(value, loss.detach())
        torch.testing.assert_close(gradient, torch.cat([p.grad.flatten() for p in module.parameters()]))
    torch.testing.assert_close(landscape.values(some), values)


def test_samples_are_counted_by_the_first_tensor_of_a_batch():
    assert landscapes.num_samples({"path": ["a", "b"], "more": (None, torch.zeros(3, 2))}) == 3
    with pytest.raises(ValueError, match="has no first tensor to count samples by"):
        landscapes.num_samples({"path": ["a", "b"]})


def test_an_error_of_zero_is_reached():
    """Nothing is below 0, yet a bead that makes no error is done; above 0 the target itself is not enough."""
    values = torch.tensor([0.0, 0.1, 0.2])
    assert descents.below(values, 0.0).tolist() == [True, False, False]
    assert descents.below(values, float(values[1])).tolist() == [True, False, False]


def test_the_last_step_is_looked_at():
    """A network that is below the level at the end of its steps only, and steps fewer than lie between two looks."""
    module = task()
    start = points(module, 2)
    landscape = ModelLandscape(module, batches((9,)), level_fn=lambda module, batch: module.loss(batch))
    (kept,), (reached,) = snapshots(landscape, start, [1e9], lr=0.01, max_steps=5, block=100)
    assert reached.all()
    ends, _ = descend(landscape, start, -1.0, lr=0.01, block=5, max_steps=5)
    torch.testing.assert_close(kept, ends)
