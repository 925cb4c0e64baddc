"""Each step against its definition as a minimum, found numerically; problems side by side against one by one."""

import copy

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from theodolite.modules.bias import (
    CustomPotential,
    Entropy,
    Hypentropy,
    LpPotential,
    MirrorDescent,
    SimplexEntropy,
    SteepestDescent,
)
from theodolite.modules.bias.references import norm_of

CONVEX = {
    "lp": (LpPotential(1.7), lambda w: (np.abs(w) ** 1.7).sum() / 1.7),
    "l2": (LpPotential(), lambda w: (w**2).sum() / 2),
    "entropy": (Entropy(), lambda w: (w * np.log(w) - w).sum()),
    "simplex": (SimplexEntropy(), lambda w: (w * np.log(w) - w).sum()),
    "hypentropy": (
        Hypentropy(0.3),
        lambda w: (w * np.arcsinh(w / 0.3) - np.sqrt(w**2 + 0.09)).sum(),
    ),
    "custom": (CustomPotential(torch.atanh, torch.tanh), lambda w: (w * np.arctanh(w) + np.log(1 - w**2) / 2).sum()),
}


def parameter(*shape, seed=0):
    return torch.nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", CONVEX)
def test_mirror_step_minimises_linear_model_plus_bregman_divergence(name):
    potential, psi = CONVEX[name]
    start = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    gradient = torch.tensor([0.7, -0.4, 0.1], dtype=torch.float64)
    w = torch.nn.Parameter(start.clone())
    w.grad = gradient.clone()
    MirrorDescent([w], lr=0.25, potential=potential).step()

    def model(v):
        return 0.25 * gradient.numpy() @ v + psi(v) - potential.gradient(start).numpy() @ v

    positive = name in {"entropy", "simplex"}
    bounds = [(1e-9, None)] * 3 if positive else [(-0.999, 0.999)] * 3
    simplex = [{"type": "eq", "fun": lambda v: v.sum() - 1}] if name == "simplex" else []
    found = minimize(model, start.numpy(), bounds=bounds, constraints=simplex, method="SLSQP", options={"ftol": 1e-15})
    np.testing.assert_allclose(w.detach().numpy(), found.x, atol=2e-6)
    assert model(w.detach().numpy()) <= found.fun + 1e-12


@pytest.mark.parametrize(
    ("norm", "exponent"), [("l1", 1.0), ("l2", 2.0), ("linf", np.inf), ("lp", 1.5), ("spectral", None)]
)
def test_steepest_step_minimises_linear_model_plus_squared_norm(norm, exponent):
    w = parameter(3, 3)
    before = w.detach().clone()
    w.grad = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    SteepestDescent([w], lr=0.3, norm=norm, p=1.5).step()
    step = (w.detach() - before).flatten()

    def size(v):
        kind = "spectral" if norm == "spectral" else "lp"
        return norm_of(v, kind, exponent or 2.0)

    def model(v):
        return w.grad.flatten() @ v + size(v) ** 2 / 0.6

    # convex, so no direction must improve; tried: random ones, coordinates, and the way to a numerical minimum
    generator = torch.Generator().manual_seed(2)
    found = minimize(lambda v: float(model(torch.from_numpy(v))), np.full(9, 0.01), method="Powell").x
    ways = [*torch.randn(200, 9, dtype=torch.float64, generator=generator), *torch.eye(9, dtype=torch.float64)]
    for way in [*ways, torch.from_numpy(found) - step]:
        for length in (1e-3, 1e-2, 0.1, -1e-3, -1e-2, -0.1):
            assert model(step + length * way) >= model(step) - 1e-12
    assert model(step) < 0


