"""Reference solutions against each other, closed forms, and other solvers."""

import cvxpy
import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from theodolite.modules.bias import Entropy, Hypentropy, LpPotential, SimplexEntropy
from theodolite.modules.bias.max_margin import max_margin
from theodolite.modules.bias.references import (
    bregman_projection,
    depth_map,
    dual_of,
    min_l1,
    min_l2,
    min_linf,
    min_nuclear,
    norm_of,
)


def regression(seed=0, n=6, d=20):
    rng = np.random.default_rng(seed)
    x, w = torch.from_numpy(rng.standard_normal((n, d))), torch.zeros(d, dtype=torch.float64)
    w[:2] = 1
    return x, x @ w


def signed(seed=0, n=20, d=8):
    rng = np.random.default_rng(seed)
    w, x = rng.standard_normal(d), rng.standard_normal((n, d))
    y = np.sign(x @ w)
    return torch.from_numpy(y[:, None] * (x + 0.3 * y[:, None] * w / np.linalg.norm(w)))


@pytest.mark.parametrize(("solve", "norm"), [(min_l1, 1), (min_linf, "inf")])
def test_linear_programs_agree_with_cvxpy(solve, norm):
    x, y = regression()
    w = cvxpy.Variable(20)
    expected = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(w, norm)), [x.numpy() @ w == y.numpy()]).solve()
    ours = solve(x, y)
    assert float((x @ ours - y).abs().max()) <= 1e-9
    assert float(ours.norm(p=float(norm))) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_nonnegative_l1_is_the_limit_of_the_entropy(seed):
    x, y = regression(seed)
    lp = min_l1(x, y, nonnegative=True)
    sums = [
        float(bregman_projection(x, y, Entropy().inverse, torch.full((20,), scale).double().log()).sum())
        for scale in (1e-2, 1e-8, 1e-20)
    ]
    assert float(lp.min()) >= 0
    assert sums[0] >= sums[1] >= sums[2] >= float(lp.sum()) * (1 - 1e-9)
    assert sums[2] == pytest.approx(float(lp.sum()), rel=0.1)


def test_bregman_projection_with_p_2_is_the_nearest_point():
    x, y = regression()
    start = torch.linspace(-1, 1, 20, dtype=torch.float64)
    torch.testing.assert_close(bregman_projection(x, y, LpPotential().inverse, start), min_l2(x, y, start))


@pytest.mark.parametrize("p", [1.1, 1.5, 3.0])
def test_bregman_projection_from_zero_is_the_least_lp_norm(p):
    x, y = regression()
    ours = bregman_projection(x, y, LpPotential(p).inverse, torch.zeros(20, dtype=torch.float64))
    w = cvxpy.Variable(20)
    expected = cvxpy.Problem(cvxpy.Minimize(cvxpy.pnorm(w, p)), [x.numpy() @ w == y.numpy()]).solve()
    assert float((x @ ours - y).abs().max()) <= 1e-9
    assert float(ours.norm(p=p)) == pytest.approx(float(expected), rel=1e-5)
    gradient = LpPotential(p).gradient(ours)
    assert float((gradient - x.T @ torch.linalg.lstsq(x.T, gradient).solution).abs().max()) <= 1e-9


def test_hypentropy_goes_from_l1_to_l2():
    x, y = regression()
    zero = torch.zeros(20, dtype=torch.float64)
    small, large = (bregman_projection(x, y, Hypentropy(scale).inverse, zero) for scale in (1e-13, 1e4))
    torch.testing.assert_close(large, min_l2(x, y, zero), rtol=1e-6, atol=1e-7)
    assert 1 - 1e-9 <= float(small.norm(p=1) / min_l1(x, y).norm(p=1)) <= 1.05


def test_depth_two_is_hypentropy_and_depth_three_comes_nearer_to_l1():
    x, y = regression()
    zero = torch.zeros(20, dtype=torch.float64)
    two, three = (bregman_projection(x, y, depth_map(k, 0.1), zero) for k in (2, 3))
    torch.testing.assert_close(two, bregman_projection(x, y, Hypentropy(0.02).inverse, zero))
    least = min_l1(x, y).norm(p=1)
    assert least * (1 - 1e-9) <= three.norm(p=1) < two.norm(p=1)


