"""Regression on few inputs: small networks whose loss surfaces can be searched exhaustively."""

from .network import FeedForward
from .task import Regression

__all__ = ["FeedForward", "Regression"]
