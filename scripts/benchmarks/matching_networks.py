"""What the matching networks cost beside their own products, their data, and on a graph of 10,000 nodes."""

from collections.abc import Callable
from typing import Any

import torch

from ...datamodules import QAPDataModule
from ...modules.matching import FGNN, GraphMatching, SiameseGNN, assign_candidates
from ...modules.optimizers import Muon
from .timing import isolated, median_times, peak_bytes, row

__all__ = ["match_large", "run"]

_BATCH, _NODES, _LARGE = 32, 50, 10_000


def run() -> list[dict[str, Any]]:
    """Time training steps of the shipped sizes at n = 50 in batches of 32, and match one pair of 10,000 nodes."""
    folklore = FGNN(width=32, blocks=3, mlp_depth=2)
    siamese = SiameseGNN(width=20, depth=20, power=4)
    data = QAPDataModule(num_nodes=_NODES, batch_size=_BATCH).dataset("train")
    batch = data.__getitems__(list(range(_BATCH)))
    seconds = median_times(
        {
            "floor": _products(folklore),
            "fgnn": _step(folklore, batch),
            "siamese": _step(siamese, batch),
            "data": lambda: data.__getitems__(list(range(_BATCH))),
        },
        repeats=9,
    )
    matched, memory = isolated(match_large)
    return [
        row("FGNN training step, time over its products alone", seconds["fgnn"] / seconds["floor"], "x", at_most=1.3),
        row("32 pairs, time over an FGNN step", 100 * seconds["data"] / seconds["fgnn"], "%", at_most=5),
        row("32 pairs, time over a SiameseGNN step", 100 * seconds["data"] / seconds["siamese"], "%", at_most=5),
        row("SiameseGNN, peak memory of a match at n = 10^4", memory / 1e9, "GB", at_most=8),
        row("SiameseGNN, time of a match at n = 10^4", matched, "s"),
    ]


def match_large() -> tuple[float, int]:
    """Embed and match a sparse pair of 10,000 nodes and average degree 10: seconds, peak memory in bytes."""
    torch.manual_seed(0)
    data = QAPDataModule(num_nodes=_LARGE, edge_probability=10 / _LARGE, noises=[0.0], test_pairs=1)
    pair = data.dataset("test")[0]
    network = SiameseGNN(width=20, depth=20, power=2).eval()

    def match() -> None:
        with torch.inference_mode():
            assign_candidates(network.embed(pair.first), network.embed(pair.second))

    return median_times({"match": match}, repeats=1)["match"], peak_bytes()


def _step(network: FGNN | SiameseGNN, batch: Any) -> Callable[[], None]:
    """Give one training step: loss, gradient, clipping, optimizer."""
    task = GraphMatching(network)
    optimizer = Muon(network.parameters())

    def step() -> None:
        optimizer.zero_grad()
        task.loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def _products(network: FGNN) -> Callable[[], None]:
    """Give the perceptrons and matrix products of an FGNN alone, forward and backward, on both graphs."""
    sides = [torch.randn(_BATCH, 2, _NODES, _NODES) for _ in range(2)]

    def products() -> None:
        for h in sides:
            for block in network.blocks:
                h = block.out(block.left(h) @ block.right(h), h)  # pyright: ignore[reportCallIssue]
            h.sum().backward()

    return products
