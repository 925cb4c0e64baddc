"""A network whose scores are refined."""

from collections.abc import Sequence

from torch import Tensor, nn

from .base import GraphPairs, MatchingNetwork, Refiner

__all__ = ["Refined", "refine", "refined_name"]


def refine(pairs: GraphPairs, scores: Tensor, refiners: Sequence[Refiner]) -> Tensor:
    """Apply refiners one after another to scores (B, N1, N2)."""
    for refiner in refiners:
        scores = refiner.refine(pairs, scores)
    return scores


def refined_name(name: str, refiners: Sequence[Refiner]) -> str:
    """Name a refined method."""
    return " + ".join([name, *(refiner.name for refiner in refiners)])


class Refined(MatchingNetwork):
    """A network, and methods that refine its scores one after another. Only the network is trained.

    Args:
        network: Gives the scores to start from.
        refiners: For example :class:`GraduatedAssignment`, then :class:`FAQ`.
    """

    def __init__(self, network: MatchingNetwork, refiners: list[Refiner]) -> None:
        super().__init__()
        self.network = network
        self.refiners = nn.ModuleList(refiners)

    @property
    def name(self) -> str:
        """What tables call it."""
        return refined_name(self.network.name, list(self.refiners))  # pyright: ignore[reportArgumentType]

    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the refined scores, (B, N1, N2)."""
        return refine(pairs, self.network(pairs), list(self.refiners))  # pyright: ignore[reportArgumentType]

    def readouts(self, pairs: GraphPairs) -> list[Tensor]:
        """Give the scores of the network, which is what is trained."""
        return self.network.readouts(pairs)
