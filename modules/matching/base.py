"""Pairs of graphs, and the common interface of learned networks and solvers that match them."""

from abc import ABC, abstractmethod
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

__all__ = ["GraphPairs", "Graphs", "MatchingNetwork", "Refiner"]


class Graphs:
    """The B graphs on one side of a batch of pairs: given sparse or dense, turned into the other where asked for.

    Args:
        sizes: Nodes of each graph, (B,) int64.
        sparse: All graphs as one PyG graph with ``edge_index`` (2, E) int64 (both directions of every edge, sorted by
            (row, column), no loops or repeats), ``batch`` (sum of sizes,), ``num_nodes`` and ``num_graphs``.
        dense: Adjacency or weight matrices, (B, N, N) float with N the largest size, zero beyond a graph's own size.

    Raises:
        ValueError: If neither form is given, or the matrices have not the size of the largest graph.
    """

    def __init__(self, sizes: Tensor, sparse: Data | None = None, dense: Tensor | None = None) -> None:
        if sparse is None and dense is None:
            msg = "Graphs: give the graphs sparse or dense."
            raise ValueError(msg)
        shape = (len(sizes), int(sizes.max()), int(sizes.max()))
        if dense is not None and dense.shape != shape:
            msg = (
                f"Graphs: the matrices have shape {tuple(dense.shape)}; {len(sizes)} graphs of up to {shape[1]} nodes "
                f"need {shape}; give each graph's own size, and pad the smaller ones with zeros."
            )
            raise ValueError(msg)
        self.sizes = sizes
        self._sparse = sparse
        self._dense = dense

    @property
    def max_size(self) -> int:
        """Nodes of the largest graph, N."""
        return int(self.sizes.max())

    @property
    def padded(self) -> bool:
        """Whether the graphs differ in size."""
        return bool((self.sizes != self.sizes[0]).any())

    @property
    def node_mask(self) -> Tensor:
        """Which of the N places of each graph are nodes, (B, N) bool."""
        return torch.arange(self.max_size, device=self.sizes.device) < self.sizes.unsqueeze(1)

    @property
    def dense(self) -> Tensor:
        """The adjacency or weight matrices, (B, N, N) float, zero beyond a graph's own size."""
        if self._dense is None:
            assert self._sparse is not None
            source, target = self._sparse.edge_index  # pyright: ignore[reportGeneralTypeIssues]
            starts = self.sizes.cumsum(0) - self.sizes
            graph = self._sparse.batch[source]  # pyright: ignore[reportOptionalSubscript]
            self._dense = torch.zeros(len(self.sizes), self.max_size, self.max_size, device=self.sizes.device)
            self._dense[graph, source - starts[graph], target - starts[graph]] = 1.0
        return self._dense

    @property
    def sparse(self) -> Data:
        """All graphs as one PyG graph; an edge wherever the matrix is not zero off the diagonal."""
        if self._sparse is None:
            assert self._dense is not None
            edges = self._dense != 0
            edges.diagonal(dim1=1, dim2=2).fill_(False)
            graph, source, target = edges.nonzero(as_tuple=True)
            starts = self.sizes.cumsum(0) - self.sizes
            numbers = torch.arange(len(self.sizes), device=self.sizes.device)
            self._sparse = Data(
                edge_index=torch.stack([source + starts[graph], target + starts[graph]]),
                batch=torch.repeat_interleave(numbers, self.sizes),
                num_nodes=int(self.sizes.sum()),
                num_graphs=len(self.sizes),
            )
        return self._sparse

    def to(self, device: Any, non_blocking: bool = False) -> "Graphs":
        """Copy to a device."""
        moved = copy(self)
        moved.sizes = self.sizes.to(device, non_blocking=non_blocking)
        if self._sparse is not None:
            moved._sparse = copy(self._sparse).to(device, non_blocking=non_blocking)
        if self._dense is not None:
            moved._dense = self._dense.to(device, non_blocking=non_blocking)
        return moved


