"""Batches, places and state of classifiers that nobody here wrote."""

import random

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, RandomSampler

from theodolite.callbacks.classification import left_as_found, place_samples, spread, unpack
from theodolite.datamodules import ImageBatch
from theodolite.datamodules.sampling import ShardedSampler

X, Y, NUMBER = torch.rand(3, 2), torch.tensor([0, 2, 1]), torch.tensor([7, 8, 9])


@pytest.mark.parametrize(
    ("batch", "numbered"),
    [
        ((X, Y), False),
        ([X, Y], False),
        ((X, Y, NUMBER), True),
        ((X, Y, torch.rand(3)), False),  # weights are no numbers
        ((X, Y, {"more": 1}), False),
        ((X, Y.int(), NUMBER, "more"), True),
        (ImageBatch(X, Y, NUMBER), True),
        ({"x": X, "y": Y, "sample_id": NUMBER}, True),
        ({"image": X, "label": Y, "path": ["a"] * 3}, False),
        ({"pixel_values": X, "labels": Y, "index": NUMBER}, True),
    ],
)
def test_batches_of_many_projects(batch, numbered):
    x, y, number = unpack(batch, "Me")
    assert x is X
    assert torch.equal(y, Y)
    assert (number is not None) == numbered
    assert number is None or torch.equal(number, NUMBER)


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        (X, "a Tensor"),
        ((X,), "a tuple"),
        ({"x": X, "depth": Y}, r"a dictionary with the keys \['depth', 'x'\]"),
        ((X, Y.float()), "a tuple"),
        ((X, Y[:2]), "a tuple"),
        ((X, nn.functional.one_hot(Y)), "a tuple"),
        (5, "a int"),
    ],
)
def test_other_batches_are_refused(batch, found):
    with pytest.raises(ValueError, match=rf"Me: the batch is {found}; it must be \(x, y\)"):
        unpack(batch, "Me")


class Ranks:
    def __init__(self, rank, size):
        self.global_rank, self.world_size = rank, size


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def places(loader, rank, size, lengths):
    found, seen = [], 0
    for length in lengths:
        place, total = place_samples(loader, seen, length, Ranks(rank, size))
        found += place.tolist()
        seen += length
    return found, total


def test_padding_of_a_distributed_sampler_is_recognised():
    data = range(7)
    seen = []
    for rank in range(3):
        loader = DataLoader(data, 2, sampler=DistributedSampler(data, 3, rank, shuffle=False))
        lengths = [len(batch) for batch in loader]
        found, total = places(loader, rank, 3, lengths)
        assert total == 7
        assert [place % total for place in found] == list(loader.sampler)  # unshuffled: the sample itself
        seen += found
    assert sorted(seen) == list(range(9))
    assert len({place % 7 for place in seen}) == 7


def test_places_of_our_sampler_are_those_of_the_set():
    data = range(7)
    for rank in range(2):
        loader = DataLoader(data, 2, sampler=ShardedSampler(data, num_replicas=2, rank=rank))
        assert places(loader, rank, 2, [len(batch) for batch in loader]) == (list(loader.sampler), 7)


def test_places_of_other_loaders():
    data = range(5)
    assert places(DataLoader(data, 2), 0, 1, [2, 2, 1]) == ([0, 1, 2, 3, 4], 5)
    assert places(DataLoader(data, 2), 1, 2, [2]) == ([0, 1], 5)  # every rank has the same samples
    assert places(DataLoader(data, 2, shuffle=True), 0, 1, [2, 2]) == ([0, 1, 2, 3], 5)
    assert places(DataLoader(data, 2, shuffle=True), 1, 2, [2]) == ([1, 3], None)  # others on each rank
    own = DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 2, False))
    assert places(own, 0, 1, [2]) == ([0, 1], 5)
    assert places(DataLoader(Stream()), 0, 2, [1, 1]) == ([0, 2], None)
    assert places(DataLoader(Stream()), 0, 1, [1, 1]) == ([0, 1], None)


@pytest.mark.parametrize(("total", "number"), [(10, 3), (7, 7), (7, 9), (10_000, 64), (5, 1)])
def test_a_spread_has_as_many_as_asked_for_and_even_gaps(total, number):
    chosen = spread(torch.arange(total), total, number).nonzero()[:, 0]
    assert len(chosen) == min(total, number)
    gaps = chosen.diff()
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1
    assert torch.equal(spread(torch.arange(total), None, number), torch.arange(total) < number)


class Noisy(LightningModule):
    """Count its calls in a buffer, and use every source of random numbers."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Linear(2, 3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.net(x) + torch.rand(1) + random.random() + np.random.rand()  # noqa: NPY002


def states():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_everything_is_left_as_found_after_an_error_too():
    module = Noisy().train()
    module.net[1].eval()
    module.net[2].weight.requires_grad_(False)
    before, modes = {k: v.clone() for k, v in module.state_dict().items()}, [m.training for m in module.modules()]
    random_before = states()
    with left_as_found(module):
        module(X)
        assert not any(m.training for m in module.modules())
        module.net[2].weight.requires_grad_(True)
        module.net[0].running_mean += 1
    assert states() == random_before
    with pytest.raises(RuntimeError), left_as_found(module):
        module(torch.rand(3, 5))
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert not module.net[2].weight.requires_grad
    assert module.net[2].bias.requires_grad
