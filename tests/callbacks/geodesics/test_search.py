"""Paths between points of surfaces whose level sets are known, and between small networks."""

import math

import pytest
import torch
from torch import nn

from theodolite.callbacks.geodesics import AUTHORS, Path, Settings, Surface, connect, find_paths, flat
from theodolite.callbacks.geodesics.curves import bezier
from theodolite.callbacks.geodesics.examples import curvy_valley
from theodolite.callbacks.geodesics.training import Training
from theodolite.modules.regression import FeedForward, Regression

METHODS = ["dss", "linear", "bezier", "neb"]
VALLEY, *ENDS = curvy_valley()
X0 = 2.5 * math.pi


def bowl(points):
    return points.square().sum(1)


def test_the_valley_is_as_described():
    """Minima of value 0 at (+-x0, +-1), and 1 at the least on the line x = 0, at the origin."""
    torch.testing.assert_close(torch.cat(ENDS), torch.tensor([[-X0, -1.0], [X0, 1.0]]).double())
    torch.testing.assert_close(VALLEY.gradient(torch.cat(ENDS))[1], torch.zeros(2, 2).double(), atol=1e-14, rtol=0)
    assert VALLEY.values(torch.cat(ENDS)).abs().max() < 1e-14
    middle = torch.stack([torch.zeros(101), torch.linspace(-2, 2, 101)], dim=1).double()
    assert VALLEY.values(middle).min() == pytest.approx(1, abs=1e-12)
    floor = torch.linspace(-X0, X0, 10001).double()
    length = torch.stack([floor, floor.sin()], dim=1).diff(dim=0).norm(dim=1).sum()
    assert length / (ENDS[0] - ENDS[1]).norm() == pytest.approx(1.2063, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_convex_level_sets_need_no_bead_and_the_straight_line(method):
    start, end = torch.tensor([[1.0, 0.0, 2.0]]).double(), torch.tensor([[0.0, -1.5, 1.0]]).double()
    (path,) = find_paths(Surface(bowl), start, end, 5.0, method, Settings(max_steps=20))
    assert path.connected
    assert path.maximum <= 5.0
    assert path.barrier == pytest.approx(0, abs=1e-12)
    assert torch.equal(path.beads[[0, -1]], torch.cat([start, end]))
    if method in {"dss", "linear"}:
        assert path.num_beads == 2
        assert path.length == 1


def test_the_authors_convention_trains_a_middle_bead_even_where_none_is_needed():
    start, end = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 2.0]]).double()
    (path,) = find_paths(Surface(lambda p: bowl(p) + 0.1), start, end, 4.1, "dss", AUTHORS)
    assert path.num_beads == 3
    assert path.length == pytest.approx(1)  # the middle, of value 2.1, is below .95 * 4.1 already
    near = torch.tensor([[2.0, 0.1]]).double()
    (path,) = find_paths(Surface(bowl), start, near, 4.01, "dss", AUTHORS)
    assert path.num_beads == 3
    assert path.length > 1.05  # the middle is above .95 of the level, and is pushed below
    assert float(bowl(path.beads)[1]) < 0.95 * 4.01


def test_dynamic_string_finds_the_valleys_saddle():
    """Connected just above 1, not at this budget just below: the saddle is 1 within 1e-3."""
    settings = Settings(bead=0.999, lr=0.03, max_steps=300, tolerance=1e-4)
    (path,) = find_paths(VALLEY, *ENDS, 1.001, "dss", settings)
    assert path.connected
    assert 1 - 1e-9 <= path.maximum <= 1.001
    assert path.length > 1.05
    (path,) = find_paths(VALLEY, *ENDS, 0.999, "dss", settings)
    assert not path.connected
    assert path.maximum > 0.999


@pytest.mark.parametrize("shift", [(1.0, 0.3), (-0.7, 0.2), (0.5, -0.4)])
def test_dynamic_string_finds_the_saddle_from_ends_without_symmetry(shift):
    """Between the minima the middle of the line is the saddle itself; here no bead begins near it."""
    end = ENDS[1] + torch.tensor([shift]).double()
    settings = Settings(bead=0.999, lr=0.03, max_steps=300, tolerance=1e-4)
    (path,) = find_paths(VALLEY, ENDS[0], end, 1.001, "dss", settings)
    assert path.connected
    assert 1 - 1e-4 <= path.maximum <= 1.001


def test_elastic_band_finds_the_valleys_saddle():
    """The published peer ends at 1.322 here; its weights of the two tangents at extrema are exchanged."""
    settings = Settings(images=60, max_steps=1500, lr=0.03, tolerance=1e-4)
    (path,) = find_paths(VALLEY, *ENDS, 1.001, "neb", settings)
    assert path.maximum == pytest.approx(1, abs=1e-3)
    assert path.connected
    assert path.length == pytest.approx(
        1.2063, abs=1e-2
    )  # of the valley's floor; the band lies a little inside its bends


