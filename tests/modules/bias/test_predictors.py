"""Predictors: homogeneous of the stated degree, runs apart, and equal to layers built from torch's own parts."""

import pytest
import torch
from torch.nn import functional as F

from theodolite.modules.bias import (
    CircularConvolution,
    Dense,
    DiagonalProduct,
    FullyConnected,
    LinearPredictor,
    MatrixFactorization,
    PowerDifference,
    ReLUConvNetwork,
    ReLUNetwork,
)

MAKE = {
    "dense": lambda runs: Dense(9, runs, init_std=1.0),
    "matrix": lambda runs: Dense(9, runs, init_std=1.0, columns=3),
    "power2": lambda runs: PowerDifference(9, runs, depth=2, alpha=0.7),
    "power3": lambda runs: PowerDifference(9, runs, depth=3, alpha=0.7),
    "diagonal": lambda runs: DiagonalProduct(9, runs, depth=3),
    "fully_connected": lambda runs: FullyConnected(9, runs, depth=3, width=4),
    "convolution": lambda runs: CircularConvolution(9, runs, depth=3, init_std=1.0),
    "symmetric": lambda runs: MatrixFactorization(3, runs, rank=2, random_start=True),
    "factored": lambda runs: MatrixFactorization(3, runs, symmetric=False, random_start=True),
    "relu": lambda runs: ReLUNetwork(9, runs, depth=3, width=5),
    "relu_conv": lambda runs: ReLUConvNetwork(9, runs, depth=3, init_std=0.5),
}


def shaken(name, runs=3):
    torch.manual_seed(0)
    predictor = MAKE[name](runs)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return predictor


@pytest.mark.parametrize("name", MAKE)
def test_output_is_homogeneous_of_the_stated_degree(name):
    predictor, x = shaken(name), torch.randn(3, 6, 9, dtype=torch.float64)
    before = predictor(x).detach()
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter *= 1.7
    torch.testing.assert_close(predictor(x).detach(), 1.7**predictor.degree * before)
    assert before.shape == (3, 6)
    assert before.dtype == torch.float64


@pytest.mark.parametrize("name", MAKE)
def test_gradient_of_one_run_is_nothing_to_the_others(name):
    predictor, x = shaken(name), torch.randn(3, 6, 9, dtype=torch.float64)
    predictor(x)[1].sum().backward()
    for parameter in predictor.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad[[0, 2]].abs().max()) == 0
        assert float(parameter.grad[1].abs().max()) > 0


@pytest.mark.parametrize("name", [name for name in MAKE if "relu" not in name])
def test_linear_predictors_are_their_rule(name):
    predictor, x = shaken(name), torch.randn(3, 6, 9, dtype=torch.float64)
    assert isinstance(predictor, LinearPredictor)
    torch.testing.assert_close(predictor(x), torch.stack([x[r] @ predictor.beta()[r] for r in range(3)]))


def test_convolution_is_torchs_circular_convolution():
    predictor = shaken("convolution")
    for run, (first, second, third) in enumerate(predictor.weight.detach()):

        def convolve(a, b):
            padded = F.pad(a[None, None], (8, 0), mode="circular")
            return F.conv1d(padded, b.flip(0)[None, None])[0, 0]

        torch.testing.assert_close(convolve(convolve(first, second), third) / 9, predictor.beta()[run].detach())


def test_relu_network_is_torchs_layers_with_one_bias():
    predictor, x = shaken("relu"), torch.randn(3, 6, 9, dtype=torch.float64)
    for run in range(3):
        first, second, last = (layer.detach()[run] for layer in predictor.layers)
        hidden = F.linear(x[run], first[:9].T, first[9]).relu()
        torch.testing.assert_close(predictor(x)[run].detach(), (F.linear(hidden, second.T).relu() @ last).squeeze(-1))


def test_relu_convolution_is_torchs_layers_with_one_bias():
    predictor, x = shaken("relu_conv"), torch.randn(3, 6, 9, dtype=torch.float64)
    for run in range(3):
        hidden = x[run].unsqueeze(1)
        for number, layer in enumerate(predictor.filters):
            bias = predictor.bias[run].detach() if number == 0 else None
            hidden = F.conv1d(F.pad(hidden, (1, 1), mode="circular"), layer[run].detach(), bias).relu()
        expected = (hidden.flatten(1) @ predictor.last[run].detach()).squeeze(-1)
        torch.testing.assert_close(predictor(x)[run].detach(), expected)


def test_scales_are_dealt_to_consecutive_runs():
    predictor = PowerDifference(2, runs=4, alpha=[3.0, 0.1])
    assert predictor.weight[:, 0, 0].tolist() == [3.0, 3.0, 0.1, 0.1]
    assert not predictor.beta().any()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Dense(0), "dimension=0.*positive"),
        (lambda: Dense(8, columns=3), "must divide the dimension 8"),
        (lambda: Dense(8, runs=0), "runs=0"),
        (lambda: PowerDifference(8, runs=4, alpha=[1.0, 0.1, 0.2]), "divides the 4 runs"),
        (lambda: PowerDifference(8, alpha=0.0), "positive value"),
        (lambda: DiagonalProduct(8, depth=3, init_std=None), "nothing moves"),
        (lambda: DiagonalProduct(8, init_std=None, alpha=0.0), "alpha=0.0"),
        (lambda: MatrixFactorization(3, scale=0.0), "scale=0.0"),
        (lambda: DiagonalProduct(8, init_std=0.0), r"DiagonalProduct\(init_std=0.0\): must be positive"),
        (lambda: FullyConnected(8, init_std=0.0), r"FullyConnected\(init_std=0.0\): must be positive"),
        (lambda: CircularConvolution(8, init_std=0.0), r"CircularConvolution\(init_std=0.0\): must be positive"),
        (lambda: ReLUNetwork(8, init_std=0.0), r"ReLUNetwork\(init_std=0.0\): must be positive"),
        (lambda: ReLUConvNetwork(8, init_std=0.0), r"ReLUConvNetwork\(init_std=0.0\): must be positive"),
        (lambda: ReLUConvNetwork(8, depth=1), "depth=1.*at least 2"),
        (lambda: ReLUConvNetwork(8, kernel_size=9), "at most the dimension 8"),
    ],
)
def test_wrong_sizes_are_refused_at_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
