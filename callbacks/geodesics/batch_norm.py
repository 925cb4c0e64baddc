"""Batch normalisation at a point of a path: its running statistics are re-estimated there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["batch_norms", "fresh_statistics"]


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the layers of a module that keep running statistics."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]


@contextmanager
def fresh_statistics(norms: Sequence[_BatchNorm]) -> Iterator[Callable[[], None]]:
    """Let the layers collect new statistics, as plain means over batches, and give them their own back afterwards.

    Gives a function that ends the collection: from then on the layers normalise by what they collected.
    """
    before = [
        ({name: buffer.clone() for name, buffer in norm.named_buffers()}, norm.momentum, norm.training)
        for norm in norms
    ]

    def evaluate() -> None:
        for norm in norms:
            norm.training = False

    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        yield evaluate
    finally:
        with torch.no_grad():
            for norm, (buffers, momentum, training) in zip(norms, before, strict=True):
                for name, value in buffers.items():
                    norm.get_buffer(name).copy_(value)
                norm.momentum, norm.training = momentum, training
