"""Objectives against closed forms on linear models."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from theodolite.modules.attacks import PGD
from theodolite.modules.classification import TRADES, Adversarial, GaussianNoise, Standard, relative_entropy


class Linear(nn.Module):
    """Two logits, 0 and w.x + b: the margin of class 1 is w.x + b."""

    def __init__(self, pixels=6):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.w = nn.Parameter(torch.randn(pixels, generator=generator, dtype=torch.float64))

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ self.w
        return torch.stack([torch.zeros_like(score), score], dim=1)


def images(count=5):
    # far enough from 0 and 1 that the box does not bind
    return 0.4 + 0.2 * torch.rand(count, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_adversarial_loss_of_a_linear_model_is_that_of_the_margin_less_eps_times_the_dual_norm(norm, dual):
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0, 1])
    attack = PGD(norm=norm, eps=0.1, steps=30, random_start=False)
    margin = model(x)[:, 1] * (2 * y - 1) - 0.1 * model.w.norm(dual)
    loss = Adversarial(attack)(model, x, y)
    torch.testing.assert_close(loss, functional.softplus(-margin).mean(), rtol=1e-9, atol=0)
    loss.backward()
    assert model.w.grad.norm() > 0


@pytest.mark.parametrize("seed", range(4))
def test_trades_of_a_linear_model_moves_the_margin_to_an_end_of_the_ball(seed):
    model, x, y = Linear(), images(1), torch.tensor([1])
    attack = PGD(norm="linf", eps=0.1, steps=30, seed=seed)
    margin = model(x)[0, 1].item()
    p = 1 / (1 + math.exp(-margin))
    ends = []
    for change in (-0.1, 0.1):
        q = 1 / (1 + math.exp(-margin - change * model.w.abs().sum().item()))
        ends.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    divergence = (TRADES(attack, beta=3)(model, x, y, torch.tensor([7])) - Standard()(model, x, y)).item() / 3
    assert min(abs(divergence - end) for end in ends) < 1e-5


def test_trades_is_differentiated_through_both_its_predictions():
    model, x, y = Linear(), images(), torch.tensor([0, 1, 1, 0, 1])
    trades, ids = TRADES(PGD(norm="l2", eps=0.1, steps=5), beta=2), torch.arange(5)
    (gradient,) = torch.autograd.grad(trades(model, x, y, ids), model.w)
    small = 1e-4
    for place in range(3):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                model.w[place] += sign * small
            values.append(trades(model, x, y, ids).item())
            with torch.no_grad():
                model.w[place] -= sign * small
        # the worst perturbation moves too, which changes the maximum in second order only
        assert (values[0] - values[1]) / (2 * small) == pytest.approx(gradient[place].item(), abs=2e-3)


def test_noise_has_the_given_deviation_and_mean_zero():
    model = Linear()
    seen = []

    def forward(x):
        seen.append(model(x)[:, 1])
        return model(x)

    count, sigma = 40_000, 0.3
    torch.manual_seed(0)
    GaussianNoise(sigma)(forward, images(1).expand(count, -1, -1, -1), torch.zeros(count, dtype=torch.int64))
    expected = sigma * model.w.norm().item()
    assert seen[0].std().item() == pytest.approx(expected, abs=4 * expected / math.sqrt(2 * count))
    assert seen[0].mean().item() == pytest.approx(model(images(1))[0, 1].item(), abs=4 * expected / math.sqrt(count))


def test_smoothed_labels_put_weight_on_all_classes():
    logits, y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    target = 0.8 * functional.one_hot(y, 3) + 0.2 / 3
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Standard(label_smoothing=0.2)(lambda x: x, logits, y), expected)


def test_relative_entropy_is_that_of_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 4, generator=generator)
    categorical = torch.distributions.Categorical
    expected = torch.distributions.kl_divergence(categorical(logits=first), categorical(logits=second))
    torch.testing.assert_close(relative_entropy(first.log_softmax(1), second), expected)
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)  # its second probability underflows to 0
    (gradient,) = torch.autograd.grad(relative_entropy(sure.log_softmax(1), torch.zeros(1, 2)).sum(), sure)
    assert relative_entropy(sure.log_softmax(1), torch.zeros(1, 2)).item() == pytest.approx(math.log(2))
    assert gradient.abs().max() < 1e-30


@pytest.mark.parametrize("make", [lambda a: Adversarial(a), lambda a: TRADES(a), lambda a: GaussianNoise(0.1)])
def test_batch_statistics_move_with_the_training_step_alone(make):
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 2)).double()
    attack = PGD(norm="l2", eps=0.1, steps=3)
    make(attack)(model, images(), torch.tensor([0, 1, 1, 0, 1]), torch.arange(5))
    assert model.training
    assert all(module.training for module in model)
    assert model[1].num_batches_tracked == (2 if isinstance(make(attack), TRADES) else 1)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Standard(label_smoothing=1.0), r"Standard\(label_smoothing=1.0\): must be in \[0, 1\)"),
        (lambda: GaussianNoise(0), r"GaussianNoise\(sigma=0\): must be positive"),
        (lambda: TRADES(PGD(), beta=0), r"TRADES\(beta=0\): must be positive"),
        (lambda: TRADES(PGD(random_start=False)), "TRADES: the attack must have random_start=True"),
        (lambda: TRADES(PGD(restarts=2)), "TRADES: .* restarts=2 would be left out"),
    ],
)
def test_bad_settings_are_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()
