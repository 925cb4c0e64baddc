"""Batch normalisation at a point of a path: its running statistics are re-estimated there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["batch_norms", "fresh_statistics"]


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the layers of a module that keep running statistics.

    Raises:
        ValueError: If one of them is no batch normalisation, or one that exchanges its statistics with other processes:
            these cannot be re-estimated at a point.
    """
    found = []
    for name, part in module.named_modules():
        if getattr(part, "running_mean", None) is None:
            continue
        if not isinstance(part, _BatchNorm):
            msg = (
                f"{name} ({type(part).__name__}) keeps running statistics, which belong to no point of a path and can "
                "be re-estimated for batch normalisation only; use track_running_stats=False."
            )
            raise ValueError(msg)
        if isinstance(part, nn.SyncBatchNorm) and dist.is_available() and dist.is_initialized():
            msg = (
                f"{name} (SyncBatchNorm) would mix the statistics of processes that evaluate different points; run the "
                "search with sync_batchnorm=False."
            )
            raise ValueError(msg)
        found.append(part)
    return found


@contextmanager
def fresh_statistics(norms: Sequence[_BatchNorm]) -> Iterator[Callable[[], None]]:
    """Let the layers collect new statistics, as plain means over batches, and give them their own back afterwards.

    Gives a function that ends the collection: from then on the layers normalise by what they collected.

    Raises:
        ValueError: If a batch has too few samples for statistics, or on ending the collection, if a layer saw none.
    """
    before = [
        ({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum, norm.training)
        for norm in norms
    ]

    def evaluate() -> None:
        for norm in norms:
            if norm.num_batches_tracked is not None and not int(norm.num_batches_tracked):
                msg = (
                    f"the statistics of a {type(norm).__name__} of {norm.num_features} channels cannot be "
                    "re-estimated: the training loss never calls it; give a loss that runs the whole network."
                )
                raise ValueError(msg)
            norm.training = False

    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        yield evaluate
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        msg = (
            f"the statistics of batch normalisation cannot be re-estimated on a batch of one sample ({error}); change "
            "the batch size of the training data."
        )
        raise ValueError(msg) from error
    finally:
        with torch.no_grad():
            for norm, (buffers, momentum, training) in zip(norms, before, strict=True):
                for name, value in buffers.items():
                    norm.get_buffer(name).copy_(value)
                norm.momentum, norm.training = momentum, training
