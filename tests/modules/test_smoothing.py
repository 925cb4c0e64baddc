"""Certificates against closed forms: a linear classifier is smoothed into itself."""

import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

from theodolite.modules.smoothing import Smoothing, certified_radius, largest_radius, lower_confidence_bound


@pytest.mark.parametrize(
    ("count", "number", "alpha"), [(60, 100, 0.001), (99, 100, 0.05), (1, 7, 0.2), (100, 100, 0.01)]
)
def test_the_bound_is_where_so_many_successes_have_probability_alpha(count, number, alpha):
    bound = lower_confidence_bound(count, number, alpha)
    assert binom.sf(count - 1, number, bound) == pytest.approx(alpha, rel=1e-9)


def test_bounds_and_radii_at_the_ends():
    assert lower_confidence_bound(0, 10, 0.1) == 0
    assert lower_confidence_bound(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), rel=1e-12)
    assert largest_radius(1000, 0.001, 0.5) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))
    assert certified_radius(0.5, 1.0) == certified_radius(0.2, 1.0) == 0
    assert certified_radius(norm.cdf(1.5), 0.5) == pytest.approx(0.75)


def half_space(distance, size=4):
    """Two logits that change order at a hyperplane, and a point so far from it, inside class 1."""
    model = nn.Linear(size, 2, dtype=torch.float64)
    torch.manual_seed(0)
    normal = nn.functional.normalize(torch.randn(size, dtype=torch.float64), dim=0)
    with torch.no_grad():
        model.weight.copy_(torch.stack([-normal, normal]))
        model.bias.zero_()
    return model, distance * normal


def test_the_radius_of_a_half_space_is_the_distance_and_never_more():
    """p = Phi(d / sigma), so sigma Phi^-1(p) = d: with many votes the certificate nears it from below."""
    for distance in (0.1, 0.3, 0.6):
        model, x = half_space(distance)
        found, radius = Smoothing(model, 0.5).certify(x, torch.tensor(1), 0, 100, 20_000, 0.001)
        assert found == 1
        assert distance - 0.03 < radius < distance


def test_certificates_are_wrong_no_more_often_than_alpha():
    """Over 400 samples at the same distance, radii beyond it are errors: 400 alpha = 20 are expected at most."""
    model, x = half_space(0.2)
    smoothing = Smoothing(model, 0.5)
    radii = torch.tensor([smoothing.certify(x, torch.tensor(1), i, 50, 200, 0.05)[1] for i in range(400)])
    errors = int((radii > 0.2).sum())
    assert errors <= binom.ppf(0.999, 400, 0.05)
    assert errors > 0  # the bound is tight


def test_on_the_boundary_it_abstains():
    model, x = half_space(0.0)
    found = [Smoothing(model, 0.5).certify(x, torch.tensor(1), i, 50, 200, 0.001) for i in range(20)]
    assert found == [(-1, 0.0)] * 20


def test_votes_do_not_depend_on_batches_and_are_fresh():
    model, x = half_space(0.1)
    y = torch.tensor(1)
    state = torch.get_rng_state()
    votes = [Smoothing(model, 0.5, batch_size=size)._votes(x, y, 3, 1234, 1) for size in (1, 100, 450, 10_000)]
    assert all(torch.equal(vote, votes[0]) for vote in votes)
    assert votes[0].sum() == 1234
    other = [Smoothing(model, 0.5)._votes(x, y, 4, 1234, 1), Smoothing(model, 0.5)._votes(x, y, 3, 1234, 0),
             Smoothing(model, 0.5, seed=1)._votes(x, y, 3, 1234, 1)]  # fmt: skip
    assert len({int(vote[1]) for vote in [votes[0], *other]}) > 1
    assert torch.equal(torch.get_rng_state(), state)
    share = Smoothing(model, 0.5)._votes(x, y, 0, 50_000, 1)[1] / 50_000
    assert share == pytest.approx(norm.cdf(0.2), abs=0.007)  # 3.2 standard errors


def test_a_class_is_refuted_only_by_significantly_more_votes():
    model, x = half_space(0.5)
    smoothing = Smoothing(model, 0.5)
    assert not smoothing.refuted(x, torch.tensor(1), 0, 100, 0.001)
    assert smoothing.refuted(x, torch.tensor(0), 0, 100, 0.001)
    model, x = half_space(0.0)
    assert not any(Smoothing(model, 0.5).refuted(x, torch.tensor(0), i, 100, 0.001) for i in range(20))


def test_averaged_softmax_is_that_of_the_noisy_copies_and_has_a_gradient():
    model, x = half_space(0.3)
    batch = torch.stack([x, -x]).requires_grad_()
    smoothing = Smoothing(model, 0.5)
    scores = smoothing.log_probabilities(100)(batch)
    copies = smoothing._noise(x, 0, 2, 100)
    expected = torch.stack([model(sample + copies).softmax(1).mean(0) for sample in batch])
    torch.testing.assert_close(scores.exp().double(), expected, atol=1e-5, rtol=0)
    (gradient,) = torch.autograd.grad(scores[0, 1], batch)
    assert nn.functional.cosine_similarity(gradient[0], x, dim=0) > 0.99  # away from the boundary
    assert torch.equal(gradient[1], torch.zeros(4))


def test_a_label_out_of_range_is_named():
    model, x = half_space(0.3)
    with pytest.raises(ValueError, match=r"Labels are in 2 .. 2, but the model has the classes 0 .. 1"):
        Smoothing(model, 0.5).certify(x, torch.tensor(2), 0, 10, 10, 0.1)
