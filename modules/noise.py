"""Random numbers of single samples, the same whatever batch or rank a sample comes in."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["sample_generators", "sample_normal", "sample_uniform"]


def sample_generators(seed: int, sample_id: Sequence[int], *key: int) -> list[np.random.Generator]:
    """Give one random generator a sample, a pure function of (seed, sample, key).

    Drawn on the CPU and apart from every global generator, so neither the batch size, the order, the number of ranks
    nor the device changes the numbers, and no random state is moved.

    Args:
        seed: Seed of the measurement, >= 0.
        sample_id: Number of each sample, >= 0.
        *key: What else tells draws apart, >= 0: the restart, the chunk.
    """
    return [
        np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(number, *key))) for number in sample_id
    ]


def sample_normal(generators: Sequence[np.random.Generator], shape: Sequence[int]) -> Tensor:
    """Draw standard normal numbers of a shape from each generator: float32, (N, ...), on the CPU."""
    return torch.from_numpy(np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in generators]))


def sample_uniform(generators: Sequence[np.random.Generator], shape: Sequence[int]) -> Tensor:
    """Draw uniform numbers in [0, 1) of a shape from each generator: float32, (N, ...), on the CPU."""
    return torch.from_numpy(np.stack([np.asarray(rng.random(shape, dtype=np.float32)) for rng in generators]))
