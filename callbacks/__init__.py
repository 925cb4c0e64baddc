"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .community_writer import CommunityWriter
from .finite_loss import FiniteLoss, NonFiniteLossError
<<<<<<< HEAD
from .margins import Margins
=======
from .homogeneous_bias import HomogeneousBias
from .interpolation_bias import InterpolationBias
from .margin_bias import MarginBias
>>>>>>> bias
from .matching_comparison import MatchingComparison
from .matching_writer import MatchingWriter
from .prediction_writer import PredictionWriter
from .robust_accuracy import RobustAccuracy

__all__ = [
    "BaselineComparison",
    "CommunityWriter",
    "FiniteLoss",
<<<<<<< HEAD
    "Margins",
=======
    "HomogeneousBias",
    "InterpolationBias",
    "MarginBias",
>>>>>>> bias
    "MatchingComparison",
    "MatchingWriter",
    "NonFiniteLossError",
    "PredictionWriter",
    "RobustAccuracy",
]
