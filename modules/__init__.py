"""What is trained: LightningModules, their networks, and baselines that need no training."""

from .base import Task

__all__ = ["Task"]