def test_straight_line_over_the_valley_is_not_connected():
    (path,) = find_paths(VALLEY, *ENDS, 1.001, "linear")
    assert not path.connected
    x = torch.linspace(-X0, X0, 200001).double()
    expected = VALLEY.values(torch.stack([x, x / X0], dim=1)).max()
    assert path.maximum == pytest.approx(float(expected), abs=2e-3)
    top = path.point(path.highest)
    assert float(VALLEY.values(top[None])) == pytest.approx(path.maximum)


def test_bezier_bends_around_a_hill():
    """Two points either side of a narrow hill: the line goes over its top, the curve around."""

    def hill(points):
        return (-8 * (points - points.new_tensor([0.0, 0.05])).square().sum(1)).exp()

    ends = torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    (line,) = find_paths(Surface(hill), *ends, 0.1, "linear")
    (curve,) = find_paths(Surface(hill), *ends, 0.1, "bezier", Settings(lr=0.03, max_steps=500))
    assert line.maximum == pytest.approx(math.exp(-8 * 0.05**2), abs=1e-3)
    assert curve.connected
    assert curve.length > 1.1


def test_many_pairs_at_once_are_each_pair_alone():
    generator = torch.Generator().manual_seed(0)
    starts, ends = torch.randn(2, 4, 2, generator=generator).double()
    # a ring: low within .5 of the circle of radius 1
    surface = Surface(lambda p: (torch.linalg.vector_norm(p, dim=1) - 1).square())
    starts, ends = (p / torch.linalg.vector_norm(p, dim=1, keepdim=True) for p in (starts, ends))
    settings = Settings(lr=0.01)
    together = find_paths(surface, starts, ends, 0.01, "dss", settings)
    for i, path in enumerate(together):
        (alone,) = find_paths(surface, starts[i : i + 1], ends[i : i + 1], 0.01, "dss", settings)
        assert path.connected
        torch.testing.assert_close(path.beads, alone.beads, rtol=0, atol=0)
    assert len({path.num_beads for path in together}) > 1


