"""What is measured: callbacks that work on any LightningModule."""

from .baseline_comparison import BaselineComparison
from .finite_loss import FiniteLoss, NonFiniteLossError

__all__ = ["BaselineComparison", "FiniteLoss", "NonFiniteLossError"]
