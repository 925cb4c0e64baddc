"""Explicit paths: the loss never exceeds the higher end, and where a theorem says so there is no path."""

from itertools import pairwise

import pytest
import torch

from theodolite.callbacks.geodesics import Settings, find_paths
from theodolite.callbacks.geodesics.examples import two_unit_relu
from theodolite.callbacks.geodesics.linear_networks import linear_path
from theodolite.callbacks.geodesics.two_layer import permutation_path, wide_path


def layers(widths, generator, rank=None):
    weights = [torch.randn(b, a, generator=generator).double() / a**0.5 for a, b in pairwise(widths)]
    if rank is not None:  # a middle matrix of low rank: every suffix through it is deficient
        u, s, v = torch.linalg.svd(weights[-1], full_matrices=False)
        weights[-1] = u[:, :rank] * s[:rank] @ v[:rank]
    return weights


def product(weights):
    result = weights[0]
    for weight in weights[1:]:
        result = weight @ result
    return result


def losses(path, x, y):
    """Mean squared error of each network of a path, (T,)."""
    return (product(path) @ x - y).square().sum(1).mean(1)


@pytest.mark.parametrize("widths", [(5, 4, 2), (3, 6, 6, 8), (6, 5, 4, 5, 3), (2, 3, 2), (1, 2, 1)])
@pytest.mark.parametrize("rank", [None, 1, 0])
@pytest.mark.parametrize("seed", range(3))
def test_linear_path_never_rises(widths, rank, seed):
    """Any depth, wide or tall, regular or deficient ends: excess over the higher end at most 1e-12."""
    generator = torch.Generator().manual_seed(seed)
    first, second = layers(widths, generator, rank), layers(widths, generator)
    x = torch.randn(widths[0], 40, generator=generator).double()
    y = product(layers(widths, generator)) @ x
    path = linear_path(first, second)
    values = losses(path, x, y)
    assert values.max() <= max(values[0], values[-1]) + 1e-12
    for weight, a, b in zip(path, first, second):
        torch.testing.assert_close(weight[0], a, rtol=0, atol=1e-12)
        torch.testing.assert_close(weight[-1], b, rtol=0, atol=1e-12)


def test_linear_path_is_continuous_where_the_straight_line_is_high():
    """Ten times the points, a tenth of the largest step; the straight line rises far above."""
    generator = torch.Generator().manual_seed(0)
    first = layers((3, 6, 6, 4), generator)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator).double()).Q
    second = [turn @ first[0], first[1] @ turn.T, first[2]]  # the same function
    x = torch.randn(3, 40, generator=generator).double()
    y = product(first) @ x
    steps = [
        max(float(w.diff(dim=0).flatten(1).norm(dim=1).max()) for w in linear_path(first, second, points))
        for points in (201, 2001)
    ]
    assert steps[1] < 0.15 * steps[0]
    assert losses(linear_path(first, second), x, y).max() < 1e-24
    t = torch.linspace(0, 1, 11).double()[:, None, None]
    assert losses([torch.lerp(a, b, t) for a, b in zip(first, second)], x, y).max() > 0.01


def test_straight_moves_of_deficient_ends_are_constant_between_their_corners():
    generator = torch.Generator().manual_seed(1)
    first, second = layers((5, 4, 4, 2), generator, rank=1), layers((5, 4, 4, 2), generator)
    path = linear_path(first, second, points=2)
    moves = len(path[0]) - 2
    assert moves >= 2
    halves = [(weight[:moves] + weight[1 : moves + 1]) / 2 for weight in path]
    expected = product(first).expand(moves, 2, 5)
    torch.testing.assert_close(product(halves), expected, rtol=0, atol=1e-12)


def descended(weights, x, y, kappa, steps=300):
    """Take gradient steps of .01 on the squared error plus ridge, as the fact that is tested has its ends."""
    weights = [weight.clone().requires_grad_() for weight in weights]
    for _ in range(steps):
        penalty = kappa * sum(weight.square().sum() for weight in weights)
        loss = (product(weights) @ x - y).square().sum(0).mean() + penalty
        with torch.no_grad():
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
                weight -= 0.01 * gradient
    return [weight.detach() for weight in weights]


