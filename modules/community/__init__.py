"""Community detection on graphs: networks, baselines, loss and overlap."""

from .base import NodeNetwork
from .belief_propagation import BeliefPropagation
from .chance import RandomLabels, SingleLabel
from .metrics import assignment_loss, node_accuracy, overlap
from .networks import GNN, LGNN
from .peers import GAT, GIN
from .spectral import BetheHessian, NonBacktracking, NormalizedLaplacian, PowerIteration
from .task import CommunityDetection

__all__ = [
    "GAT",
    "GIN",
    "GNN",
    "LGNN",
    "BeliefPropagation",
    "BetheHessian",
    "CommunityDetection",
    "NodeNetwork",
    "NonBacktracking",
    "NormalizedLaplacian",
    "PowerIteration",
    "RandomLabels",
    "SingleLabel",
    "assignment_loss",
    "node_accuracy",
    "overlap",
]
