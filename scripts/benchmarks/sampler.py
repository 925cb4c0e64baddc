"""The sampler of the stochastic block model beside python-igraph's, in one process."""

import itertools
from typing import Any

import numpy as np
from torch import Tensor

from ...datamodules.sbm import sample_sbm, to_edge_index
from .timing import isolated, median_times, peak_growth, row

__all__ = ["run"]


def run(num_nodes: int = 1_000_000, average_degree: float = 5.0, repeats: int = 3) -> list[dict[str, Any]]:
    """Compare time with python-igraph's generator, and peak memory with the size of the result.

    Both sides give the same ``edge_index`` of a graph with two equal communities, a = 9 b. igraph's time is that of its
    generator, of reading its edges into NumPy, and of our own sort. Memory is what the sampler adds to a process.

    Args:
        num_nodes: Number of nodes, even.
        average_degree: Average degree.
        repeats: Runs of each side, in turn.

    Returns:
        Rows of name, value, unit, bound and met.

    Raises:
        ModuleNotFoundError: If igraph is not installed.
    """
    try:
        import igraph  # a peer, of the `test` extra
    except ModuleNotFoundError as error:
        msg = "the peer of this benchmark is missing; install it by: pip install 'igraph>=1.0'"
        raise ModuleNotFoundError(msg) from error

    def theirs() -> Tensor:
        sizes, probs = _blocks(num_nodes, average_degree)
        graph = igraph.Graph.SBM(pref_matrix=probs.tolist(), block_sizes=sizes)
        flat = itertools.chain.from_iterable(graph.get_edgelist())
        ends = np.fromiter(flat, np.int64, 2 * graph.ecount()).reshape(-1, 2)
        return to_edge_index(ends[:, 0].copy(), ends[:, 1].copy(), num_nodes)

    seconds = median_times({"ours": lambda: _sample(num_nodes, average_degree), "theirs": theirs}, repeats)
    memory = isolated(_memory, num_nodes, average_degree)
    setting = f"n={num_nodes:.0e}, average degree {average_degree:g}".replace("e+0", "e")
    return [
        row(f"time of igraph / time of sample_sbm, {setting}", seconds["theirs"] / seconds["ours"], "x", at_least=1),
        row(f"peak memory / size of the result, {setting}", memory, "x", at_most=4),
        row(f"time of sample_sbm, {setting}", seconds["ours"], "s"),
    ]


def _blocks(num_nodes: int, average_degree: float) -> tuple[list[int], np.ndarray]:
    return [num_nodes // 2] * 2, np.array([[1.8, 0.2], [0.2, 1.8]]) * average_degree / num_nodes


def _sample(num_nodes: int, average_degree: float) -> Tensor:
    return sample_sbm(*_blocks(num_nodes, average_degree), seed=0)


def _memory(num_nodes: int, average_degree: float) -> float:
    """Give the growth of resident memory over the bytes of the result."""
    _sample(10, 1.0)
    results: list[Tensor] = []
    growth = peak_growth(lambda: results.append(_sample(num_nodes, average_degree)))
    return growth / (results[0].numel() * results[0].element_size())
