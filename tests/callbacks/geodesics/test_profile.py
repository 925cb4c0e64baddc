"""The certified maximum: planted barriers are found, wherever they are."""

import pytest
import torch

from theodolite.callbacks.geodesics import Surface, certify

START, END = torch.zeros(1, 1).double(), torch.ones(1, 1).double()


def bump(center, half_width, height=1.0):
    return Surface(lambda p: height * (1 - (p[:, 0] - center).abs() / half_width).clamp_min(0))


@pytest.mark.parametrize("seed", range(20))
def test_a_narrow_barrier_is_found_to_the_tolerance(seed):
    """Four grid steps wide, anywhere: the coarse grid is up to a quarter off, the refined one at most the tolerance."""
    center = 0.1 + 0.8 * float(torch.rand(1, generator=torch.Generator().manual_seed(seed)))
    (profile,) = certify(bump(center, 2 / 32), START, END, grid=33, tolerance=1e-4)
    assert 1 - 1e-4 <= profile.maximum <= 1
    assert profile.highest == pytest.approx(center, abs=1e-4)
    assert len(profile.t) < 200
    assert bool((profile.t.diff() > 0).all())


def test_the_coarse_grid_alone_misses_it():
    (profile,) = certify(bump(0.5 + 1 / 64, 1 / 64), START, END, grid=33)
    assert profile.maximum == 0


def test_smooth_maximum_between_grid_points():
    (profile,) = certify(Surface(lambda p: -((p[:, 0] - 0.3337) ** 2)), START, END, grid=5, tolerance=1e-8)
    assert -1e-8 <= profile.maximum <= 0


def test_segments_are_refined_each_by_its_own_need():
    starts, ends = torch.tensor([[0.0], [2.0]]).double(), torch.tensor([[1.0], [3.0]]).double()
    first, second = certify(bump(0.41, 0.1), starts, ends, grid=33, tolerance=1e-4)
    assert len(first.t) > len(second.t) == 33
    assert second.maximum == 0


def test_nothing_is_refined_above_the_ceiling_or_where_a_value_is_no_number():
    (profile,) = certify(bump(0.41, 0.1, 9.0), START, END, grid=33, tolerance=1e-4, ceiling=2.0)
    assert len(profile.t) == 33
    assert profile.maximum > 2
    (profile,) = certify(Surface(lambda p: (p[:, 0] - 0.5).sqrt()), START, END, grid=33, tolerance=1e-4)
    assert len(profile.t) == 33
    assert profile.maximum == float("inf")


def test_ends_are_tested_exactly():
    starts, ends = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    seen = []
    certify(Surface(lambda p: seen.append(p.clone()) or p.sum(1)), starts, ends, grid=3)
    points = torch.cat(seen).view(3, 3, 4)
    assert torch.equal(points[:, 0], starts)
    assert torch.equal(points[:, -1], ends)
