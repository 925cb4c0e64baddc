"""The folklore graph network on pairs of nodes, as powerful as the two-dimensional folklore Weisfeiler-Leman test."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import GraphPairs, Graphs, MatchingNetwork
from .siamese import check_width, ranked_sides

__all__ = ["FGNN"]


class _PairMLP(nn.Module):
    """The same perceptron on every pair of nodes: (B, f, N, N) to (B, f', N, N), ReLU between its layers.

    Args:
        features: Widths from the input to the output.
    """

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(features))

    def forward(self, *parts: Tensor) -> Tensor:
        """Apply to the parts stacked along the features, without stacking them."""
        shape = parts[0].shape
        first, *others = cast("list[nn.Linear]", list(self.layers))
        split = first.weight.split([part.shape[1] for part in parts], dim=1)
        terms = [(part.flatten(2), weight) for part, weight in zip(parts, split, strict=True)]
        h = self._affine(*terms[0], first.bias)
        for part, weight in terms[1:]:
            h = h + self._affine(part, weight)
        for layer in others:
            h = self._affine(F.relu(h), layer.weight, layer.bias)
        return h.view(shape[0], -1, *shape[2:])

    @staticmethod
    def _affine(h: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        weights = weight.expand(len(h), -1, -1)
        return torch.bmm(weights, h) if bias is None else torch.baddbmm(bias.unsqueeze(1), weights, h)


class _Block(nn.Module):
    r"""One folklore layer, :math:`h' = m_3([m_1(h) \cdot m_2(h), h])` with a matrix product in every feature.

    Args:
        in_features: Features of h.
        width: Features of h'.
        depth: Layers of each perceptron.
    """

    def __init__(self, in_features: int, width: int, depth: int) -> None:
        super().__init__()
        self.left = _PairMLP([in_features, *[width] * depth])
        self.right = _PairMLP([in_features, *[width] * depth])
        self.norm = nn.InstanceNorm2d(width, affine=True)
        self.out = _PairMLP([width + in_features, *[width] * depth])

    def forward(self, h: Tensor, mask: Tensor | None) -> Tensor:
        left, right = self.left(h), self.right(h)
        if mask is None:
            return self.out(self.norm(left @ right), h)
        product = (left * mask) @ (right * mask)
        return self.out(self._masked_norm(product, mask), h)

    def _masked_norm(self, h: Tensor, mask: Tensor) -> Tensor:
        count = mask.sum((2, 3), keepdim=True)
        centered = (h - (h * mask).sum((2, 3), keepdim=True) / count) * mask
        variance = centered.square().sum((2, 3), keepdim=True) / count
        scale = self.norm.weight[:, None, None] * (variance + self.norm.eps).rsqrt()
        return centered * scale + self.norm.bias[:, None, None]


class FGNN(MatchingNetwork):
    r"""Folklore graph network (2-FGNN) on both graphs, with the same weights.

    From `"Provably powerful graph networks" <https://arxiv.org/abs/1905.11136>`_ (Maron et al. 2019) and `"Expressive
    power of invariant and equivariant graph neural networks" <https://arxiv.org/abs/2006.15646>`_ (Azizian and Lelarge
    2021). With h (f, N, N) the features of the pairs of nodes of one graph, a block is

    .. math:: h' = m_3\big([\,m_1(h) \cdot m_2(h),\; h\,]\big)

    with a matrix product in every feature and perceptrons :math:`m_i` on every pair. The input is the adjacency matrix
    and the degrees on the diagonal; a node's embedding is the maximum over its row; the score of a match is the scalar
    product of the embeddings, divided by :math:`\sqrt f`. Each product is normalised to mean 0 and variance 1 over the
    pairs of a graph, so that scores do not grow with N. O(f N^3 + f^2 N^2) time and O(f N^2) memory a graph.

    Args:
        width: Features f.
        blocks: Number of blocks.
        mlp_depth: Layers of each perceptron.
        rank: Take the rank of each node in an earlier matching as a further input, on the diagonal (see
            :class:`Chained`).

    Raises:
        ValueError: If a size is out of range.
    """

    def __init__(self, width: int = 32, blocks: int = 4, mlp_depth: int = 3, rank: bool = False) -> None:
        super().__init__()
        check_width("FGNN", width=width, blocks=blocks, mlp_depth=mlp_depth)
        self.width = width
        self.rank = rank
        features = [3 if rank else 2, *[width] * blocks]
        self.blocks = nn.ModuleList(_Block(a, b, mlp_depth) for a, b in pairwise(features))

    def forward(self, pairs: GraphPairs, ranks: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Score the matches, (B, N1, N2), see :meth:`MatchingNetwork.forward`.

        Args:
            pairs: The pairs.
            ranks: With ``rank``: rank in [0, 1] of each node of the first and the second graphs, (B, N1) and (B, N2).
        """
        first, second = (self.embed(*side) for side in ranked_sides(pairs, ranks, wanted=self.rank))
        return first.transpose(1, 2) @ second / self.width**0.5

    def embed(self, graphs: Graphs, rank: Tensor | None = None) -> Tensor:
        """Embed the nodes of one side, (B, f, N)."""
        adjacency = graphs.dense.to(next(self.parameters()).dtype)
        degree = adjacency.sum(2)
        mean_degree = degree.sum(1, keepdim=True) / graphs.sizes.unsqueeze(1)
        diagonals = [degree / mean_degree.clamp(min=1)] + ([] if rank is None else [rank.to(degree.dtype)])
        h = torch.stack([adjacency, *(torch.diag_embed(values) for values in diagonals)], dim=1)
        nodes = graphs.node_mask if graphs.padded else None
        mask = None if nodes is None else (nodes.unsqueeze(1) & nodes.unsqueeze(2)).unsqueeze(1).to(h.dtype)
        for block in self.blocks:
            h = block(h, mask)
        if nodes is not None:
            h = h.masked_fill(~nodes[:, None, None, :], -torch.inf)
        return h.amax(3) if nodes is None else h.amax(3).masked_fill(~nodes.unsqueeze(1), 0.0)
