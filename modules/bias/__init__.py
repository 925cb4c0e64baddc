"""Which of many solutions an optimizer picks: optimizers with a geometry, homogeneous predictors, exact references."""

from .losses import log_exponential_loss, log_logistic_loss, log_loss, soft_margins, squared_loss
from .optimizers import MirrorDescent, SteepestDescent
from .potentials import CustomPotential, Entropy, Hypentropy, LpPotential, Potential, SimplexEntropy
from .predictors import (
    CircularConvolution,
    Dense,
    DiagonalProduct,
    FullyConnected,
    LinearPredictor,
    MatrixFactorization,
    PowerDifference,
    Predictor,
)
from .relu_networks import ReLUConvNetwork, ReLUNetwork
from .task import ImplicitBias, Problems

__all__ = [
    "CircularConvolution",
    "CustomPotential",
    "Dense",
    "DiagonalProduct",
    "Entropy",
    "FullyConnected",
    "Hypentropy",
    "ImplicitBias",
    "LinearPredictor",
    "LpPotential",
    "MatrixFactorization",
    "MirrorDescent",
    "Potential",
    "PowerDifference",
    "Predictor",
    "Problems",
    "ReLUConvNetwork",
    "ReLUNetwork",
    "SimplexEntropy",
    "SteepestDescent",
    "log_exponential_loss",
    "log_logistic_loss",
    "log_loss",
    "soft_margins",
    "squared_loss",
]
