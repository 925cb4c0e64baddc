"""What is trained: LightningModules, their networks, and baselines that need no training."""

from .base import Task
from .optimizers import Muon

__all__ = ["Muon", "Task"]