def test_split_at_the_highest_point():
    """A wall that is passed at x = .8 only: the first bead goes where the line is highest."""
    surface = Surface(lambda p: (-((p[:, 0] - 0.8) ** 2) * 100).exp() * (-(p[:, 1] ** 2)).exp())
    ends = torch.tensor([[0.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    (path,) = find_paths(surface, *ends, 0.05, "dss", Settings(split="highest", max_passes=1, max_steps=1))
    assert path.beads[1, 0] == pytest.approx(0.8, abs=0.05)


def small_task(seed, widths=(1, 4, 1)):
    torch.manual_seed(seed)
    return Regression(FeedForward(widths)).double()


def batch(n=20):
    x = torch.linspace(0, 1, n).double()[:, None]
    return x, 0.5 * x**2 + 0.25 * x + 0.1, torch.arange(n)


def loss_of(task):
    return float(task.loss(batch()).detach())


def test_networks_are_connected_and_left_as_they_were():
    a, b = small_task(0), small_task(1)
    a.train()
    before = flat(a), flat(b)
    level = 1.2 * max(loss_of(a), loss_of(b))
    path = connect(a, b, [batch()], level)
    assert path.connected
    assert torch.equal(path.beads[0], before[0])
    assert torch.equal(path.beads[-1], before[1])
    assert torch.equal(flat(a), before[0])
    assert torch.equal(flat(b), before[1])
    assert a.training
    assert all(p.grad is None and p.requires_grad for p in a.parameters())
    assert path.values[0] == pytest.approx(loss_of(a))
    assert path.values[-1] == pytest.approx(loss_of(b))


def test_level_of_a_held_out_quantity():
    a, b = small_task(0), small_task(1)
    path = connect(a, b, [batch()], 100.0, "linear", level_fn=lambda m, held: m(held[0]).square().mean() + 3)
    assert path.values.min() > 3


def test_convex_model_needs_no_bead():
    """Linear regression: the loss is convex, so the line never exceeds its higher end."""
    a, b = small_task(0, (1, 1)), small_task(1, (1, 1))
    level = max(loss_of(a), loss_of(b))
    path = connect(a, b, [batch()], level * (1 + 1e-12))
    assert path.connected
    assert path.num_beads == 2
    assert path.length == 1


def test_permuted_units_are_connected_over_a_barrier():
    a = small_task(3)
    b = small_task(3)
    order = torch.tensor([2, 0, 3, 1])
    first, second = b.network.layers
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight[:, order])
    x = batch()[0]
    path = connect(a, b, [(x, a(x).detach(), batch()[2])], 10.0, "linear")
    assert path.values[[0, -1]].max() < 1e-12
    assert path.barrier > 0.01


@pytest.mark.parametrize("state", [True, False])
def test_a_search_goes_on_where_it_was_killed(tmp_path, monkeypatch, state):
    """Killed in its third training: with a state file two trainings are kept, and the result is the same."""
    surface = Surface(lambda p: (torch.linalg.vector_norm(p, dim=1) - 1).square())
    ends = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[-1.0, 0.1]]).double()
    settings = Settings(lr=0.01)
    file = tmp_path / "state.pt" if state else None
    (expected,) = find_paths(surface, *ends, 0.001, "dss", settings)
    trained, original = [], Training.advance

    def dies(self):
        trained.append(len(self.owners))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(Training, "advance", dies)
    with pytest.raises(KeyboardInterrupt):
        find_paths(surface, *ends, 0.001, "dss", settings, state=file)
    trained_before = len(trained)
    (path,) = find_paths(surface, *ends, 0.001, "dss", settings, state=file)
    assert torch.equal(path.beads, expected.beads)
    assert path.connected
    assert (trained[trained_before] > 1) == state  # the first split has one segment, the third more
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("drop_steps", [float("inf"), 300])
def test_slow_beads_hold_up_nobody_and_every_bead_takes_the_steps_it_takes_alone(drop_steps):
    """Beads that come at different times, on three batches in turn: each ends where Adam brings it alone."""

    class Slopes(Surface):
        period = 3

        def gradient(self, points, step):
            assert step < 3
            return super().gradient(points * (1 + 0.1 * step), step)

    slopes = Slopes(bowl)
    settings = Settings(lr=0.01, drop_steps=drop_steps, block=10, max_steps=400)
    training = Training(slopes, 0.5, settings)
    starts = torch.tensor([[1.0, 0.2], [9.0, 1.0], [0.1, 0.1], [0.9, 0.9]]).double()
    training.add([0, 1, 2], starts[:3])
    done = training.advance()
    assert [label for label, _, _ in done] == [0, 2]  # bead 2 was below the target before any step
    training.add([3], starts[3:])
    while training.owners:
        done += training.advance()
    assert [label for label, _, _ in done] == [0, 2, 1, 3]
    for label, point, value in done:
        alone, steps = torch.nn.Parameter(starts[label].clone()), 0
        optimizer = torch.optim.Adam([alone], lr=0.01)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [min(drop_steps, 10**9)])
        while float(bowl(alone.detach()[None])) >= 0.5 and steps < 400:
            for _ in range(10):
                alone.grad = slopes.gradient(alone.detach()[None], steps % 3)[1][0]
                optimizer.step()
                schedule.step()
                steps += 1
        torch.testing.assert_close(point, alone.detach())
        assert value == pytest.approx(float(bowl(point[None])))
    assert done[2][2] > 0.5  # the steps were used up


def test_a_state_of_another_search_is_refused(tmp_path, monkeypatch):
    from theodolite.callbacks.geodesics import dynamic_string

    surface = VALLEY
    file = tmp_path / "state.pt"
    monkeypatch.setattr(dynamic_string._State, "forget", lambda self: None)
    settings = Settings(lr=0.01, max_passes=1)
    find_paths(surface, *ENDS, 1.5, "dss", settings, state=file)
    find_paths(surface, *ENDS, 1.5, "dss", settings, state=file)
    with pytest.raises(ValueError, match="holds a search between other networks"):
        find_paths(surface, ENDS[1], ENDS[0], 1.5, "dss", settings, state=file)
    with pytest.raises(ValueError, match="holds a search with other settings"):
        find_paths(surface, *ENDS, 1.5, "dss", Settings(lr=0.01, max_passes=2), state=file)
    with pytest.raises(ValueError, match=r"holds a search at the level 1\.5, not 1\.2"):
        find_paths(surface, *ENDS, 1.2, "dss", settings, state=file)
    other = Surface(lambda points: VALLEY.function(points) + 0.01)
    with pytest.raises(ValueError, match="holds a search on other batches or of another quantity"):
        find_paths(other, *ENDS, 1.5, "dss", settings, state=file)
    for content, message in ((torch.ones(2), "holds no search"), (None, "state.pt cannot be read")):
        torch.save(content, file) if content is not None else file.write_bytes(b"PK")
        with pytest.raises(ValueError, match=message):
            find_paths(surface, *ENDS, 1.5, "dss", settings, state=file)


