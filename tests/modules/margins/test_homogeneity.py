"""The test of homogeneity, on networks that are homogeneous and on such that are not."""

import copy

import pytest
import torch
from torch import nn

from theodolite.modules.margins import homogeneity

X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def linear(inputs, outputs, bias=False):
    return nn.Linear(inputs, outputs, bias=bias)


class Product(nn.Module):
    """A shared weight, used twice, and a skip past a layer of the same degree."""

    def __init__(self, skip):
        super().__init__()
        self.layer = linear(8, 8)
        self.skip = skip

    def forward(self, x):
        once = self.layer(x)
        return self.layer(once.relu()) + (once if self.skip else 0)


class SoftmaxAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)

    def forward(self, x):
        return self.attention(x[None], x[None], x[None])[0][0]


def relu_net(*biases):
    return nn.Sequential(
        linear(8, 6, biases[0]), nn.ReLU(), linear(6, 5, biases[1]), nn.LeakyReLU(), linear(5, 3, biases[2])
    )


HOMOGENEOUS = {
    "linear": (lambda: linear(8, 3), X, 1),
    "linear with bias": (lambda: linear(8, 3, True), X, 1),  # (w, b) together
    "bias in the first layer": (lambda: relu_net(True, False, False), X, 3),
    "no bias": (lambda: relu_net(False, False, False), X, 3),
    "convolutions and max-pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, bias=False), nn.Flatten(), linear(3, 2)
        ),
        IMAGES,
        3,
    ),
    "a weight used twice": (lambda: Product(False), X, 2),
}
NOT = {
    "bias in the second layer": (lambda: relu_net(True, True, False), X, ("2.bias",)),
    "biases in the second and third": (lambda: relu_net(False, True, True), X, ("2.bias", "4.bias")),
    "skip past one layer": (lambda: Product(True), X, ()),
    "tanh": (lambda: nn.Sequential(linear(8, 4), nn.Tanh(), linear(4, 2)), X, ()),
    "softmax attention": (SoftmaxAttention, X, ()),
    "batch norm": (lambda: nn.Sequential(linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), linear(4, 2)), X, ("1",)),
}


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_homogeneous_networks_and_their_degree(name):
    build, x, degree = HOMOGENEOUS[name]
    torch.manual_seed(0)
    result = homogeneity(build(), x)
    assert result.degree == degree
    assert result.error < 1e-12
    assert str(result) == f"homogeneous of degree {degree}"


@pytest.mark.parametrize("name", NOT)
def test_networks_that_are_not_and_what_breaks_them(name):
    build, x, broken_by = NOT[name]
    torch.manual_seed(0)
    result = homogeneity(build(), x)
    assert result.degree is None
    assert result.broken_by == broken_by
    assert "not homogeneous" in str(result)
    assert all(part in str(result) for part in broken_by or ["no parameter alone"])


def test_the_model_is_left_as_it_is():
    model = nn.Sequential(linear(8, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), linear(4, 2))
    model[0].eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    homogeneity(model, X)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.dtype == torch.float32 and parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_frozen_parameters_are_not_scaled():
    model = nn.Sequential(linear(8, 4), nn.ReLU(), linear(4, 2))
    model[0].weight.requires_grad_(False)
    assert homogeneity(model, X).degree == 1


def test_nothing_to_scale_and_zero_output_are_refused():
    with pytest.raises(ValueError, match="no parameter that requires gradients"):
        homogeneity(nn.ReLU(), X)
    model = linear(8, 2)
    nn.init.zeros_(model.weight)
    with pytest.raises(ValueError, match="output is zero or not finite"):
        homogeneity(model, X)
