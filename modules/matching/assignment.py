"""From scores to matchings: linear assignment, on all entries or, for large graphs, on the best candidates."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

from .base import GraphPairs

__all__ = ["assign", "assign_all", "assign_candidates"]


def assign(scores: Tensor, pairs: GraphPairs) -> Tensor:
    """Find the one-to-one matching of largest total score of each pair (`scipy.optimize.linear_sum_assignment`).

    Args:
        scores: (B, N1, N2), finite within each pair's sizes.
        pairs: The pairs, of which only the sizes are used.

    Returns:
        Node of the second graph for each of the first, (B, N1) int64; -1 beyond a graph's size.

    Raises:
        ValueError: If a score is NaN or infinite.
    """
    rows, columns = pairs.first.sizes.tolist(), pairs.second.sizes.tolist()
    matching = np.full(scores.shape[:2], -1, dtype=np.int64)
    values = scores.detach().float().cpu().numpy() if scores.dtype != torch.float64 else scores.detach().cpu().numpy()
    for pair, (height, width) in enumerate(zip(rows, columns, strict=True)):
        block = values[pair, :height, :width]
        if not np.isfinite(block).all():
            msg = f"assign: the scores of pair {pair} are not all finite; lower the learning rate or use float32."
            raise ValueError(msg)
        matching[pair, :height] = linear_sum_assignment(block, maximize=True)[1]
    return torch.from_numpy(matching).to(scores.device)


def assign_all(scores: Tensor, sizes: Tensor) -> Tensor:
    """Maximise the scores of square assignment problems, on all threads that torch has.

    Args:
        scores: (P, N, N), finite, zero beyond a problem's size.
        sizes: Size of each problem, (P,).

    Returns:
        Column of each row, (P, N) int64; beyond a size the row's own number.
    """
    costs = _near_duals(scores).double().cpu().numpy()
    extent = sizes.tolist()
    columns = np.tile(np.arange(costs.shape[1]), (len(costs), 1))

    def solve(first: int) -> None:
        for number in range(first, len(costs), threads):
            size = extent[number]
            columns[number, :size] = linear_sum_assignment(costs[number, :size, :size])[1]

    threads = min(torch.get_num_threads(), len(costs))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:  # SciPy's solver releases the interpreter's lock
            list(pool.map(solve, range(threads)))
    else:
        solve(0)
    return torch.from_numpy(columns).to(scores.device)


def _near_duals(scores: Tensor, sweeps: int = 2, width: float = 0.3) -> Tensor:
    """Give costs with the same best assignment, found 2-3x sooner: the shortest paths are then short.

    A constant a row or column changes no assignment. The constants are the potentials of an assignment smoothed by
    entropy (Sinkhorn's sweeps), near the solution of the dual problem, from which the solver would start best.
    """
    scores = scores - scores.mean(1, keepdim=True)
    scores -= scores.mean(2, keepdim=True)
    scores /= (width * scores.square().mean((1, 2), keepdim=True).sqrt()).clamp(min=1e-30)
    kernel = scores.clamp(-30, 30).exp_()  # any potentials will do: finite ones
    column = torch.ones_like(kernel[:, :1])
    row = column.mT
    for _ in range(sweeps):
        row = 1 / (kernel * column).sum(2, keepdim=True)
        column = 1 / (kernel * row).sum(1, keepdim=True)
    return scores.add_(row.log()).add_(column.log()).neg_()


def assign_candidates(first: Tensor, second: Tensor, candidates: int = 32, block: int = 1024) -> Tensor:
    r"""Match the rows of two embeddings, each to one of its best candidates.

    The score of a match is the scalar product :math:`e_i \cdot e'_j`. Only the ``candidates`` best columns of each row,
    and the best rows of each column, are kept, so the memory is O((n + m) candidates + block m). Among these the
    matching of largest total score is found; rows that no full matching covers take what is left in the order of their
    best score.

    Args:
        first: Embeddings of the first graph's nodes, (n, d).
        second: Embeddings of the second graph's nodes, (m, d), m >= n.
        candidates: Columns kept for each row, and rows for each column.
        block: Rows whose scores are held at a time.

    Returns:
        Row of ``second`` for each of ``first``, (n,) int64, all different.

    Raises:
        ValueError: If there are more rows than columns, or ``candidates`` is below 1.
    """
    n, m = len(first), len(second)
    if n > m:
        msg = f"assign_candidates: {n} nodes cannot be matched to {m} different ones; give the smaller graph first."
        raise ValueError(msg)
    if candidates < 1:
        msg = f"assign_candidates(candidates={candidates}): must be at least 1."
        raise ValueError(msg)
    row, column, score = _candidates(first, second, min(candidates, m), block)
    back, forth, other = _candidates(second, first, min(candidates, n), block)
    keys, unique = np.unique(np.concatenate([row * m + column, forth * m + back]), return_index=True)
    score = np.concatenate([score, other])[unique]
    row, column = keys // m, keys % m
    # A dear column of its own for every row makes a full matching certain; who takes it is matched afterwards.
    span = float(score.max() - score.min()) + 1.0
    rows = np.concatenate([row, np.arange(n)])
    columns = np.concatenate([column, m + np.arange(n)])
    costs = np.concatenate([score.max() - score + 1.0, np.full(n, (n + 2) * span)])
    taken = min_weight_full_bipartite_matching(csr_array((costs, (rows, columns)), shape=(n, m + n)))[1]
    matching = np.where(taken < m, taken, -1)
    free = np.setdiff1d(np.arange(m), matching)
    for i in np.flatnonzero(matching < 0):
        best = int((second[torch.from_numpy(free)] @ first[i]).argmax())
        matching[i] = free[best]
        free = np.delete(free, best)
    return torch.from_numpy(matching).to(first.device)


def _candidates(first: Tensor, second: Tensor, count: int, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the best ``count`` rows of ``second`` for each of ``first``: rows, columns and scores."""
    values, columns = [], []
    for part in first.detach().split(block):
        best = (part @ second.detach().T).topk(count, dim=1)
        values.append(best.values)
        columns.append(best.indices)
    rows = np.repeat(np.arange(len(first)), count)
    flat = [torch.cat(parts).flatten().cpu().numpy() for parts in (columns, values)]
    return rows, flat[0], flat[1].astype(np.float64)
