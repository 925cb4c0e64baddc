"""Throughput of two training processes with one thread each against one process with one thread."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Batch

from ...datamodules.sbm_datamodule import SBMDataset
from ...modules.community import LGNN, assignment_loss
from .timing import row

__all__ = ["run"]

_GRAPHS, _STEPS, _ROUNDS = 4, 2, 9


def run() -> list[dict[str, Any]]:
    """Measure LGNN training (5-community setting, 4 graphs a process and step) alone and on two processes in turn.

    Both kinds of step run in the same two processes, so only the gradients' exchange and the waiting for the slower
    process are added. The bound is on two free cores: on one, or beside other work, it cannot be met.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_process, args=(folder,), nprocs=2)  # pyright: ignore[reportPrivateImportUsage]
        ratio = float((Path(folder) / "ratio").read_text())
    return [row("LGNN training, throughput of 2 processes over 1", ratio, "x", at_least=1.8)]


def _process(rank: int, folder: str) -> None:
    """Take rounds of steps, in turn on rank 0 alone and on both; rank 0 writes the ratio of throughputs."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = LGNN(num_classes=5)
    shared = DistributedDataParallel(LGNN(num_classes=5))
    graphs = SBMDataset([(0.0, 18.0)], 400, num_classes=5, num_graphs=2 * _GRAPHS, split="train")
    batch = Batch.from_data_list([graphs[_GRAPHS * rank + i] for i in range(_GRAPHS)])
    ratios = []
    for _ in range(_ROUNDS + 1):
        alone = _steps(network, batch) if rank == 0 else 0.0
        dist.barrier()
        both = _steps(shared, batch)
        dist.barrier()
        ratios.append(2 * alone / both)
    if rank == 0:
        (Path(folder) / "ratio").write_text(str(statistics.median(ratios[1:])))  # the first round warms up
    dist.destroy_process_group()


def _steps(network: nn.Module, batch: Any) -> float:
    """Take training steps and give their seconds."""
    optimizer = torch.optim.Adamax(network.parameters(), lr=4e-3)
    start = time.perf_counter()
    for _ in range(_STEPS):
        optimizer.zero_grad()
        assignment_loss(network(batch), batch.y, batch.batch, _GRAPHS).mean().backward()
        optimizer.step()
    return time.perf_counter() - start
