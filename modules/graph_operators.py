r"""Sparse graph operators as differentiable linear maps: O(edges) time and memory, no matrix of the line graph.

With S and T the tail and head incidence matrices (N, E) of the E = 2m directed edges and Rev the reversal of an edge,
the operators of `"Supervised Community Detection with Line Graph Neural Networks"
<https://arxiv.org/abs/1705.08415>`_ are

.. math:: A = S T^T, \quad P_m = S + T, \quad P_d = S - T, \quad B = T^T S - \mathrm{Rev},

so each is a few gathers and segment sums. Every map carries its adjoint, hence its gradient costs what it costs itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch_geometric.data import Data

Map = Callable[[Tensor], Tensor]


def graph_ids(graph: Data) -> tuple[Tensor, int]:
    """Give the graph number of every node, (N,) int64, and the number of graphs."""
    num_nodes = int(graph.num_nodes or 0)
    batch = getattr(graph, "batch", None)
    if batch is None:
        return torch.zeros(num_nodes, dtype=torch.long, device=graph.edge_index.device), 1  # pyright: ignore[reportOptionalMemberAccess]
    return batch, int(graph.num_graphs)


class _LinearMap(torch.autograd.Function):
    """Apply a linear map whose gradient is its adjoint, itself a linear map, so every order of derivative exists."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward_map: Map, adjoint_map: Map) -> Tensor:
        ctx.maps = forward_map, adjoint_map
        return forward_map(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        forward_map, adjoint_map = ctx.maps
        return _LinearMap.apply(grad, adjoint_map, forward_map), None, None  # pyright: ignore[reportReturnType]


def linear_map(x: Tensor, forward_map: Map, adjoint_map: Map) -> Tensor:
    """Compute ``forward_map(x)``, differentiated through ``adjoint_map`` instead of through its operations."""
    return _LinearMap.apply(x, forward_map, adjoint_map)  # pyright: ignore[reportReturnType]


def gather_sum(x: Tensor, columns: Tensor, pointers: Tensor) -> Tensor:
    """Multiply a 0/1 matrix in compressed-row form with x.

    Row i of the product is the sum of ``x[columns[pointers[i]:pointers[i+1]]]``.

    Args:
        x: (M, d).
        columns: Column numbers in row order, (nnz,) int64.
        pointers: Row starts, (R + 1,) int64.

    Returns:
        The product, (R, d); zero for empty rows.
    """
    if columns.numel() == 0:
        return x.new_zeros(pointers.numel() - 1, x.shape[1])
    return F.embedding_bag(columns, x, pointers, mode="sum", include_last_offset=True)


def row_pointers(rows: Tensor, num_rows: int) -> Tensor:
    """Give the row starts, (num_rows + 1,) int64, of entries with sorted row numbers (nnz,)."""
    pointers = rows.new_zeros(num_rows + 1)
    torch.cumsum(torch.bincount(rows, minlength=num_rows), 0, out=pointers[1:])
    return pointers


#: Walks that are joined at a time: enough to amortise the calls, few enough to stay in the cache.
_WALKS_AT_A_TIME = 1 << 20


def _two_step_walks(columns: Tensor, pointers: Tensor) -> Iterator[Tensor]:
    """Yield the two-step walks of a square 0/1 matrix as sorted keys start * n + end, in blocks of whole rows."""
    num_rows = pointers.numel() - 1
    row_sizes = pointers[1:] - pointers[:-1]
    counts = row_sizes[columns]
    walks = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # walks before each entry
    first = 0
    while first < num_rows:
        limit = walks[pointers[first]] + _WALKS_AT_A_TIME
        last = max(first + 1, int(torch.searchsorted(walks[pointers], limit, right=True)) - 1)
        entries = slice(int(pointers[first]), int(pointers[last]))
        number = counts[entries]
        total = int(walks[entries.stop] - walks[entries.start])
        rows = torch.repeat_interleave(
            torch.arange(first, last, device=columns.device), row_sizes[first:last], output_size=number.numel()
        )
        # The walks of one entry are consecutive: number w of all is at place w - (first of its entry) in its row.
        shift = pointers[columns[entries]] - (walks[entries] - walks[entries.start])
        places = torch.arange(total, device=columns.device)
        places += torch.repeat_interleave(shift, number, output_size=total)
        keys = torch.repeat_interleave(rows * num_rows, number, output_size=total).add_(columns[places])
        yield keys.sort().values
        first = last


def clipped_square(columns: Tensor, pointers: Tensor) -> tuple[Tensor, Tensor]:
    """Square a square 0/1 matrix and clip the entries at one, all sparse.

    Args:
        columns: Column numbers in row order, (nnz,) int64.
        pointers: Row starts, (n + 1,) int64.

    Returns:
        Columns and row starts of ``min(1, M @ M)``, columns sorted within a row.
    """
    num_rows = pointers.numel() - 1
    keys = torch.cat([columns.new_zeros(0), *(k.unique_consecutive() for k in _two_step_walks(columns, pointers))])
    return keys % num_rows, row_pointers(keys // num_rows, num_rows)


def square_excess(columns: Tensor, pointers: Tensor) -> tuple[Tensor, Tensor]:
    """Give what the clip takes away outside of the diagonal, ``M @ M - min(1, M @ M)``.

    In a sparse random graph two nodes rarely have two common neighbours, so this has far fewer entries than the square.

    Args:
        columns: Column numbers of a 0/1 matrix M in row order, (nnz,) int64.
        pointers: Row starts, (n + 1,) int64.

    Returns:
        Columns and row starts; an entry of value v stands v times.
    """
    num_rows = pointers.numel() - 1
    repeats = [columns.new_zeros(0)]
    for keys in _two_step_walks(columns, pointers):
        again = keys[1:][keys[1:] == keys[:-1]]
        repeats.append(again[again // num_rows != again % num_rows])
    keys = torch.cat(repeats)
    return keys % num_rows, row_pointers(keys // num_rows, num_rows)


class GraphOperators:
    """The operators of one batch of graphs, built once and used by every layer.

    Args:
        graph: Batch with ``edge_index`` (2, E) in both directions, sorted by (row, column), no loops or repeats.
        power: J, the number of clipped adjacency powers A_0 .. A_{J-1}, with A_j = min(1, A^(2^j)).
        line_graph: Whether the operators of the line graph and the exchange between nodes and edges will be used.
        dtype: Type of the degrees.

    Attributes:
        degree: Degree of every node, (N, 1) float.
        nodes: The nodes of each graph; with ``line_graph`` also ``edges``, the directed edges of each graph.
        line_degree: Row sums of B, deg(head) - 1, (E, 1) float; with ``line_graph`` only.

    Raises:
        ValueError: If the edges are not sorted or lack a direction.
    """

    def __init__(
        self, graph: Data, power: int, *, line_graph: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        edge_index = graph.edge_index
        if edge_index is None:
            msg = "GraphOperators: the graph has no edge_index; give the edges as an int64 tensor of shape (2, E)."
            raise ValueError(msg)
        self.num_nodes = int(graph.num_nodes or 0)
        self.source, self.target = edge_index[0], edge_index[1]
        self.pointers = row_pointers(self.source, self.num_nodes)
        self.degree = (self.pointers[1:] - self.pointers[:-1]).to(dtype).unsqueeze(1)
        node_graph, num_graphs = graph_ids(graph)
        self.nodes = Segments(node_graph, num_graphs)
        self._excess = square_excess(self.target, self.pointers) if power > 1 else None
        self._returns = (self.degree - 1).clamp_(min=0)
        self._high_powers: list[tuple[Tensor, Tensor]] = []
        if power > 2:
            matrix = clipped_square(self.target, self.pointers)
            for _ in range(2, power):
                matrix = clipped_square(*matrix)
                self._high_powers.append(matrix)
        if line_graph:
            self.reverse = reverse_edges(edge_index, self.num_nodes)
            self._edges = torch.arange(self.source.numel(), device=edge_index.device)
            self.line_degree = self.degree[self.target] - 1
            self.edges = Segments(node_graph[self.source], num_graphs)
            self._line_powers = self._high_line_powers(power)

    def adjacency(self, x: Tensor) -> Tensor:
        """Compute A x for node features x, (N, d)."""
        return self._symmetric(x, self.target, self.pointers)

    def adjacency_powers(self, x: Tensor) -> list[Tensor]:
        """Compute A_0 x, ..., A_{J-1} x for node features x, (N, d) each.

        A_1 = min(1, A^2) is A applied twice, less the walks back (D - 1 of them on the diagonal) and the few walks
        between two nodes beyond the first; the higher powers are explicit sparse matrices.
        """
        results = [self.adjacency(x)]
        if self._excess is not None:
            twice = torch.addcmul(self.adjacency(results[0]), self._returns, x, value=-1)
            results.append(twice - self._symmetric(x, *self._excess))
        return results + [self._symmetric(x, *matrix) for matrix in self._high_powers]

    @staticmethod
    def _symmetric(x: Tensor, columns: Tensor, pointers: Tensor) -> Tensor:
        def apply(v: Tensor) -> Tensor:
            return gather_sum(v, columns, pointers)

        return linear_map(x, apply, apply)

    def _tails(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.source)

    def _heads(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.target)

    def _sum_tails(self, y: Tensor) -> Tensor:
        return gather_sum(y, self._edges, self.pointers)

    def _sum_heads(self, y: Tensor) -> Tensor:
        return gather_sum(y, self.reverse, self.pointers)

    def edge_terms(self, y: Tensor) -> Tensor:
        """Compute [y, Rev y, D_B y]: all that is mixed on the edges. (E, d) to (E, 3 d)."""
        width = y.shape[1]

        def forward_map(v: Tensor) -> Tensor:
            terms = v.new_empty(len(v), 3 * width)
            terms[:, :width] = v
            terms[:, width : 2 * width] = v.index_select(0, self.reverse)
            torch.mul(v, self.line_degree, out=terms[:, 2 * width :])
            return terms

        def adjoint_map(g: Tensor) -> Tensor:
            own, reverse, degree = g.split(width, dim=1)
            return torch.addcmul(own, degree, self.line_degree).add_(reverse.index_select(0, self.reverse))

        return linear_map(y, forward_map, adjoint_map)

    def sum_tails(self, y: Tensor) -> Tensor:
        """Compute S y: sum the features of the edges that leave each node. (E, d) to (N, d)."""
        return linear_map(y, self._sum_tails, self._tails)

    def spread_ends(self, x: Tensor) -> Tensor:
        """Compute S^T u + T^T v for x = [u, v]: what each edge gets from its tail and its head. (N, 2 d) to (E, d)."""
        width = x.shape[1] // 2

        def forward_map(v: Tensor) -> Tensor:
            return self._tails(v[:, :width]).add_(self._heads(v[:, width:]))

        def adjoint_map(g: Tensor) -> Tensor:
            return torch.cat([self._sum_tails(g), self._sum_heads(g)], dim=1)

        return linear_map(x, forward_map, adjoint_map)

    def high_nonbacktracking_powers(self, y: Tensor) -> list[Tensor]:
        """Compute B_2 y, ..., B_{J-1} y, (E, d) each, with explicit sparse matrices.

        B_0 = B and B_1 = B^2 of a simple graph are 0/1 already (the middle edge of a walk is forced), so they need no
        matrix; from B^4 on the clip acts and the matrices are built, with one entry a reachable pair of edges.
        """
        return [linear_map(y, *maps) for maps in self._line_powers]

    def _high_line_powers(self, power: int) -> list[tuple[Map, Map]]:
        """Build the maps B_2 .. B_{J-1} with their adjoints."""
        powers: list[tuple[Map, Map]] = []
        if power > 2:
            matrix = clipped_square(*self._explicit_nonbacktracking())
            for _ in range(2, power):
                matrix = clipped_square(*matrix)
                powers.append(self._explicit_maps(*matrix))
        return powers

    def _explicit_nonbacktracking(self) -> tuple[Tensor, Tensor]:
        """Build B in compressed-row form: row (i->j) lists the edges that leave j, but for j->i."""
        counts = (self.pointers[1:] - self.pointers[:-1])[self.target]
        total = int(counts.sum())
        starts = self.pointers[:-1][self.target]
        rows = torch.repeat_interleave(self._edges, counts, output_size=total)
        within = torch.arange(total, device=counts.device) - (counts.cumsum(0) - counts)[rows]
        columns = starts[rows] + within
        keep = columns != self.reverse[rows]
        return columns[keep], row_pointers(rows[keep], self._edges.numel())

    def _explicit_maps(self, columns: Tensor, pointers: Tensor) -> tuple[Map, Map]:
        """Give the map of an explicit power of B and its adjoint; B^T = Rev B Rev holds for every clipped power."""

        def forward_map(v: Tensor) -> Tensor:
            return gather_sum(v, columns, pointers)

        def adjoint_map(v: Tensor) -> Tensor:
            return forward_map(v.index_select(0, self.reverse)).index_select(0, self.reverse)

        return forward_map, adjoint_map


def reverse_edges(edge_index: Tensor, num_nodes: int) -> Tensor:
    """Find the opposite direction of every edge.

    Args:
        edge_index: (2, E) int64, both directions, sorted by (row, column).
        num_nodes: Number of nodes N.

    Returns:
        For every edge i->j the position of j->i, (E,) int64; an involution.

    Raises:
        ValueError: If an edge has no opposite direction or the edges are not sorted.
    """
    source, target = edge_index
    keys = source * num_nodes + target
    reverse = torch.searchsorted(keys, target * num_nodes + source).clamp_(max=max(keys.numel() - 1, 0))
    if not torch.equal(keys[reverse], target * num_nodes + source):
        msg = (
            "reverse_edges: edge_index must hold both directions of every edge, sorted by (row, column); "
            "use torch_geometric.utils.coalesce(to_undirected(edge_index))."
        )
        raise ValueError(msg)
    return reverse


class Segments:
    """Rows that belong together: the nodes, or the directed edges, of each graph of a batch.

    Args:
        segment: Sorted segment number of each row, (M,) int64.
        num_segments: Number of segments B.
    """

    def __init__(self, segment: Tensor, num_segments: int) -> None:
        self._segment = segment
        self._pointers = row_pointers(segment, num_segments)
        self._rows = torch.arange(segment.numel(), device=segment.device)
        #: Rows of each segment, (B, 1), at least 1.
        self.count = (self._pointers[1:] - self._pointers[:-1]).clamp(min=1).unsqueeze(1)

    def mean(self, x: Tensor) -> Tensor:
        """Average the rows of each segment. (M, d) to (B, d)."""
        return gather_sum(x, self._rows, self._pointers) / self.count

    def spread(self, x: Tensor) -> Tensor:
        """Give every row what belongs to its segment. (B, d) to (M, d)."""
        return x if len(x) == 1 else x.index_select(0, self._segment)


class _HalfReluNormalize(torch.autograd.Function):
    """ReLU on the first columns, normalisation in each segment, and a scale and shift, in few passes over memory."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, segments: Segments, rectified: int, eps: float
    ) -> Tensor:
        centered = x.clone()
        centered[:, :rectified].relu_()
        positive = centered[:, :rectified].sign()
        centered -= segments.spread(segments.mean(centered))
        scale = (segments.mean(centered * centered) + eps).rsqrt()
        ctx.save_for_backward(centered, scale, positive, weight)
        ctx.segments, ctx.rectified = segments, rectified
        return (centered * segments.spread(scale * weight)).add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        centered, scale, positive, weight = ctx.saved_tensors
        segments = ctx.segments
        mean, moment = segments.mean(grad), segments.mean(grad * centered)
        # d/dx of (x - m) s w: w s (g - mean(g) - c s^2 mean(g c)) with c the centred input.
        result = centered * segments.spread(-(scale**3) * weight * moment)
        result.addcmul_(grad, segments.spread(scale * weight)).sub_(segments.spread(scale * weight * mean))
        result[:, : ctx.rectified].mul_(positive)
        grad_weight = (segments.count * scale * moment).sum(0)
        grad_bias = (segments.count * mean).sum(0)
        return result, grad_weight, grad_bias, None, None, None


def half_relu_normalize(
    x: Tensor, weight: Tensor, bias: Tensor, segments: Segments, rectified: int, eps: float = 1e-5
) -> Tensor:
    """Apply a ReLU to the first columns, then bring all to mean 0 and variance 1 in each segment, then scale and shift.

    The normalisation is batch norm with a batch of one graph, as the paper trains; it needs no running statistics, so
    a graph's output depends neither on the others in its batch nor on train or eval mode.

    Args:
        x: Features, (M, d).
        weight: Scale of each column after the normalisation, (d,).
        bias: Shift of each column after the normalisation, (d,).
        segments: The rows of each graph.
        rectified: Number of leading columns that pass the ReLU, 0 .. d.
        eps: Added to the variance.

    Returns:
        Activated features, (M, d).
    """
    return _HalfReluNormalize.apply(x, weight, bias, segments, rectified, eps)  # pyright: ignore[reportReturnType]
