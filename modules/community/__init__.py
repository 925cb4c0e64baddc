"""Community detection on graphs: networks, baselines, loss and overlap."""

from .base import NodeNetwork
from .belief_propagation import BeliefPropagation
from .chance import RandomLabels, SingleLabel
from .metrics import assignment_loss, node_accuracy, overlap
from .networks import GNN, LGNN
from .spectral import BetheHessian, NormalizedLaplacian
from .task import CommunityDetection

__all__ = [
    "GNN",
    "LGNN",
    "BeliefPropagation",
    "BetheHessian",
    "CommunityDetection",
    "NodeNetwork",
    "NormalizedLaplacian",
    "RandomLabels",
    "SingleLabel",
    "assignment_loss",
    "node_accuracy",
    "overlap",
]
