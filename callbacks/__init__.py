"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .certified_accuracy import CertifiedAccuracy
from .community_writer import CommunityWriter
from .direction_convergence import DirectionConvergence
from .energy_gap import EnergyGap
from .finite_loss import FiniteLoss, NonFiniteLossError
from .geodesic_path import GeodesicPath
from .homogeneous_bias import HomogeneousBias
from .interpolation_bias import InterpolationBias
from .level_set_components import LevelSetComponents
from .level_set_geodesics import LevelSetGeodesics
from .level_set_snapshots import LevelSetSnapshots
from .level_set_theorems import LevelSetTheorems
from .loss_based_learning_rate import LossBasedLearningRate
from .margin_bias import MarginBias
from .margins import Margins
from .matching_comparison import MatchingComparison
from .matching_writer import MatchingWriter
from .prediction_writer import PredictionWriter
from .radius_warm_up import RadiusWarmUp
from .relabeled_report import RelabeledReport
from .robust_accuracy import RobustAccuracy
from .transferability import Transferability

__all__ = [
    "BaselineComparison",
    "CertifiedAccuracy",
    "CommunityWriter",
    "DirectionConvergence",
    "EnergyGap",
    "FiniteLoss",
    "GeodesicPath",
    "HomogeneousBias",
    "InterpolationBias",
    "LevelSetComponents",
    "LevelSetGeodesics",
    "LevelSetSnapshots",
    "LevelSetTheorems",
    "LossBasedLearningRate",
    "MarginBias",
    "Margins",
    "MatchingComparison",
    "MatchingWriter",
    "NonFiniteLossError",
    "PredictionWriter",
    "RadiusWarmUp",
    "RelabeledReport",
    "RobustAccuracy",
    "Transferability",
]
