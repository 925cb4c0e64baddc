"""Spectral complexity against the operator's own matrix, written out column by column."""

import math

import pytest
import torch
from torch import nn

from theodolite.modules.margins import (
    row_norm_sum,
    spectral_complexity,
    spectral_norm,
    spectrally_normalized_margin,
)

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "valid": (lambda: nn.Conv2d(2, 3, 3), (2, 5, 6)),
    "padded, strided": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 6)),
    "same": (lambda: nn.Conv2d(2, 2, 3, padding="same"), (2, 5, 5)),
    "circular": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (1, 4, 4)),
    "grouped, dilated": (lambda: nn.Conv2d(4, 4, 2, groups=2, dilation=2), (4, 5, 5)),
    "one axis": (lambda: nn.Conv1d(2, 3, 3, padding=1), (2, 9)),
}


def matrix(layer, shape, weight=None):
    """Give the layer's operator as a matrix (outputs, inputs): the images of the basis, less that of zero."""
    layer = layer.double()
    if weight is not None:
        with torch.no_grad():
            layer.weight.copy_(weight)
    basis = torch.eye(math.prod(shape)).double().reshape(-1, *shape)
    with torch.no_grad():
        return (layer(basis) - layer(torch.zeros_like(basis))).flatten(1).T


@pytest.mark.parametrize("name", LAYERS)
def test_norms_are_those_of_the_operators_matrix(name):
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    layer = build()
    found, rows = spectral_norm(layer, torch.Size(shape)), row_norm_sum(layer, torch.Size(shape))
    operator = matrix(layer, shape)
    exact = float(torch.linalg.matrix_norm(operator, 2))
    assert exact * (1 - 1e-3) <= found <= exact * (1 + 1e-6)
    assert rows == pytest.approx(float(operator.norm(dim=1).sum()), rel=1e-6)


def test_rows_less_a_reference():
    layer = nn.Conv2d(1, 2, 3, padding=1)
    reference = torch.randn_like(layer.weight)
    found = row_norm_sum(layer, torch.Size((1, 4, 4)), reference)
    difference = matrix(layer, (1, 4, 4), layer.weight.detach().double() - reference)
    assert found == pytest.approx(float(difference.norm(dim=1).sum()), rel=1e-6)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2)
    )


def test_complexity_of_a_convnet_by_the_formula():
    model, x = network(), torch.randn(2, 1, 6, 6)
    found = spectral_complexity(model, x)
    operators = [matrix(model[0], (1, 6, 6)), model[4].weight.detach().double(), model[6].weight.detach().double()]
    norms = [float(torch.linalg.matrix_norm(operator, 2)) for operator in operators]
    terms = [(float(a.norm(dim=1).sum()) / norm) ** (2 / 3) for a, norm in zip(operators, norms)]
    assert math.exp(found) == pytest.approx(math.prod(norms) * sum(terms) ** 1.5, rel=1e-3)


def test_normalized_margin_does_not_change_when_a_layer_or_the_data_are_scaled():
    model, x = network(), torch.randn(8, 1, 6, 6)
    for bias in (model[0].bias, model[4].bias, model[6].bias):
        nn.init.zeros_(bias)

    def value(factor):
        margin = (model(factor * x)[:, 0] - model(factor * x)[:, 1]).detach()
        return spectrally_normalized_margin(margin, spectral_complexity(model, x), float(factor * x.norm()), len(x))

    before = value(1.0)
    with torch.no_grad():
        model[4].weight.mul_(7)
    torch.testing.assert_close(value(3.0), before, rtol=1e-4, atol=1e-6)


def test_distance_to_the_weights_at_the_start_is_zero_at_the_start():
    model = network()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    assert spectral_complexity(model, torch.zeros(1, 1, 6, 6), start) == -math.inf


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), r"it has '1.weight'"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.Flatten()), r"it has '0'"),
        (nn.ReLU(), r"it has none"),
    ],
)
def test_models_that_are_no_chain_of_linear_layers_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        spectral_complexity(model, torch.zeros(1, 1, 4, 4))


def test_a_layer_that_is_not_used_and_zero_weights_are_refused():
    model = network()
    model[1].spare = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"the layer '1.spare' is not used"):
        spectral_complexity(model, torch.zeros(1, 1, 6, 6))
    model = network()
    nn.init.zeros_(model[0].weight)
    with pytest.raises(ValueError, match=r"weights of the layer '0' are all zero"):
        spectral_complexity(model, torch.zeros(1, 1, 6, 6))
