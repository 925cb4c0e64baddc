"""Share rows of work among the processes of a run."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["rank_and_size", "share"]


def rank_and_size() -> tuple[int, int]:
    """Give the number of this process and how many there are: (0, 1) without a process group."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def share(work: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor) -> tuple[Tensor, ...]:
    """Do work on rows, each process on its own share, and give all of them the results in order.

    Every process must call it with the same rows. Row r goes to process r modulo their number; without a process group
    the work is simply done.

    Args:
        work: Gives tensors whose first axis is that of the rows it is given, (n, ...); it is called with n >= 1.
        rows: (N, P).

    Returns:
        The results for all rows.
    """
    rank, size = rank_and_size()
    if size == 1 or not len(rows):
        return work(rows)
    mine = rows[rank::size]
    own = tuple(part.cpu() for part in work(mine)) if len(mine) else ()
    parts: list[Any] = [None] * size
    dist.all_gather_object(parts, own)
    order = torch.cat([torch.arange(len(rows))[r::size] for r in range(size)]).argsort()
    columns = zip(*(part for part in parts if part), strict=True)
    return tuple(torch.cat(column)[order].to(rows.device) for column in columns)
