"""Time and memory of GNN inference from 10^5 to 10^6 nodes of average degree 3."""

import statistics
import time
from typing import Any

import torch

from ...datamodules.sbm_datamodule import SBMDataset
from ...modules.community import GNN
from .timing import isolated, peak_bytes, row

__all__ = ["inference", "run"]

_SMALL, _LARGE = 100_000, 1_000_000


def inference(num_nodes: int, repeats: int) -> tuple[float, int]:
    """Score the nodes of one graph with the network of the experiments (30 layers, 8 features, J = 2).

    Args:
        num_nodes: Number of nodes n; two communities, a = 5.5, b = 0.5: average degree 3.
        repeats: How often it is timed.

    Returns:
        Median seconds, and the peak memory of this process in bytes, libraries and graph included.
    """
    torch.manual_seed(0)
    graph = SBMDataset([(5.5, 0.5)], num_nodes, num_classes=2, num_graphs=1, split="test")[0]
    network = GNN(num_classes=2).eval()
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            network(graph)
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), peak_bytes()


def run() -> list[dict[str, Any]]:
    """Measure both sizes, the small one before and after the large one, each in a process of its own."""
    before, _ = isolated(inference, _SMALL, 5)
    large, memory = isolated(inference, _LARGE, 1)
    after, _ = isolated(inference, _SMALL, 5)
    return [
        row("GNN inference, time of n = 10^6 over 10^5", large / statistics.fmean([before, after]), "x", at_most=12),
        row("GNN inference, time at n = 10^6", large, "s"),
        row("GNN inference, peak memory at n = 10^6", memory / 1e9, "GB", at_most=8),
    ]
