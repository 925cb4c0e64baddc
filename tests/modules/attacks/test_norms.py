import pytest
import torch

from theodolite.modules.attacks import perturbation_norm, project
from theodolite.modules.attacks.norms import random_perturbation, steepest_direction
from theodolite.modules.noise import sample_generators, sample_normal


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_projection_is_inside_idempotent_and_leaves_the_inside_alone(norm):
    torch.manual_seed(0)
    delta = torch.randn(50, 3, 4, 4, dtype=torch.float64) * torch.logspace(-3, 1, 50)[:, None, None, None]
    inside = project(delta, norm, 0.5)
    assert perturbation_norm(inside, norm).max() <= 0.5 * (1 + 1e-12)
    torch.testing.assert_close(project(inside, norm, 0.5), inside)
    small = perturbation_norm(delta, norm) <= 0.5
    assert 0 < small.sum() < 50
    torch.testing.assert_close(inside[small], delta[small])


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_projection_is_the_nearest_point_of_the_ball(norm):
    """The variational inequality <delta - p, q - p> <= 0 for all q of a convex set."""
    torch.manual_seed(1)
    delta = torch.randn(20, 7, dtype=torch.float64)
    nearest = project(delta, norm, 0.3)
    others = random_perturbation(torch.zeros(2000, 7).double(), norm, 0.3, sample_generators(0, range(2000)))
    products = ((delta - nearest)[:, None] * (others[None] - nearest[:, None])).sum(2)
    assert products.max() <= 1e-12


def test_projection_by_a_radius_a_sample_at_zero_and_without_a_ball():
    delta = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.0, 0.0]])
    result = project(delta, "l2", torch.tensor([1.0, 10.0, 0.0]))
    torch.testing.assert_close(result, torch.tensor([[0.6, 0.8], [3.0, 4.0], [0.0, 0.0]]))
    assert torch.equal(project(delta, "linf", torch.tensor([1.0, 3.5, 1.0]))[1], torch.tensor([3.0, 3.5]))
    assert torch.equal(project(delta, "l2", float("inf")), delta)
    assert torch.equal(project(delta, "linf", float("inf")), delta)


def test_steepest_direction_beats_every_other_of_its_norm_and_stays_where_there_is_no_slope():
    torch.manual_seed(2)
    gradient = torch.randn(5, 6, dtype=torch.float64)
    others = torch.randn(5000, 6, dtype=torch.float64)
    for norm in ("l2", "linf"):
        direction = steepest_direction(gradient, norm)
        torch.testing.assert_close(perturbation_norm(direction, norm), torch.ones(5).double())
        best = (gradient * direction).sum(1)
        assert (gradient @ (others / perturbation_norm(others, norm)[:, None]).T <= best[:, None]).all()
        flat = torch.tensor([[0.0, 0.0], [torch.nan, torch.inf]])
        assert torch.equal(steepest_direction(flat, norm), torch.zeros(2, 2))


@pytest.mark.parametrize(("norm", "quantile"), [("l2", 0.5 ** (1 / 3)), ("linf", 0.5 ** (1 / 3))])
def test_random_starts_fill_the_ball_uniformly(norm, quantile):
    """In three dimensions half of a ball's volume lies within 0.5^(1/3) of its radius, of either norm."""
    delta = random_perturbation(torch.zeros(20_000, 3), norm, 2.0, sample_generators(3, range(20_000)))
    sizes = perturbation_norm(delta, norm) / 2
    assert sizes.max() <= 1 + 1e-6
    assert (sizes < quantile).float().mean() == pytest.approx(0.5, abs=0.012)  # 3.4 standard errors
    assert delta.mean(0).abs().max() < 0.03


def test_numbers_of_a_sample_depend_on_seed_sample_and_key_alone():
    state = torch.get_rng_state()
    together = sample_normal(sample_generators(5, [3, 9, 4], 1), (2, 2))
    assert torch.equal(sample_normal(sample_generators(5, [9], 1), (2, 2))[0], together[1])
    for other in (sample_generators(6, [9], 1), sample_generators(5, [9], 2), sample_generators(5, [8], 1)):
        assert not torch.equal(sample_normal(other, (2, 2))[0], together[1])
    assert torch.equal(torch.get_rng_state(), state)
