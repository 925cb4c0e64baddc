"""Components of level sets that are known: the minima of an egg carton below, at and above its saddles."""

import math

import pytest
import torch

from theodolite.callbacks.geodesics import Settings, Surface
from theodolite.callbacks.geodesics.components import components

#: Minima of value -2 at half-integers; the saddles between neighbours have the value 0.
CARTON = Surface(lambda p: (2 * math.pi * p).cos().sum(1))
MINIMA = torch.tensor([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [2.5, 0.5]]).double()


@pytest.mark.parametrize(("level", "labels"), [(0.01, [0, 0, 0, 0]), (-0.01, [0, 1, 2, 3])])
def test_egg_carton_is_one_component_above_its_saddles_and_many_below(level, labels):
    settings = Settings(lr=0.02, max_steps=100, max_passes=3)
    connected, found = components(CARTON, MINIMA, level, "dss", settings)
    assert found.tolist() == labels
    assert bool((connected == connected.T).all())
    assert bool(connected.diagonal().all())


def test_chains_of_connections_join_and_labels_follow_the_first_points():
    """A valley of height 0 along x < 1.2 and a wall after it; order of the points: far, near, near."""
    surface = Surface(lambda p: torch.where((p[:, 0] - 1.2).abs() < 0.1, 1.0, 0.0).double())
    points = torch.tensor([[3.0], [0.0], [1.0]]).double()
    connected, labels = components(surface, points, 0.5, "linear")
    assert labels.tolist() == [0, 1, 1]
    assert connected.tolist() == [[True, False, False], [False, True, True], [False, True, True]]


def test_one_point_is_one_component():
    connected, labels = components(CARTON, MINIMA[:1], 0.0)
    assert connected.tolist() == [[True]]
    assert labels.tolist() == [0]
