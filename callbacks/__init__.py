"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .certified_accuracy import CertifiedAccuracy
from .community_writer import CommunityWriter
from .finite_loss import FiniteLoss, NonFiniteLossError
from .matching_comparison import MatchingComparison
from .matching_writer import MatchingWriter
from .prediction_writer import PredictionWriter
from .robust_accuracy import RobustAccuracy
from .transferability import Transferability

__all__ = [
    "BaselineComparison",
    "CertifiedAccuracy",
    "CommunityWriter",
    "FiniteLoss",
    "MatchingComparison",
    "MatchingWriter",
    "NonFiniteLossError",
    "PredictionWriter",
    "RobustAccuracy",
    "Transferability",
]
