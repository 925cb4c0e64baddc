"""Which sample goes to which process, and the random numbers of each sample."""

from collections.abc import Iterator, Sized
from typing import Any, Literal

import numpy as np
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

__all__ = ["ShardedSampler", "Split", "TrainingLoader", "sample_seed"]

Split = Literal["train", "val", "test"]

#: The position of a split is part of the seed of its samples. Append only: published numbers depend on the order.
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def sample_seed(seed: int, split: Split, index: int) -> np.random.SeedSequence:
    """Give the seed of one sample, a pure function of (seed, split, index).

    The streams of different samples are independent (NumPy's ``SeedSequence`` with a spawn key), and do not depend on
    how many samples were drawn before, by which worker or on which rank.

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
        msg = f"sample_seed(seed={seed}, index={index}): both must be >= 0."
        raise ValueError(msg)
    return np.random.SeedSequence(entropy=seed, spawn_key=(SPLITS.index(split), index))


class ShardedSampler(DistributedSampler[int]):
    """Deal the samples of a dataset to the processes of a run, without padding.

    Process ``r`` of ``R`` takes the samples ``r, r + R, r + 2R, ...`` of the (possibly shuffled) order. For evaluation
    nothing is repeated and nothing is left out, so sums over processes are exact for every number of samples; the
    processes' numbers of samples then differ by at most one. For training (``drop_last=True``) the last ``len(dataset)
    mod R`` samples of the order are left out, because every process must take the same number of steps.

    It works with one process and without a process group. Lightning leaves a sampler of this type in place, and calls
    ``set_epoch`` before every training epoch.

    Args:
        dataset: The dataset, of which only the length is used.
        shuffle: Permute the samples in each epoch, as a pure function of (seed, epoch).
        drop_last: Give every process the same number of samples (training).
        seed: Seed of the permutation, >= 0.
        fresh: Yield ``epoch * len(dataset) + i`` instead of ``i``, for a dataset that generates sample ``i`` for every
            ``i >= 0``: each epoch then has new samples, and the workers that make them need no state.
        num_replicas: Number of processes; ``None`` asks ``torch.distributed``, 1 without a process group.
        rank: Number of this process; ``None`` asks ``torch.distributed``, 0 without a process group.

    Raises:
        ValueError: If ``rank`` is not in ``[0, num_replicas)``, or there are fewer samples than processes (a process
            without a batch would leave the others waiting).
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
        size = len(dataset)
        if size < num_replicas:
            msg = (
                f"ShardedSampler: {size} samples cannot be dealt to {num_replicas} processes, each needs at least one; "
                f"use at most {size} devices or more samples."
            )
            raise ValueError(msg)
        # torch types the dataset as a Dataset, but asks only its length
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last)  # pyright: ignore[reportArgumentType]
        self.size = size
        self.total_size = size - size % num_replicas if drop_last else size
        self.num_samples = len(range(rank, self.total_size, num_replicas))
        self.fresh = fresh
        #: Samples of this process to leave out at the beginning: those an interrupted epoch already used.
        self.skip = 0

    def __iter__(self) -> Iterator[int]:
        """Yield this process's sample numbers of the current epoch."""
        order = np.arange(self.size)
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(order)
        first = self.epoch * self.size if self.fresh else 0
        mine = order[self.rank : self.total_size : self.num_replicas]
        return (first + i for i in mine[self.skip :].tolist())


class TrainingLoader(DataLoader[Any]):
    """A ``DataLoader`` that resumes a training run exactly, in the middle of an epoch too.

    When Lightning resumes it asks for an iterator first and tells the sampler the epoch afterwards; a plain loader with
    workers has by then fetched batches of epoch 0. This one starts at the first batch that is asked for. It also
    implements the ``state_dict`` / ``load_state_dict`` interface by which Lightning saves the place within an epoch.

    Takes the arguments of ``torch.utils.data.DataLoader``, with a :class:`ShardedSampler`. PyG's own loader would
    ignore a ``collate_fn``.
    """

    _used = 0
    _state: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield the batches of the sampler's epoch, from where a loaded state left off."""
        state, self._state = self._state, None
        self._used = 0
        if isinstance(self.sampler, ShardedSampler):  # Lightning's overfit_batches puts another one
            if state is not None and state["epoch"] == self.sampler.epoch:
                self._used = state["batches"]
            self.sampler.skip = self._used * (self.batch_size or 1)
        for batch in super().__iter__():
            self._used += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Give the epoch and the number of batches of it that were handed out."""
        return {"epoch": getattr(self.sampler, "epoch", 0), "batches": self._used}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the saved epoch after the batches that were handed out; another epoch begins at its start."""
        self._state = state_dict
