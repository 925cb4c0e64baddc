"""Networks in a chain: each refines the matching of the one before."""

import torch
from torch import Tensor, nn

from .assignment import assign
from .base import GraphPairs, MatchingNetwork
from .metrics import common_edges, permute_second

__all__ = ["Chained", "matching_ranks"]


def matching_ranks(matching: Tensor, pairs: GraphPairs) -> tuple[Tensor, Tensor]:
    r"""Rank the nodes by how many edges a matching preserves at them, so that matched nodes have the same rank.

    Node i of the first graph keeps :math:`\sum_j A_{ij} B_{p(i) p(j)}` edges. The one that keeps most has rank 1, the
    others follow in steps of 1/n; nodes of a larger second graph that nothing is matched to have rank 0.

    Args:
        matching: Node of the second graph for each of the first, (B, N1) int64; -1 beyond a graph's size.
        pairs: The pairs.

    Returns:
        Ranks in [0, 1] of the nodes of the first and of the second graphs, (B, N1) and (B, N2) float32.
    """
    nodes = pairs.first.node_mask
    images = matching.clamp(min=0)
    second = pairs.second.dense
    kept = (pairs.first.dense * permute_second(matching, pairs)).sum(2).masked_fill(~nodes, -1.0)
    order = kept.argsort(dim=1, descending=True, stable=True)
    steps = torch.arange(kept.shape[1], device=kept.device).expand_as(order)
    places = torch.empty_like(order).scatter_(1, order, steps)
    first = (1 - places / pairs.first.sizes.unsqueeze(1)).masked_fill(~nodes, 0.0)
    ranks = torch.zeros(len(second), second.shape[1], device=kept.device)
    return first, ranks.scatter_reduce_(1, images, first, "amax")


class Chained(MatchingNetwork):
    r"""A chain of networks, each of which sees how well every node fits in the matching of the one before.

    From `"Chaining graph neural networks for graph alignment" <https://arxiv.org/abs/2510.03086>`_ (Lelarge 2025): the
    scores are projected to a matching, the nodes ranked by the edges it preserves (:func:`matching_ranks`), and the
    next network takes the ranks as input. The last network may be applied again and again. Of all matchings the one
    with most common edges (least cost, where the pairs want a small objective) counts; no label is needed for that.

    In training every network learns from the matchings that those before it make at that moment (the paper trains them
    one after another); no gradient passes through a matching.

    Args:
        networks: The first takes no ranks (``rank: false``), the others do (``rank: true``).
        loops: How often the last network is applied, outside of training.

    Raises:
        ValueError: If there is no network, one of them has the wrong ``rank``, or ``loops`` is below 1.
    """

    def __init__(self, networks: list[MatchingNetwork], loops: int = 1) -> None:
        super().__init__()
        if not networks:
            msg = "Chained(networks=[]): give at least one network."
            raise ValueError(msg)
        for number, network in enumerate(networks):
            if bool(getattr(network, "rank", False)) != (number > 0):
                msg = (
                    f"Chained: network {number} ({type(network).__name__}) must have rank={str(number > 0).lower()}: "
                    "the first has no matching to look at, the others do."
                )
                raise ValueError(msg)
        if loops < 1:
            msg = f"Chained(loops={loops}): the last network must be applied at least once."
            raise ValueError(msg)
        self.networks = nn.ModuleList(networks)
        self.loops = loops

    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the scores of the network whose matching preserves most edges, for each pair, (B, N1, N2)."""
        best, most = None, None
        for scores, matching in self._stages(pairs, self.loops):
            edges = common_edges(matching, pairs)
            edges = -edges if pairs.minimize else edges
            if best is None or most is None:
                best, most = scores, edges
                continue
            better = edges > most
            best, most = torch.where(better[:, None, None], scores, best), torch.where(better, edges, most)
        assert best is not None
        return best

    def readouts(self, pairs: GraphPairs) -> list[Tensor]:
        """Give the scores of every network of the chain."""
        return [scores for scores, _ in self._stages(pairs, 1)]

    def _stages(self, pairs: GraphPairs, loops: int) -> list[tuple[Tensor, Tensor]]:
        """Give the scores of every application of a network, with their matching."""
        scores = self.networks[0](pairs)
        stages = [(scores, assign(scores.detach(), pairs))]
        following = list(self.networks[1:])
        following += following[-1:] * (loops - 1)
        for network in following:
            scores = network(pairs, matching_ranks(stages[-1][1], pairs))
            stages.append((scores, assign(scores.detach(), pairs)))
        return stages
