"""Matching by hand-made features of the nodes: the untrained method that a learned one must beat."""

import torch
from torch import Tensor

from .base import GraphPairs, Graphs, MatchingNetwork

__all__ = ["HandmadeFeatures", "node_features"]


def node_features(graphs: Graphs, walks: int = 8) -> Tensor:
    r"""Count walks and neighbourhoods of every node.

    With d the degrees and :math:`\\bar A = A / \\sqrt{\\text{mean degree}}`, the features of node i are: d_i; for
    k = 1 .. ``walks``, :math:`(\\bar A^k d)_i` and, for k >= 2, :math:`(\\bar A^k)_{ii}`; the row sums of min(1, A^2)
    and min(1, A^3).

    Args:
        graphs: B graphs of at most N nodes.
        walks: Longest walk.

    Returns:
        Features, (B, N, 2 walks + 2) float64; zero beyond a graph's size.
    """
    adjacency = (graphs.dense != 0).double()
    degree = adjacency.sum(2)
    mean_degree = (degree.sum(1) / graphs.sizes).clamp(min=1e-12)
    scaled = adjacency / mean_degree.sqrt()[:, None, None]
    features, power, walk = [degree], scaled, degree
    for k in range(1, walks + 1):
        walk = (scaled @ walk.unsqueeze(2)).squeeze(2)
        features.append(walk)
        if k >= 2:
            power = power @ scaled
            features.append(power.diagonal(dim1=1, dim2=2))
    two = (adjacency @ adjacency).clamp(max=1)
    three = (adjacency @ adjacency @ adjacency).clamp(max=1)
    return torch.stack([*features, two.sum(2), three.sum(2)], dim=2)


class HandmadeFeatures(MatchingNetwork):
    """Score a match by the distance of the nodes' features, without training.

    Every feature (see :func:`node_features`) is standardised over the nodes of both graphs of a pair; the score is the
    negative squared Euclidean distance. O(walks n^3) time a pair.

    Args:
        walks: Longest walk counted.

    Raises:
        ValueError: If ``walks`` is below 2.
    """

    def __init__(self, walks: int = 8) -> None:
        super().__init__()
        if walks < 2:
            msg = f"HandmadeFeatures(walks={walks}): must be at least 2, the shortest closed walk."
            raise ValueError(msg)
        self.walks = walks

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give negative squared distances, (B, N1, N2) float64."""
        sides = [(node_features(side, self.walks), side.node_mask.unsqueeze(2)) for side in (pairs.first, pairs.second)]
        count = sum(side.sizes for side in (pairs.first, pairs.second))[:, None, None]  # pyright: ignore[reportIndexIssue]
        mean = sum((values * nodes).sum(1, keepdim=True) for values, nodes in sides) / count
        centered = [(values - mean) * nodes for values, nodes in sides]
        deviation = (sum(values.square().sum(1, keepdim=True) for values in centered) / count).sqrt()  # pyright: ignore[reportAttributeAccessIssue]
        # A feature that is constant, as every degree of a regular graph, differs by rounding only.
        used = deviation > 1e-9 * mean.abs()  # pyright: ignore[reportAttributeAccessIssue]
        first, second = (torch.where(used, values / deviation.clamp(min=1e-300), 0.0) for values in centered)
        return -torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").square()