class GraphPairs:
    r"""A batch of B pairs of graphs to match.

    A matching maps node i of the first graph to node p(i) of the second. For weight matrices A and B its objective is
    :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}`: twice the number of common edges of 0/1 graphs.

    Args:
        first: The first graph of each pair.
        second: The second graph of each pair, none smaller than its partner.
        permutation: The planted matching, (B, N1) int64 with N1 the largest first graph; -1 beyond a graph's size.
            ``None`` where there is none.
        sample_id: Number of each pair in its split, (B,) int64; by default the place in the batch.
        noise: Noise level of each pair, (B,) float32, by which measurements group.
        minimize: Whether a small objective is wanted, as in quadratic assignment problems, not a large one.
        best_known: Best objective known of each pair, (B,) float64.

    Raises:
        ValueError: If the sides differ in number, or a first graph is larger than its partner.
    """

    def __init__(
        self,
        first: Graphs,
        second: Graphs,
        permutation: Tensor | None = None,
        sample_id: Tensor | None = None,
        noise: Tensor | None = None,
        minimize: bool = False,
        best_known: Tensor | None = None,
    ) -> None:
        if len(first.sizes) != len(second.sizes):
            msg = f"GraphPairs: {len(first.sizes)} first and {len(second.sizes)} second graphs; give as many of each."
            raise ValueError(msg)
        if bool((first.sizes > second.sizes).any()):
            pair = int((first.sizes > second.sizes).nonzero()[0])
            msg = (
                f"GraphPairs: in pair {pair} the first graph has {int(first.sizes[pair])} nodes, the second "
                f"{int(second.sizes[pair])}; give the smaller graph first."
            )
            raise ValueError(msg)
        self.first = first
        self.second = second
        self.permutation = permutation
        self.sample_id = torch.arange(len(first.sizes)) if sample_id is None else sample_id
        self.noise = noise
        self.minimize = minimize
        self.best_known = best_known

    @classmethod
    def from_dense(
        cls, first: Tensor, second: Tensor, permutation: Tensor | None = None, **kwargs: Any
    ) -> "GraphPairs":
        """Pair matrices of equal size, (B, n, n) each."""
        sizes = [torch.full((len(side),), side.shape[1], device=side.device) for side in (first, second)]
        return cls(Graphs(sizes[0], dense=first), Graphs(sizes[1], dense=second), permutation, **kwargs)

    @property
    def num_pairs(self) -> int:
        """Number of pairs B."""
        return len(self.first.sizes)

    @property
    def mask(self) -> Tensor | None:
        """Which entries of the scores belong to nodes, (B, N1, N2) bool; ``None`` if all do."""
        if not (self.first.padded or self.second.padded):
            return None
        return self.first.node_mask.unsqueeze(2) & self.second.node_mask.unsqueeze(1)

    def to(self, device: Any, non_blocking: bool = False) -> "GraphPairs":
        """Copy to a device."""
        tensors = [
            None if tensor is None else tensor.to(device, non_blocking=non_blocking)
            for tensor in (self.permutation, self.sample_id, self.noise, self.best_known)
        ]
        first, second = self.first.to(device, non_blocking), self.second.to(device, non_blocking)
        return GraphPairs(first, second, *tensors[:3], minimize=self.minimize, best_known=tensors[3])


class MatchingNetwork(nn.Module, ABC):
    """Anything that scores how well each node of the first graph matches each node of the second.

    A learned network, or a solver that needs no training; a solver that finds a permutation gives its matrix.
    """

    @property
    def name(self) -> str:
        """What tables call it."""
        return type(self).__name__

    @abstractmethod
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Score the matches.

        Args:
            pairs: The pairs; N1 and N2 are the largest sizes of the first and the second graphs.

        Returns:
            Real scores, (B, N1, N2), higher for a better match. What stands beyond a graph's own size means nothing;
            what stands within does not depend on it.
        """

    def readouts(self, pairs: GraphPairs) -> list[Tensor]:
        """Give the scores that training compares with the planted matching: the last those of :meth:`forward`.

        Returns:
            At least one tensor of scores, (B, N1, N2) each.
        """
        return [self(pairs)]


class Refiner(MatchingNetwork):
    """A method that improves given scores; on its own it starts from scores that know nothing."""

    @abstractmethod
    def refine(self, pairs: GraphPairs, scores: Tensor) -> Tensor:
        """Improve scores.

        Args:
            pairs: The pairs.
            scores: As :meth:`MatchingNetwork.forward` gives them, (B, N1, N2).

        Returns:
            Scores of the same shape.
        """

    def forward(self, pairs: GraphPairs) -> Tensor:
        """Start from nothing, see :meth:`MatchingNetwork.forward`."""
        shape = (pairs.num_pairs, pairs.first.max_size, pairs.second.max_size)
        return self.refine(pairs, torch.zeros(shape, device=pairs.first.sizes.device))
