"""Distances to the boundary, where they are known: linear models, and a circle."""

import pytest
import torch
from torch import nn

from theodolite.modules.attacks import PGD
from theodolite.modules.margins import boundary_distance, first_order_margin, output_margin


def linear_model(inputs=6, classes=2):
    torch.manual_seed(0)
    model = nn.Linear(inputs, classes).double()
    with torch.no_grad():
        model.weight.mul_(0.3)
        model.bias.copy_(-model.weight @ torch.full((inputs,), 0.5).double())  # the boundary meets in the middle
    return model


def exact_distance(model, x, y, norm):
    """Of a linear model, the least over the other classes of the difference over the dual norm of its gradient."""
    scores, weight, y = model(x).detach(), model.weight.detach(), y[:, None]
    dual = 2 if norm == "l2" else 1
    gaps = scores.gather(1, y) - scores
    slopes = torch.linalg.vector_norm(weight[y[:, 0]][:, None] - weight[None], ord=dual, dim=2)
    return (gaps / slopes).scatter(1, y, torch.inf).amin(1)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("classes", [2, 3])
def test_bisection_reaches_the_distance_of_a_linear_model_from_above(norm, classes):
    model = linear_model(classes=classes)
    x = 0.5 + 0.1 * torch.randn(12, 6, generator=torch.Generator().manual_seed(1)).double()  # far from the box
    y = model(x).argmax(1)
    exact = exact_distance(model, x, y, norm)
    attack = PGD(norm=norm, eps=0.4, steps=20, random_start=False)
    found = boundary_distance(model, x, y, attack, steps=12)
    assert bool((found >= exact - 1e-9).all())
    if classes == 2:
        torch.testing.assert_close(found, exact, rtol=0, atol=2e-4)  # 0.4 / 2^12
        torch.testing.assert_close(first_order_margin(model, x, y, norm), exact, rtol=1e-9, atol=0)


def test_misclassified_is_zero_and_out_of_reach_is_infinite():
    model = linear_model()
    x = torch.full((3, 6), 0.5).double()
    x[1] += 0.01 * (model.weight[0] - model.weight[1]).detach()
    x[2] += 0.3 * (model.weight[0] - model.weight[1]).sign().detach()
    y = torch.tensor([1, 0, 0])  # at a tie the class of the lower number is predicted
    found = boundary_distance(model, x, y, PGD(norm="l2", eps=0.2, steps=10, random_start=False))
    assert found[0] == 0
    assert 0 < found[1] < 0.2
    assert found[2] == torch.inf


class Circle(nn.Module):
    """Class 1 within a distance of the middle; the gradient's length is two there and far more outside."""

    def forward(self, x):
        inside = 0.04 - (x - 0.5).square().sum(1)
        return torch.stack([torch.zeros_like(inside), inside], dim=1)


def test_first_order_is_no_bound_but_bisection_is_one():
    x, y = torch.tensor([[0.9, 0.5], [0.6, 0.5]]).double(), torch.tensor([0, 1])
    exact = torch.tensor([0.2, 0.1]).double()
    first = first_order_margin(Circle(), x, y, "l2")
    torch.testing.assert_close(first, torch.tensor([0.15, 0.15]).double())
    found = boundary_distance(Circle(), x, y, PGD(norm="l2", eps=0.3, steps=30, random_start=False), steps=12)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-3)
    assert bool((found >= exact - 1e-9).all())


def test_each_sample_is_alone_and_nothing_of_the_model_is_touched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.rand(10, 6), torch.randint(3, (10,))
    attack = PGD(norm="linf", eps=0.5, steps=5)
    numbers = torch.arange(10)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        together = boundary_distance(model, x, y, attack, 4, numbers), first_order_margin(model, x, y, "l2")
        alone = [
            (boundary_distance(model, x[i : i + 1], y[i : i + 1], attack, 4, numbers[i : i + 1]),
             first_order_margin(model, x[i : i + 1], y[i : i + 1], "l2")) for i in range(10)
        ]  # fmt: skip
    for part in range(2):
        torch.testing.assert_close(torch.cat([pair[part] for pair in alone]), together[part], rtol=1e-4, atol=1e-5)
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    misclassified = output_margin(model.eval()(x), y) <= 0
    assert torch.equal(together[0] == 0, misclassified)


@pytest.mark.parametrize(("eps", "targeted"), [(0.0, False), (float("inf"), False), (0.5, True)])
def test_attacks_without_a_largest_distance_are_refused(eps, targeted):
    attack = PGD(eps=eps, targeted=targeted, step_size=0.1, random_start=False)
    with pytest.raises(ValueError, match="must be untargeted with a finite radius > 0"):
        boundary_distance(linear_model(), torch.zeros(1, 6).double(), torch.tensor([0]), attack)
