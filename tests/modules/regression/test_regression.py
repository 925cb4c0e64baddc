"""The regression task and its networks: errors by hand, parameters as published."""

import math

import pytest
import torch
from torch import nn

from theodolite.modules.regression import FeedForward, Regression


def test_the_published_networks_have_24_weights_and_9_biases():
    quadratic = FeedForward([1, 4, 4, 1], output="sigmoid", bias=False, initial="uniform")
    cubic = FeedForward([1, 4, 4, 1], output="linear", bias=True, initial="uniform")
    assert sum(p.numel() for p in quadratic.parameters()) == 24
    assert sum(p.numel() for p in cubic.parameters()) == 33


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "square", "linear"])
def test_forward_is_the_formula(activation):
    torch.manual_seed(0)
    network = FeedForward([2, 3, 1], activation=activation, output="sigmoid")
    x = torch.randn(5, 2)
    function = {"sigmoid": torch.sigmoid, "relu": torch.relu, "square": lambda z: z**2, "linear": lambda z: z}
    first, second = network.layers
    hidden = function[activation](x @ first.weight.T + first.bias)
    torch.testing.assert_close(network(x), torch.sigmoid(hidden @ second.weight.T + second.bias))


def test_initial_weights_are_uniform_and_biases_normal():
    """Kolmogorov-Smirnov distance of 10,000 draws: below 1.95 / 100 with probability .999."""
    torch.manual_seed(0)
    layer = FeedForward([100, 100], initial="uniform").layers[0]
    biases = torch.cat([FeedForward([1, 10000], initial="uniform").layers[0].bias])
    for values, distribution in (
        (layer.weight, lambda v: (v + 1) / 2),
        (biases, lambda v: (1 + torch.erf(v / math.sqrt(2))) / 2),
    ):
        ordered = values.detach().flatten().sort().values
        distance = (distribution(ordered) - torch.arange(10000) / 10000).abs().max()
        assert distance < 0.0195


def test_reset_draws_new_parameters_from_the_seed():
    network = FeedForward(initial="uniform")
    torch.manual_seed(1)
    network.reset_parameters()
    first = [p.clone() for p in network.parameters()]
    network.reset_parameters()
    assert not torch.equal(first[0], network.layers[0].weight)
    torch.manual_seed(1)
    network.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(first, network.parameters()))


@pytest.mark.parametrize(("error", "expected"), [("absolute", (1 + 4) / 2), ("squared", (1 + 10) / 2)])
def test_errors_by_hand(error, expected):
    """Differences (1, 0) and (1, -3): sums over outputs 1 and 4, or 1 and 10."""
    task = Regression(nn.Identity(), error)
    x = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    y = torch.tensor([[0.0, 2.0], [0.0, 3.0]])
    assert task.loss((x, y, torch.arange(2))) == pytest.approx(expected)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"FeedForward\(widths=\[1\]\)"):
        FeedForward([1])
    with pytest.raises(ValueError, match=r"activation='tanh'.*sigmoid, relu"):
        FeedForward(activation="tanh")
    with pytest.raises(ValueError, match=r"Regression\(error='l1'\): choose from absolute, squared"):
        Regression(nn.Identity(), "l1")
