"""KKT residuals: zero at the solution of a linear machine, the angle they stand for, and the gradients."""

import pytest
import torch
from scipy.optimize import minimize, nnls
from torch import nn

from theodolite.modules.margins import (
    kkt_residual,
    kkt_residual_least_squares,
    margin_gradients,
    output_margin,
)


def separable(seed=0, n=20, d=5):
    generator = torch.Generator().manual_seed(seed)
    x, teacher = torch.randn(n, d, generator=generator).double(), torch.randn(d, generator=generator).double()
    y = (x @ teacher).sign()
    return y[:, None] * (x + 0.3 * y[:, None] * teacher / teacher.norm())


def largest_margin(rows):
    """The hard-margin machine without intercept, by SLSQP."""
    constraints = {"type": "ineq", "fun": lambda w: rows.numpy() @ w - 1, "jac": lambda w: rows.numpy()}
    start = 100 * torch.linalg.lstsq(rows, torch.ones(len(rows), 1).double()).solution[:, 0].numpy()
    result = minimize(
        lambda w: 0.5 * w @ w, start, jac=lambda w: w, constraints=constraints, options={"ftol": 1e-14, "maxiter": 500}
    )
    return torch.from_numpy(result.x)


def test_least_squares_residual_is_zero_at_the_largest_margin_and_not_beside_it():
    rows = separable()
    best = largest_margin(rows)
    assert kkt_residual_least_squares(best, rows, rows @ best, band=1e-4) < 1e-5
    beside = best + 0.1 * best.norm() * torch.nn.functional.one_hot(torch.tensor(0), 5)
    assert kkt_residual_least_squares(beside, rows, rows @ beside, band=1e-4) > 0.02


def test_residual_of_the_losss_multipliers_vanishes_along_the_solutions_ray():
    rows = separable()
    best = largest_margin(rows)
    residuals = []
    for scale in (10.0, 100.0, 1000.0):
        weights = scale * best
        margins = rows @ weights
        # the multipliers of the solution live on its support
        support = (rows @ best < 1 + 1e-6).numpy()
        dual = torch.zeros(len(rows)).double()
        dual[support] = torch.from_numpy(nnls(rows[support].T.numpy(), best.numpy())[0])
        residual = kkt_residual(weights, rows, margins, dual / dual.sum(), degree=1)
        residuals.append(residual)
        pull = (dual / dual.sum()) @ rows
        cosine = float(weights @ pull / weights.norm() / pull.norm())
        assert residual.stationarity == pytest.approx(max(0.0, 2 * (1 - cosine)) ** 0.5, abs=1e-7)
    assert max(residual.stationarity for residual in residuals) < 1e-5
    assert max(abs(residual.slackness) for residual in residuals) < 1e-5


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_stationarity_is_the_norm_it_is_said_to_be(degree):
    generator = torch.Generator().manual_seed(degree)
    weights, gradients = torch.randn(7, generator=generator).double(), torch.randn(4, 7, generator=generator).double()
    margins, probabilities = 2 + torch.rand(4).double(), torch.softmax(torch.randn(4), 0).double()
    smallest = margins.min()
    pull = probabilities @ gradients
    multipliers = smallest ** (1 - 2 / degree) * weights.norm() * probabilities / pull.norm()
    scaled, normals = weights / smallest ** (1 / degree), gradients / smallest ** ((degree - 1) / degree)
    expected = (scaled - multipliers @ normals).norm() / scaled.norm()
    found = kkt_residual(weights, gradients, margins, probabilities, degree)
    assert found.stationarity == pytest.approx(float(expected), rel=1e-10)
    assert found.slackness == pytest.approx(float(multipliers @ (margins / smallest - 1) / scaled.norm() ** 2))


def test_euler_identity_of_the_gradients_of_a_homogeneous_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False)).double()
    x, y = torch.randn(9, 4).double(), torch.randint(3, (9,))
    weights, margins, gradients = margin_gradients(model, x, y)
    torch.testing.assert_close(gradients @ weights, 2 * margins)  # <grad q, theta> = L q
    torch.testing.assert_close(margins, output_margin(model(x), y).detach())
    assert weights.shape == (6 * 4 + 6 + 18,)


def test_gradients_of_a_single_output():
    model = nn.Linear(3, 1, bias=False).double()
    x, y = torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1])
    weights, margins, gradients = margin_gradients(model, x, y)
    torch.testing.assert_close(gradients, (2 * y - 1)[:, None] * x)
    torch.testing.assert_close(margins, gradients @ weights)


def test_misclassified_samples_are_refused():
    rows = torch.eye(2).double()
    weights = torch.tensor([1.0, -1.0]).double()
    with pytest.raises(ValueError, match=r"smallest margin is -1"):
        kkt_residual_least_squares(weights, rows, rows @ weights)
    with pytest.raises(ValueError, match=r"every sample classified right"):
        kkt_residual(weights, rows, rows @ weights, torch.ones(2).double() / 2, 1)
