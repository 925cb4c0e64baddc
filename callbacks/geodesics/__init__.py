"""Paths between trained networks inside a level set of the loss: pure functions, and what they measure."""

from .landscape import Landscape, ModelLandscape, Surface, as_measured, flat, unflat
from .path import Path
from .profile import Profile, certify
from .search import Method, connect, find_paths
from .settings import AUTHORS, Settings

__all__ = [
    "AUTHORS",
    "Landscape",
    "Method",
    "ModelLandscape",
    "Path",
    "Profile",
    "Settings",
    "Surface",
    "as_measured",
    "certify",
    "connect",
    "find_paths",
    "flat",
    "unflat",
]
