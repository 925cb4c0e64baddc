"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .community_writer import CommunityWriter
from .finite_loss import FiniteLoss, NonFiniteLossError
from .homogeneous_bias import HomogeneousBias
from .interpolation_bias import InterpolationBias
from .margin_bias import MarginBias
from .matching_comparison import MatchingComparison
from .matching_writer import MatchingWriter
from .prediction_writer import PredictionWriter

__all__ = [
    "BaselineComparison",
    "CommunityWriter",
    "FiniteLoss",
    "HomogeneousBias",
    "InterpolationBias",
    "MarginBias",
    "MatchingComparison",
    "MatchingWriter",
    "NonFiniteLossError",
    "PredictionWriter",
]