def test_simplex_projection_is_the_entropy_with_a_row_of_ones():
    x, _ = regression()
    target = torch.rand(20, dtype=torch.float64).softmax(-1)
    rows = torch.cat([x, torch.ones(1, 20, dtype=torch.float64)])
    start = torch.full((20,), 1 / 20, dtype=torch.float64).log()
    w = bregman_projection(rows, rows @ target, Entropy().inverse, start)
    assert float(w.sum()) == pytest.approx(1)
    dual = w.log() - start  # in the span of the rows of x and ones
    torch.testing.assert_close(SimplexEntropy().inverse(start + dual), w)
    assert float((dual - rows.T @ torch.linalg.lstsq(rows.T, dual).solution).abs().max()) <= 1e-9


def test_nuclear_norm_agrees_with_a_semidefinite_program():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((14, 8, 8))
    a = (a + a.transpose(0, 2, 1)) / 2
    u = rng.standard_normal((8, 1))
    y = (a * (u @ u.T)).sum((1, 2))
    ours = min_nuclear(torch.from_numpy(a.reshape(14, 64)), torch.from_numpy(y)).view(8, 8)
    w = cvxpy.Variable((8, 8), PSD=True)
    constraints = [cvxpy.trace(m @ w) == value for m, value in zip(a, y)]
    expected = cvxpy.Problem(cvxpy.Minimize(cvxpy.trace(w)), constraints).solve()
    assert float(ours.trace()) == pytest.approx(float(expected), rel=1e-4)
    assert float(torch.linalg.eigvalsh(ours).min()) >= -1e-9
    assert float(norm_of(ours.flatten(), "nuclear")) == pytest.approx(float(ours.trace()))


@pytest.mark.parametrize("seed", range(3))
def test_l2_margin_is_the_hard_svm_without_intercept(seed):
    z = signed(seed)
    both = np.vstack([z.numpy(), -z.numpy()])
    svm = LinearSVC(fit_intercept=False, loss="hinge", C=1e6, max_iter=2_000_000, tol=1e-9)
    w = svm.fit(both, np.r_[np.ones(20), -np.ones(20)]).coef_[0]
    expected = (z.numpy() @ w).min() / np.linalg.norm(w)
    gamma, weights = max_margin(z, "l2")
    assert float(gamma) == pytest.approx(expected, rel=1e-3)
    rule = weights @ z  # the maximiser is Z^T p: the sandwich closes
    assert float((z @ rule).min() / rule.norm()) == pytest.approx(float(gamma), rel=1e-9)


@pytest.mark.parametrize(
    ("norm", "p", "constraint"),
    [
        ("l1", 2.0, lambda w: cvxpy.norm1(w)),
        ("linf", 2.0, lambda w: cvxpy.norm_inf(w)),
        ("lp", 1.5, lambda w: cvxpy.pnorm(w, 1.5)),
        ("lp", 3.0, lambda w: cvxpy.pnorm(w, 3)),
        ("spectral", 2.0, lambda w: cvxpy.sigma_max(cvxpy.reshape(w, (3, 3), order="C"))),
        ("dft_l1", 2.0, None),
    ],
)
def test_margins_agree_with_cvxpy(norm, p, constraint):
    z = signed(1, n=12, d=9)
    w = cvxpy.Variable(9)
    fourier = np.fft.fft(np.eye(9), norm="ortho")
    bound = cvxpy.norm1(fourier @ w) if norm == "dft_l1" else constraint(w)
    expected = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(z.numpy() @ w)), [bound <= 1]).solve()
    gamma, weights = max_margin(z, norm, p)
    assert float(gamma) == pytest.approx(float(expected), rel=1e-4)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights.min()) >= 0
    assert float(norm_of(weights @ z, *dual_of(norm, p))) == pytest.approx(float(gamma))


@pytest.mark.parametrize("norm", ["l1", "l2", "linf", "lp", "dft_l1"])
def test_data_that_no_rule_separates_are_refused(norm):
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="not separable by a linear rule without intercept"):
        max_margin(z, norm, 1.5)


def test_constraints_without_a_solution_are_refused():
    x = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for solve in (min_l1, min_linf):
        with pytest.raises(ValueError, match="has no solution"):
            solve(x, y)
    with pytest.raises(ValueError, match="is there a solution"):
        bregman_projection(x[:1], -y[:1], Entropy().inverse, torch.zeros(2, dtype=torch.float64))