@pytest.mark.parametrize("settings", [Settings(lr=0.01), AUTHORS])
def test_levels_below_zero_are_as_good_as_others(settings):
    """A log-likelihood: the same valley 3 lower; beads lie below the level, and the path is found as high up."""
    shifted = Surface(lambda points: VALLEY.function(points) - 3)
    (path,) = find_paths(shifted, *ENDS, -1.9, "dss", settings)
    assert path.connected
    assert path.num_beads > 2
    assert -2 - 1e-3 <= path.maximum <= settings.accepted(-1.9)
    assert float(shifted.values(path.beads).max()) < settings.target(-1.9) < -1.9


def test_path_saves_and_loads(tmp_path):
    (path,) = find_paths(VALLEY, *ENDS, 1.5, "linear")
    path.save(tmp_path / "paths" / "path.pt")
    loaded = Path.load(tmp_path / "paths" / "path.pt")
    assert torch.equal(loaded.beads, path.beads)
    assert torch.equal(loaded.values, path.values)
    assert loaded.summary() == path.summary()
    torch.save({"other": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no saved path"):
        Path.load(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="no path at"):
        Path.load(tmp_path / "absent.pt")


def test_length_counts_what_it_is_told_to():
    """A right angle in two coordinates: 7 / 5; in the first alone, the straight 3."""
    beads = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    rest = {"position": torch.tensor([0.0, 1.0]), "values": torch.zeros(2), "level": 1.0, "accepted": 1.0,
            "connected": True, "method": "dss"}  # fmt: skip
    path = Path(beads, **rest)
    assert path.length == pytest.approx(7 / 5)
    assert repr(path) == ("<Path by dss, level 1: connected; length 1.400, 3 beads, highest 0 at 0.00 of the way>")
    assert Path(beads, **rest, counted=torch.tensor([True, False])).length == pytest.approx(1)
    torch.testing.assert_close(path.point(0.0), beads[0])
    torch.testing.assert_close(path.point(5 / 7), torch.tensor([3.0, 2.0]))
    torch.testing.assert_close(path.point(1.0), beads[2])
    assert Path(beads[[0, 0]], **rest).length == 1
    with pytest.raises(ValueError, match=r"Path.point\(1.5\)"):
        path.point(1.5)


def test_mistakes_are_one_clear_line():
    a, b = small_task(0), small_task(1)
    with pytest.raises(ValueError, match=r"an end has the value .* give a higher level"):
        connect(a, b, [batch()], 1e-6)
    with pytest.raises(ValueError, match=r"connect\(level=0.001\): an end has the value"):
        connect(a, b, [batch()], 1e-3, settings=AUTHORS)
    with pytest.raises(ValueError, match=r"connect\(level=nan\): must be a finite number"):
        connect(a, b, [batch()], math.nan)
    with pytest.raises(ValueError, match=r"differ in network\.layers\.0\.weight"):
        connect(a, small_task(0, (1, 5, 1)), [batch()], 1.0)
    with pytest.raises(ValueError, match=r"differ in network\.layers\.2\.weight: .*absent"):
        connect(a, small_task(0, (1, 4, 1, 1)), [batch()], 1.0)
    with pytest.raises(ValueError, match="give at least one batch"):
        connect(a, b, [], 1.0)
    with pytest.raises(ValueError, match=r"count='weight': .* choose from all, weights"):
        connect(a, b, [batch()], 1.0, count="weight")
    a.register_buffer("scale", torch.ones(1))
    b.register_buffer("scale", torch.zeros(1))
    with pytest.raises(ValueError, match="differ in the buffer scale, which no path moves"):
        connect(a, b, [batch()], 1.0)
    del a.scale, b.scale
    with pytest.raises(ValueError, match=r"method='string'.*dss, linear, bezier, neb"):
        connect(a, b, [batch()], 1.0, "string")
    with pytest.raises(ValueError, match=r"Linear has no loss\(batch\); give loss_fn"):
        connect(nn.Linear(1, 1), nn.Linear(1, 1), [batch()], 1.0)
    with torch.no_grad():
        b.network.layers[0].weight.fill_(math.nan)
    with pytest.raises(ValueError, match="the value of an end is not a number; check its weights"):
        connect(a, b, [batch()], 1.0)
    with pytest.raises(ValueError, match=r"Settings\(bead=1.5\): must be in \(0, 1\]"):
        Settings(bead=1.5)


def test_bezier_takes_a_gradient_that_shares_its_memory():
    surface = Surface(lambda points: points.sum(1))  # autograd gives one number, expanded
    path = bezier(surface, torch.zeros(3), torch.ones(3), Settings(max_steps=1, images=3, lr=0.01))
    torch.testing.assert_close(path[1], torch.full((3,), 0.5 - 0.01 / 2))  # half of Adam's first step, lr
