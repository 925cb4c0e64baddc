"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .community_writer import CommunityWriter
from .finite_loss import FiniteLoss, NonFiniteLossError
from .geodesic_path import GeodesicPath
from .level_set_geodesics import LevelSetGeodesics
from .level_set_snapshots import LevelSetSnapshots
from .level_set_theorems import LevelSetTheorems
from .matching_comparison import MatchingComparison
from .matching_writer import MatchingWriter
from .prediction_writer import PredictionWriter

__all__ = [
    "BaselineComparison",
    "CommunityWriter",
    "FiniteLoss",
    "GeodesicPath",
    "LevelSetGeodesics",
    "LevelSetSnapshots",
    "LevelSetTheorems",
    "MatchingComparison",
    "MatchingWriter",
    "NonFiniteLossError",
    "PredictionWriter",
]
