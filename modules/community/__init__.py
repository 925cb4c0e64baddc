"""Community detection on graphs: networks, baselines, loss and overlap."""

from .base import NodeNetwork
from .metrics import assignment_loss, node_accuracy, overlap
from .networks import GNN, LGNN
from .task import CommunityDetection

__all__ = ["GNN", "LGNN", "CommunityDetection", "NodeNetwork", "assignment_loss", "node_accuracy", "overlap"]
