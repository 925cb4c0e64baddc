"""The sampler of the stochastic block model beside python-igraph's, in one process."""

import gc
import itertools
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from ...datamodules.sbm import sample_sbm, to_edge_index


def run(num_nodes: int = 1_000_000, average_degree: float = 5.0, repeats: int = 3) -> list[dict[str, Any]]:
    """Compare time with python-igraph's generator, and peak memory with the size of the result.

    Both sides give the same ``edge_index`` of a graph with two equal communities, a = 9 b. igraph's time is that of its
    generator, of reading the edges by the fastest way it has, and of our own sort. Runs alternate; the fastest of each
    side counts, since other work on the machine only ever adds time.

    Args:
        num_nodes: Number of nodes, even.
        average_degree: Average degree.
        repeats: Runs of each side.

    Returns:
        Rows with ``name``, ``value``, ``unit``, ``bound`` (what the value must be) and ``met``.

    Raises:
        ModuleNotFoundError: If igraph is not installed.
    """
    try:
        import igraph  # a peer, of the `test` extra
    except ModuleNotFoundError as error:
        msg = "The sampler's benchmark compares with python-igraph; install it by: pip install 'igraph>=1.0'"
        raise ModuleNotFoundError(msg) from error
    sizes = [num_nodes // 2, num_nodes // 2]
    probs = np.array([[1.8, 0.2], [0.2, 1.8]]) * average_degree / num_nodes

    def ours() -> Tensor:
        return sample_sbm(sizes, probs, seed=0)

    def theirs() -> Tensor:
        graph = igraph.Graph.SBM(pref_matrix=probs.tolist(), block_sizes=sizes)
        flat = itertools.chain.from_iterable(graph.get_edgelist())
        ends = np.fromiter(flat, np.int64, 2 * graph.ecount()).reshape(-1, 2)
        return to_edge_index(np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1]), num_nodes)

    times = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
    our_time, their_time = (min(column) for column in zip(*times, strict=True))
    tracemalloc.start()
    edge_index = ours()
    peak = tracemalloc.get_traced_memory()[1] / (edge_index.numel() * edge_index.element_size())
    tracemalloc.stop()
    setting = f"sample_sbm, n={num_nodes:.0e}, degree {average_degree:g}"
    speed = their_time / our_time
    return [
        {"name": f"{setting}: igraph's time / ours", "value": speed, "unit": "x", "bound": ">= 1", "met": speed >= 1},
        {"name": f"{setting}: peak memory / result", "value": peak, "unit": "x", "bound": "<= 4", "met": peak <= 4},
        {"name": f"{setting}: time", "value": our_time, "unit": "s", "bound": "", "met": True},
    ]


def _seconds(call: Callable[[], Tensor]) -> float:
    gc.collect()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
