"""Normalised margins: invariances, the sandwich, and losses that no float holds."""

import math

import mpmath
import pytest
import torch
from torch import nn

from theodolite.modules.margins import (
    log_product_norm,
    margin_growth,
    normalized_margin,
    output_margin,
    parameter_norm,
    sandwich_violation,
    smoothed_margin,
)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)
    )


def test_normalized_margin_does_not_change_with_the_scale_of_a_homogeneous_network():
    model = network().double()
    x, y = torch.randn(20, 5).double(), torch.randint(3, (20,))
    values = []
    for scale in (1.0, 10.0, 0.01):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
            values.append(normalized_margin(output_margin(model(x), y), parameter_norm(model.parameters()), 3))
    torch.testing.assert_close(values[1], values[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(values[2], values[0], rtol=1e-12, atol=0)


def test_product_norm_does_not_change_when_a_factor_moves_between_layers():
    weights = [torch.randn(4, 3).double(), torch.randn(2, 4).double()]
    moved = [weights[0] * 8, weights[1] / 8]
    assert float(log_product_norm(moved)) == pytest.approx(float(log_product_norm(weights)), abs=1e-12)
    expected = math.log(float(weights[0].norm() * weights[1].norm()))
    assert float(log_product_norm(weights)) == pytest.approx(expected, abs=1e-12)


def test_parameter_norm_does_not_overflow_and_refuses_nothing():
    assert float(parameter_norm([torch.full((4,), 1e30)])) == pytest.approx(2e30)
    with pytest.raises(ValueError, match="at least one parameter"):
        parameter_norm([])


@pytest.mark.parametrize("largest", [1.0, 40.0, 2000.0])
def test_smoothed_margin_is_between_the_smallest_and_that_less_log_n(largest):
    margins = largest * (1 + torch.rand(30, generator=torch.Generator().manual_seed(0)).double())
    norm, degree = 1.7, 3
    smoothed = float(smoothed_margin(torch.logsumexp(-margins, 0), norm, degree, "exponential"))
    smallest = float(normalized_margin(margins.min(), norm, degree))
    slack = 1e-12 * smallest
    assert smallest - math.log(30) / norm**degree - slack <= smoothed <= smallest + slack


@pytest.mark.parametrize("log_loss", ["2.0", "0.1", "-3.0", "-18.4", "-18.5", "-40", "-800", "-2000"])
def test_logistic_smoothed_margin_agrees_with_high_precision(log_loss):
    with mpmath.workdps(60 + int(abs(float(log_loss)))):
        expected = -mpmath.log(mpmath.expm1(mpmath.exp(mpmath.mpf(log_loss))))
    assert float(smoothed_margin(float(log_loss), 1.0, 2)) == pytest.approx(float(expected), rel=1e-13)


def test_sandwich_holds_for_every_margin_and_is_tight_for_equal_ones():
    margins, norm = torch.randn(50, 7, dtype=torch.float64) * 100, torch.rand(50, dtype=torch.float64) + 0.5
    assert float(sandwich_violation(margins, norm, 3).max()) <= 1e-12
    equal, two = torch.full((1, 7), 5.0, dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    smooth = smoothed_margin(torch.logsumexp(-equal, 1), two, 3, "exponential")
    torch.testing.assert_close(5.0 / 8 - smooth, torch.tensor(7.0).double().log() / two**3)


def test_of_one_sample_the_logistic_smoothed_margin_is_its_margin():
    margin = torch.tensor([0.3, 5.0, 50.0], dtype=torch.float64)
    log_loss = nn.functional.softplus(-margin).log()
    torch.testing.assert_close(smoothed_margin(log_loss, 2.0, 2), margin / 4, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("smoothed", "log_losses", "expected"),
    [
        ([-3.0, -1.0], [2.0, 1.0], (0.0, 0.0)),  # never below log 2
        ([-1.0, 2.0, 3.0, 5.0], [1.0, -1.0, -2.0, -3.0], (3.0, 0.0)),
        ([2.0, 4.0, 3.0, 5.0], [-1.0, -2.0, -3.0, -4.0], (3.0, 0.25)),  # 4 to 3, which lowered the loss
        ([2.0, 4.0, 3.0, 5.0], [-1.0, -2.0, -1.5, -4.0], (3.0, 0.0)),  # 4 to 3, a step that was taken back
        ([2.0, 4.0, math.nan, 3.0], [-1.0, -2.0, math.nan, -3.0], (1.0, 0.25)),
        ([], [], (0.0, 0.0)),
    ],
)
def test_growth_counts_from_the_first_positive_margin_and_sees_falls(smoothed, log_losses, expected):
    assert margin_growth(smoothed, log_losses) == expected
