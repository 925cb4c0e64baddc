"""Which sample goes to which process, and the random numbers of each sample."""

from collections.abc import Iterator, Sized
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DistributedSampler

Split = Literal["train", "val", "test", "predict"]

#: Position of a split in the seed. Never reorder: every published number depends on it.
SPLITS: tuple[Split, ...] = ("train", "val", "test", "predict")


def sample_seed(seed: int, split: Split, index: int) -> np.random.SeedSequence:
    """Give the seed of one sample, a pure function of (seed, split, index).

    The streams of different samples are statistically independent (NumPy's ``SeedSequence`` with a spawn key), and the
    seed does not depend on how many samples were drawn before, by which worker or on which rank.

    Args:
        seed: The experiment's seed, >= 0.
        split: The split the sample belongs to.
        index: The sample's number in its split, >= 0, of any size.

    Returns:
        The seed, for ``numpy.random.default_rng``.

    Raises:
        ValueError: If ``seed`` or ``index`` is negative.
    """
    if seed < 0 or index < 0:
        msg = f"sample_seed(seed={seed}, index={index}): both must be >= 0; choose another seed."
        raise ValueError(msg)
    return np.random.SeedSequence(entropy=seed, spawn_key=(SPLITS.index(split), index))


class ShardedSampler(DistributedSampler[int]):
    """Deal the samples of a dataset to the processes of a run, without padding.

    Process ``r`` of ``R`` takes the samples ``r, r + R, r + 2R, ...`` of the (possibly shuffled) order. For evaluation
    nothing is repeated and nothing is left out, so sums over processes are exact for every number of samples; the
    processes' numbers of samples then differ by at most one. For training (``drop_last=True``) the last ``len(dataset)
    mod R`` samples are left out, because every process must take the same number of steps.

    It works with one process and without a process group. Lightning leaves a sampler of this type in place.

    Args:
        dataset: The dataset, of which only the length is used.
        shuffle: Permute the samples in each epoch, as a pure function of (seed, epoch).
        drop_last: Give every process the same number of samples (training).
        seed: Seed of the permutation.
        fresh: Yield ``epoch * len(dataset) + i`` instead of ``i``, for datasets that generate sample number ``i`` for
            any ``i`` and so have new samples in every epoch.
        num_replicas: Number of processes; ``None`` asks ``torch.distributed``, 1 without a process group.
        rank: Number of this process; ``None`` asks ``torch.distributed``, 0 without a process group.

    Raises:
        ValueError: If ``rank`` is not in ``[0, num_replicas)``.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        fresh: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        distributed = dist.is_available() and dist.is_initialized()
        if num_replicas is None:
            num_replicas = dist.get_world_size() if distributed else 1
        if rank is None:
            rank = dist.get_rank() if distributed else 0
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last)  # pyright: ignore[reportArgumentType]
        size = len(dataset)
        self.total_size = size - size % num_replicas if drop_last else size
        self.num_samples = len(range(rank, self.total_size, num_replicas))
        self.fresh = fresh
        self._size = size

    def __iter__(self) -> Iterator[int]:
        """Yield this process's sample numbers of the current epoch."""
        if self.shuffle:
            generator = torch.Generator().manual_seed(
                int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
            )
            order = torch.randperm(self._size, generator=generator).tolist()
        else:
            order = list(range(self._size))
        first = self.epoch * self._size if self.fresh else 0
        return (first + i for i in order[self.rank : self.total_size : self.num_replicas])
