"""Graph matching: pairs, networks, solvers, loss and metrics."""

from .assignment import assign, assign_candidates
from .base import GraphPairs, Graphs, MatchingNetwork, Refiner
from .chained import Chained
from .faq import FAQ, faq
from .features import HandmadeFeatures
from .fgnn import FGNN
from .graduated import GraduatedAssignment
from .local_search import TabuSearch, qap_cost, swap_deltas
from .metrics import argmax_accuracy, assignment_accuracy, common_edges, exact_recovery, gap, objective
from .qap_solver import QAPSolver, TwoOpt
from .references import ScipyFAQ, ScipyTwoOpt
from .refined import Refined
from .siamese import SiameseGNN
from .spectral import GRAMPA, LowRankAlign, Umeyama
from .task import GraphMatching, matching_loss

__all__ = [
    "FAQ",
    "FGNN",
    "GRAMPA",
    "Chained",
    "GraduatedAssignment",
    "GraphMatching",
    "GraphPairs",
    "Graphs",
    "HandmadeFeatures",
    "LowRankAlign",
    "MatchingNetwork",
    "QAPSolver",
    "Refined",
    "Refiner",
    "ScipyFAQ",
    "ScipyTwoOpt",
    "SiameseGNN",
    "TabuSearch",
    "TwoOpt",
    "Umeyama",
    "argmax_accuracy",
    "assign",
    "assign_candidates",
    "assignment_accuracy",
    "common_edges",
    "exact_recovery",
    "faq",
    "gap",
    "matching_loss",
    "objective",
    "qap_cost",
    "swap_deltas",
]
