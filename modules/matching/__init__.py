"""Graph matching: pairs, networks, solvers, loss and metrics."""

from .base import GraphPairs, Graphs, MatchingNetwork

__all__ = ["GraphPairs", "Graphs", "MatchingNetwork"]
