"""The energy gap of two-layer networks: where theorems say what it is, and the fit of a power law."""

import pytest
import torch

from theodolite.callbacks.geodesics import Settings
from theodolite.callbacks.geodesics.examples import two_unit_relu
from theodolite.callbacks.geodesics.width import (
    constructed,
    energy_gap,
    power_law,
    random_problem,
    trained_networks,
    two_layer_loss,
)

SETTINGS = Settings(lr=0.01, max_steps=60, images=9, grid=9, tolerance=0.01)


def problem(activation="relu", inputs=2, seed=0):
    return random_problem(inputs, 30, activation, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("activation", "penalty"), [("relu", 0.1), ("square", 0.0)])
def test_loss_is_that_of_a_network_written_out(activation, penalty):
    """Input weights longer than 1 count as unit vectors under the penalty; shorter ones as they are."""
    x, y = problem(activation)
    generator = torch.Generator().manual_seed(1)
    w = torch.tensor([[3.0, 4.0], [0.1, 0.2], [0.0, 0.0]]).double()
    v = torch.randn(3, generator=generator).double()
    value = two_layer_loss(x, y, 3, activation, penalty).values(torch.cat([w.flatten(), v])[None])[0]
    limited = torch.tensor([[0.6, 0.8], [0.1, 0.2], [0.0, 0.0]]).double() if penalty else w
    hidden = x @ limited.T
    output = (hidden.relu() if activation == "relu" else hidden**2) @ v
    torch.testing.assert_close(value, (output - y).square().mean() + penalty * v.abs().sum())
    assert y.var() == pytest.approx(1)


def test_wide_quadratic_networks_have_no_gap_and_a_single_unit_has_one():
    """Features of 3 dimensions: 6 units suffice. One unit that changes its sign gives 0 on the way."""
    x, y = problem("square")
    generator = torch.Generator().manual_seed(2)
    surface = two_layer_loss(x, y, 6, "square", 0.0)
    first, second = trained_networks(surface, 2, 6, 2, 50, generator)
    corners = constructed(x, 6, "square", first, second)
    assert corners is not None
    torch.testing.assert_close(corners[[0, -1]], torch.stack([first, second]))
    assert energy_gap(surface, first, second, SETTINGS, corners) <= 1e-12
    assert energy_gap(surface, first, second, SETTINGS) >= 0
    assert constructed(x, 5, "square", first[:15], second[:15]) is None
    one = two_layer_loss(x, y, 1, "square", 0.0)
    ends = torch.tensor([[1.0, 0.5, 0.2], [1.0, 0.5, -0.2]]).double()
    higher = float(one.values(ends).max())
    assert energy_gap(one, *ends, SETTINGS) >= max(float(y.square().mean()) - higher, 0)


def test_gap_of_the_two_unit_counterexample_is_not_below_its_proof():
    surface, first, second = two_unit_relu(0.05, 100, 0)
    ends = surface.values(torch.cat([first, second]))
    assert energy_gap(surface, first[0], second[0], SETTINGS) >= 0.5 - float(ends.max())


def test_training_lowers_the_loss():
    x, y = problem()
    surface = two_layer_loss(x, y, 8, "relu", 1e-3)
    before, after = (trained_networks(surface, 2, 8, 3, steps, torch.Generator().manual_seed(0)) for steps in (1, 300))
    assert bool((surface.values(after) < 0.5 * surface.values(before)).all())


def test_power_law_is_recovered_with_its_error():
    """Exact points give the exponent; with noise of known size the error is that of weighted least squares."""
    widths = torch.tensor([2, 4, 8, 16, 32])
    exact = 3 * widths.double() ** -0.7
    slope, error = power_law(widths, exact, 0.1 * exact)
    assert slope == pytest.approx(-0.7)
    x = widths.double().log()
    assert error == pytest.approx(0.1 / float((x - x.mean()).square().sum()) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    slopes = [
        power_law(widths, exact * (0.1 * torch.randn(5, generator=generator).double()).exp(), 0.1 * exact)[0]
        for _ in range(400)
    ]
    spread = float(torch.tensor(slopes).std())
    assert spread == pytest.approx(error, rel=0.15)  # 4 standard errors of a deviation from 400 samples
    scattered = exact * torch.tensor([2.0, 0.5, 2.0, 0.5, 2.0])
    assert power_law(widths, scattered, 0.1 * scattered)[1] > 3 * error
