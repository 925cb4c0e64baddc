"""Directions against closed forms, and the rule of a model against the model itself."""

import math

import mpmath
import pytest
import torch
from torch import nn

from theodolite.modules.margins import angle_degrees, linear_rule, output_margin, signed_rows


def test_angles_of_the_plane_and_of_tiny_ones():
    east = torch.tensor([3.0, 0.0])
    for degrees in (0.0, 30.0, 90.0, 135.0, 180.0):
        other = 5 * torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))], dtype=torch.double)
        assert float(angle_degrees(east, other)) == pytest.approx(degrees, abs=1e-12)
    tiny = torch.tensor([1.0, 1e-12], dtype=torch.double)
    assert float(angle_degrees(east, tiny)) == pytest.approx(float(mpmath.degrees(mpmath.atan(1e-12))), rel=1e-12)
    with pytest.raises(ValueError, match="the weights are all zero, so they have no direction"):
        angle_degrees(torch.zeros(2), east)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_rule_of_a_deep_linear_network_is_the_product_of_its_layers(outputs):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5, bias=False), nn.Linear(5, 3, bias=False), nn.Linear(3, outputs, bias=False)
    )
    x, y = torch.randn(9, 2, 3), torch.randint(max(outputs, 2), (9,))
    rule = linear_rule(network, x)
    expected = network[3].weight @ network[2].weight @ network[1].weight
    torch.testing.assert_close(rule, expected.detach())
    rows = signed_rows(x, y, outputs)
    margins = (rows @ rule.flatten()).view(9, -1).amin(1)  # the best other class is the least
    torch.testing.assert_close(margins, output_margin(network(x), y).detach())


def test_intercepts_and_nonlinearities_are_said():
    torch.manual_seed(0)
    for network in (
        nn.Linear(4, 2),
        nn.Sequential(nn.Linear(4, 9, bias=False), nn.ReLU(), nn.Linear(9, 2, bias=False)),
    ):
        with pytest.raises(ValueError, match="not linear in its input without intercept"):
            linear_rule(network, torch.randn(8, 4))
