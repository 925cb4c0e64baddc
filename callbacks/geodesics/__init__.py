"""Paths between trained networks inside a level set of the loss: pure functions, and what they measure."""

from .alignment import aligned, match_weights, permuted
from .components import components
from .landscape import Landscape, ModelLandscape, Surface, as_measured, flat, unflat
from .linear_networks import linear_path
from .path import Path
from .profile import Profile, certify
from .search import Method, connect, find_paths
from .settings import AUTHORS, Settings
from .two_layer import permutation_path, wide_path
from .units import Units, hidden_units

__all__ = [
    "AUTHORS",
    "Landscape",
    "Method",
    "ModelLandscape",
    "Path",
    "Profile",
    "Settings",
    "Surface",
    "Units",
    "aligned",
    "as_measured",
    "certify",
    "components",
    "connect",
    "find_paths",
    "flat",
    "hidden_units",
    "linear_path",
    "match_weights",
    "permutation_path",
    "permuted",
    "unflat",
    "wide_path",
]