@pytest.mark.parametrize("widths", [(5, 4, 3), (3, 4, 5), (4, 9, 2), (1, 2, 1)])
@pytest.mark.parametrize("rank", [None, 1, 0])
@pytest.mark.parametrize("kappa", [0.0, 0.1, 5.0])
def test_ridge_path_never_rises_with_any_share_of_the_squared_weights(widths, rank, kappa):
    """Also with ends of deficient rank, between which a line of the products passes; ends hit exactly."""
    generator = torch.Generator().manual_seed(sum(widths))
    first, second = layers(widths, generator, rank), layers(widths, generator)
    x = torch.randn(widths[0], 40, generator=generator).double()
    y = product(layers(widths, generator)) @ x
    path = linear_path(first, second, points=31, ridge=True)
    values = losses(path, x, y) + kappa * sum(weight.square().sum((1, 2)) for weight in path)
    assert values.max() <= max(values[0], values[-1]) * (1 + 1e-12)
    for weight, a, b in zip(path, first, second):
        assert torch.equal(weight[0], a)
        assert torch.equal(weight[-1], b)


@pytest.mark.parametrize("seed", range(4))
def test_ridge_path_is_continuous_and_stays_below_a_line_that_rises(seed):
    """Networks 5-4-3, ridge .1, trained: excess at most 1e-12 where the straight line rises above the higher end."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 40, generator=generator).double()
    y = product(layers((5, 4, 3), generator)) @ x
    first, second = (descended(layers((5, 4, 3), generator), x, y, 0.1) for _ in range(2))

    def ridge(path):
        return losses(path, x, y) + 0.1 * sum(weight.square().sum((1, 2)) for weight in path)

    path = linear_path(first, second, ridge=True)
    values = ridge(path)
    assert values.max() <= max(values[0], values[-1]) + 1e-12
    t = torch.linspace(0, 1, 101).double()[:, None, None]
    line = ridge([torch.lerp(a, b, t) for a, b in zip(first, second)])
    assert line.max() > 1.05 * max(line[0], line[-1])
    steps = [
        max(float(w.diff(dim=0)[2:-2].flatten(1).norm(dim=1).max()) for w in linear_path(first, second, n, ridge=True))
        for n in (101, 1001)
    ]
    assert steps[1] < 0.15 * steps[0]  # ten times the points: the curved parts have no jump, nor their joints


def test_three_layers_with_ridge_have_a_poor_minimum_and_no_path():
    """Small networks have a loss above that of the origin, which others are far below."""
    generator = torch.Generator().manual_seed(0)
    weights = layers((3, 5, 5, 2), generator)
    x = torch.randn(3, 40, generator=generator).double()
    y = product(weights) @ x
    origin = y.square().sum(0).mean()
    kappa = 0.01
    for scale in (1e-3, 1e-2):
        small = [scale * weight for weight in layers((3, 5, 5, 2), generator)]
        value = (product(small) @ x - y).square().sum(0).mean() + kappa * sum(w.square().sum() for w in small)
        assert value > origin
    assert kappa * sum(w.square().sum() for w in weights) < origin
    with pytest.raises(ValueError, match=r"linear_path\(ridge=True\): 3 layers; only networks of two"):
        linear_path(weights, weights, ridge=True)


def test_linear_path_is_refused_where_there_may_be_none():
    one = [torch.ones(1, 1).double()] * 2
    with pytest.raises(ValueError, match="a hidden layer has 1 units; each must have more than 1"):
        linear_path(one, [-weight for weight in one])
    with pytest.raises(ValueError, match="must be the same"):
        linear_path(one, one[:1])


ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid, "square": torch.square, "sine": torch.sin}


def two_layer(units, generator, inputs=3, outputs=2):
    return tuple(torch.randn(units, size, generator=generator).double() for size in (inputs, outputs))


def outputs(x, activation, networks):
    w, v = (torch.stack(parts) for parts in zip(*networks))
    return activation(torch.einsum("ld,nud->nlu", x, w)) @ v


def between(corners, places=11):
    """Give points on all legs of a path."""
    t = torch.linspace(0, 1, places).double().tolist()
    return [(torch.lerp(a[0], b[0], s), torch.lerp(a[1], b[1], s)) for a, b in pairwise(corners) for s in t]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_wide_path_never_rises_on_any_of_its_legs(name, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(10, 3, generator=generator).double()
    y = torch.randn(10, 2, generator=generator).double()
    first, second = two_layer(20, generator), two_layer(20, generator)
    path = wide_path(x, ACTIVATIONS[name], first, second)
    assert len(path) == 8
    values = (outputs(x, ACTIVATIONS[name], between(path)) - y).square().sum(2).mean(1)
    assert values.max() <= max(values[0], values[-1]) * (1 + 1e-12)
    assert all(torch.equal(a, b) for a, b in zip([*path[0], *path[-1]], [*first, *second]))


def test_wide_path_needs_width():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 12, generator=generator).double()
    with pytest.raises(ValueError, match="have 10 and 10 dimensions, together more than the 19 units"):
        wide_path(x, torch.sigmoid, two_layer(19, generator, 12), two_layer(19, generator, 12))


@pytest.mark.parametrize("seed", range(5))
def test_permutation_through_a_spare_unit_is_constant(seed):
    generator = torch.Generator().manual_seed(seed)
    w, v = two_layer(7, generator)
    v[3] = 0
    others = torch.tensor([0, 1, 2, 4, 5, 6])
    order = torch.arange(7)
    order[others] = others[torch.randperm(6, generator=generator)]
    path = permutation_path((w, v), order.tolist(), spare=3)
    x = torch.randn(30, 3, generator=generator).double()
    values = outputs(x, torch.relu, between(path))
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=0, atol=1e-12)
    torch.testing.assert_close(path[-1][0][others], w[order][others])
    torch.testing.assert_close(path[-1][1], v[order])


def test_permutation_needs_a_spare_unit():
    network = two_layer(3, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="without a spare unit there is a barrier"):
        permutation_path(network, [1, 0, 2], spare=2)
    with pytest.raises(ValueError, match="give a permutation of 3 units that keeps unit 2"):
        permutation_path(network, [2, 0, 1], spare=2)


@pytest.mark.parametrize(("spread", "split"), [(0.0, "middle"), (0.05, "middle"), (0.05, "highest")])
def test_no_search_joins_the_two_unit_networks(spread, split):
    """The ends have a loss of about 1.5 spread^2, the straight line passes the zero output, every path rises to 1/2."""
    surface, first, second = two_unit_relu(spread, 400, seed=0)
    assert float(surface.values(first)) == pytest.approx(1.5 * spread**2, rel=0.3, abs=1e-12)
    (line,) = find_paths(surface, first, second, 0.49, "linear")
    assert line.maximum == pytest.approx(1, abs=0.02)
    settings = Settings(split=split, lr=0.01, max_steps=500, max_passes=4)
    (path,) = find_paths(surface, first, second, 0.49, "dss", settings)
    assert not path.connected
    assert path.maximum >= 0.5


def test_a_third_unit_joins_them_at_constant_loss():
    surface, first, second = two_unit_relu(0.05, 400, seed=0, units=3)
    network = (first[0, :6].view(3, 2), first[0, 6:, None])
    path = permutation_path(network, [1, 0, 2], spare=2)
    points = torch.stack([torch.cat([w.flatten(), v.flatten()]) for w, v in between(path)])
    values = surface.values(points)
    torch.testing.assert_close(values, values[:1].expand_as(values), rtol=0, atol=1e-14)
    torch.testing.assert_close(points[-1, [0, 1, 2, 3, 6, 7, 8]], second[0, [0, 1, 2, 3, 6, 7, 8]])
