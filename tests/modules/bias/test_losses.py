"""Log-frame losses against arithmetic with 400 digits, far below what float64 holds."""

import mpmath
import pytest
import torch
from torch.nn import functional as F

from theodolite.modules.bias import log_exponential_loss, log_logistic_loss, log_loss, soft_margins
from theodolite.modules.bias.losses import objective_slopes, objective_value

MARGINS = [-800.0, -3.0, 0.5, 29.9, 30.1, 40.0, 230.0, 800.0, 1e5]


def exact(margins, tail):
    with mpmath.workdps(60):
        terms = [mpmath.exp(-mpmath.mpf(m)) for m in margins]
        return [float(mpmath.log(term if tail == "exponential" else mpmath.log1p(term))) for term in terms]


@pytest.mark.parametrize("tail", ["exponential", "logistic"])
def test_log_of_one_sample_is_exact_at_every_margin(tail):
    margins = torch.tensor(MARGINS, dtype=torch.float64)
    got = log_loss(margins.unsqueeze(-1), tail)
    torch.testing.assert_close(got, torch.tensor(exact(MARGINS, tail), dtype=torch.float64), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("tail", ["exponential", "logistic"])
@pytest.mark.parametrize("shift", [0.0, 250.0, 5000.0])
def test_sum_and_gradient_are_exact_at_tiny_losses(tail, shift):
    values = [shift + 0.1, shift + 1.7, shift + 35.0]
    margins = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    loss = log_loss(margins, tail)
    (gradient,) = torch.autograd.grad(loss, margins)
    with mpmath.workdps(60):
        terms = [mpmath.exp(-mpmath.mpf(m)) for m in values]
        losses = terms if tail == "exponential" else [mpmath.log1p(term) for term in terms]
        slopes = terms if tail == "exponential" else [term / (1 + term) for term in terms]
        total = sum(losses)
        expected = torch.tensor([float(-slope / total) for slope in slopes], dtype=torch.float64)
        assert float(loss.detach()) == pytest.approx(float(mpmath.log(total)), rel=1e-14)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


def test_cross_entropy_is_the_logistic_loss_of_soft_margins():
    scores = torch.randn(2, 6, 4, dtype=torch.float64) * 5
    labels = torch.randint(4, (2, 6))
    expected = F.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(2, 6).sum(-1).log()
    torch.testing.assert_close(log_logistic_loss(soft_margins(scores, labels)), expected)


def test_soft_margin_is_at_most_log_classes_below_the_margin():
    scores, labels = torch.randn(50, 5, dtype=torch.float64), torch.randint(5, (50,))
    own = scores.gather(-1, labels[:, None])
    margin = (own - scores.scatter(-1, labels[:, None], -torch.inf)).amin(-1)
    gap = margin - soft_margins(scores, labels)
    assert float(gap.min()) >= 0
    assert float(gap.max()) <= torch.tensor(4.0).log() + 1e-6


def test_gradient_of_the_true_class_survives_where_cross_entropy_loses_it():
    scores = torch.tensor([[90.0, 0.0, -3.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0])
    (plain,) = torch.autograd.grad(F.cross_entropy(scores, labels), scores)
    (framed,) = torch.autograd.grad(log_logistic_loss(soft_margins(scores, labels)), scores)
    assert plain[0, 0] == 0
    assert framed[0, 0] == pytest.approx(-1.0)


def test_losses_are_batched_over_runs():
    margins = torch.randn(3, 5, dtype=torch.float64) * 40
    for loss in (log_exponential_loss, log_logistic_loss):
        torch.testing.assert_close(loss(margins), torch.stack([loss(row) for row in margins]))


@pytest.mark.parametrize("objective", ["squared", "exponential", "logistic", "log_exponential", "log_logistic"])
def test_closed_form_slopes_are_the_derivative(objective):
    outputs = (torch.randn(3, 5, dtype=torch.float64) * 3).requires_grad_()
    targets = torch.randn(3, 5, dtype=torch.float64).sign()
    value = objective_value(outputs, targets, objective)
    assert value.shape == (3,)
    (expected,) = torch.autograd.grad(value.sum(), outputs)
    torch.testing.assert_close(objective_slopes(outputs.detach(), targets, objective), expected)


def test_slopes_of_the_log_loss_hold_below_what_float64_holds():
    outputs = torch.tensor([2000.0, 2001.0], dtype=torch.float64)
    for objective in ("log_exponential", "log_logistic"):
        slopes = objective_slopes(outputs, torch.ones(2, dtype=torch.float64), objective)
        torch.testing.assert_close(slopes, -torch.tensor([1.0, 0.0], dtype=torch.float64).softmax(0))
