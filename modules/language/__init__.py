"""Language models: what comes next in a text."""

from .network import LSTMNetwork
from .task import IGNORED, LanguageModel

__all__ = ["IGNORED", "LSTMNetwork", "LanguageModel"]