def train(optimizer, w, x, y, steps=7):
    for _ in range(steps):
        optimizer.zero_grad()

        def closure():
            loss = ((x @ w.unsqueeze(-1)).squeeze(-1) - y).square().sum(-1)
            loss.sum().backward()
            return loss.detach()

        optimizer.step(closure)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (MirrorDescent, {"potential": LpPotential(1.5), "momentum": 0.5}),
        (MirrorDescent, {"potential": Hypentropy(0.1), "momentum": 0.5, "momentum_kind": "primal"}),
        (MirrorDescent, {"momentum_kind": "accelerated"}),
        (MirrorDescent, {"potential": SimplexEntropy(), "norm_power": 1.0}),
        (SteepestDescent, {"norm": "l1"}),
        (SteepestDescent, {"norm": "linf", "scale": "normalized"}),
        (SteepestDescent, {"norm": "lp", "p": 3.0, "norm_power": 2.0}),
        (SteepestDescent, {"norm": "l2", "scale": "loss"}),
    ],
)
def test_problems_side_by_side_are_trained_as_if_alone(kind, options):
    x, y = torch.randn(4, 3, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    rates = [0.01, 0.03]
    together = torch.nn.Parameter(torch.rand(4, 5, dtype=torch.float64).softmax(-1))
    alone = [torch.nn.Parameter(row.clone()) for row in together.detach()]
    train(kind([together], lr=rates, batch_dims=1, **options), together, x, y)
    for problem, w in enumerate(alone):
        train(kind([w], lr=rates[problem // 2], **options), w, x[problem], y[problem])
        torch.testing.assert_close(together[problem], w, rtol=1e-12, atol=1e-14)


def test_spectral_steps_of_problems_side_by_side_are_those_of_each():
    w = parameter(2, 3, 4)
    w.grad = parameter(2, 3, 4, seed=1).detach()
    parts = [torch.nn.Parameter(part.clone()) for part in w.detach()]
    SteepestDescent([w], lr=0.1, norm="spectral", batch_dims=1).step()
    for part, gradient, moved in zip(parts, w.grad, w, strict=True):
        part.grad = gradient
        SteepestDescent([part], lr=0.1, norm="spectral").step()
        torch.testing.assert_close(part, moved)


def test_gradient_descent_and_its_momentum_are_torchs():
    x, y = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    ours, theirs = parameter(5), parameter(5)
    train(MirrorDescent([ours], lr=0.01, momentum=0.9), ours, x, y)
    train(torch.optim.SGD([theirs], lr=0.01, momentum=0.9), theirs, x, y)
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-14)
    plain = parameter(5)
    steepest = SteepestDescent([plain], lr=0.01)
    reference = parameter(5)
    train(steepest, plain, x, y)
    train(torch.optim.SGD([reference], lr=0.01), reference, x, y)
    torch.testing.assert_close(plain, reference, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", ["dual", "primal", "accelerated"])
def test_a_loaded_state_goes_on_bit_for_bit(kind):
    x, y = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    options = {"lr": 0.01, "potential": LpPotential(1.5), "momentum": 0.5, "momentum_kind": kind}
    w = parameter(5)
    optimizer = MirrorDescent([w], **options)
    train(optimizer, w, x, y)
    other = torch.nn.Parameter(w.detach().clone())
    resumed = MirrorDescent([other], **options)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(optimizer, w, x, y)
    train(resumed, other, x, y)
    assert torch.equal(w, other)


def test_single_precision_and_matrices_keep_their_type():
    w = torch.nn.Parameter(torch.rand(3, 4))
    w.grad = torch.rand(3, 4)
    for optimizer in (MirrorDescent([w], potential=Entropy()), SteepestDescent([w], norm="linf", norm_power=2.0)):
        optimizer.step()
        assert w.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda w: MirrorDescent([w], lr=0.0), "lr=0.0.*positive"),
        (lambda w: MirrorDescent([w], momentum=1.0), "momentum=1.0"),
        (lambda w: MirrorDescent([w], momentum_kind="both"), "dual, primal, accelerated"),
        (lambda w: MirrorDescent([w], lr=[0.1, 0.2, 0.3], batch_dims=1), "3 step sizes cannot be dealt to 4 problems"),
        (lambda w: MirrorDescent([w], lr=[0.1, 0.2]), "2 step sizes cannot be dealt to 1 problems"),
        (lambda w: SteepestDescent([w], norm="l3"), "l1, l2, linf, lp, spectral"),
        (lambda w: SteepestDescent([w], norm="lp", p=1.0), "p=1.0.*above 1"),
        (lambda w: SteepestDescent([w], norm="spectral", batch_dims=1), "must be a matrix"),
        (lambda w: SteepestDescent([w], norm_power=-1), "norm_power=-1"),
        (lambda w: SteepestDescent([w], batch_dims=2), "batch_dims=2"),
        (lambda w: LpPotential(1.0), "p must be above 1"),
        (lambda w: Hypentropy(0.0), "scale=0.0"),
        (lambda w: CustomPotential(torch.exp, torch.sinh), "must undo each other"),
    ],
)
def test_wrong_settings_are_refused_at_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make(torch.nn.Parameter(torch.rand(4, 3)))


@pytest.mark.parametrize(
    ("potential", "start", "match"),
    [(Entropy(), [0.1, -0.2], "least initial weight is -0.2"), (Entropy(), [0.0, 1.0], "must be > 0"),
     (SimplexEntropy(), [0.5, 0.4], "miss the sum 1 by 0.1")],
)  # fmt: skip
def test_starts_outside_of_the_domain_are_refused(potential, start, match):
    w = torch.nn.Parameter(torch.tensor(start))
    w.grad = torch.ones(2)
    with pytest.raises(ValueError, match=match):
        MirrorDescent([w], potential=potential).step()


def test_loss_scaled_steps_need_the_loss():
    w = parameter(2)
    w.grad = torch.ones_like(w)
    with pytest.raises(ValueError, match="needs a closure"):
        SteepestDescent([w], scale="loss").step()
