"""Quantiles and histograms over processes against NumPy on all numbers together."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from theodolite.modules.margins import histogram, order_statistics, quantiles


def on_ranks(function, parts):
    """Call the function on every part as on a rank, with a sum over all ranks; give what each rank got."""
    barrier, shared = Barrier(len(parts)), [None] * len(parts)

    def on(rank):
        def reduce(counts):
            shared[rank] = counts
            barrier.wait(60)
            total = sum(part.clone() for part in shared)
            barrier.wait(60)
            return total

        return function(parts[rank], reduce)

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(on, range(len(parts))))


def normal(size, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=size))


PARTS = {
    "one": [normal(1)],
    "uneven": [normal(100), normal(37, 1), normal(0)],
    "ties": [torch.tensor([1.0, 1.0, 2.0]).double(), torch.tensor([1.0, 2.0]).double()],
    "wide": [normal(50) * 10.0 ** normal(50, 2).mul(100).clamp(-300, 300), -normal(20).abs() * 1e-310],
    "equal": [torch.full((3,), -7.25).double(), torch.full((2,), -7.25).double()],
    "zeros": [torch.tensor([0.0, -0.0, 1.0, -1.0]).double()],
}


@pytest.mark.parametrize("name", PARTS)
def test_quantiles_are_numpys_on_all_numbers(name):
    parts = PARTS[name]
    together = torch.cat(parts)
    levels = [0, 0.01, 0.25, 0.5, 0.9, 1]
    expected = np.quantile(together.numpy(), levels).tolist()
    for found in on_ranks(lambda part, reduce: quantiles(part, levels, len(together), reduce), parts):
        assert found == pytest.approx(expected, rel=1e-14, abs=0)


def test_every_order_statistic_is_one_of_the_numbers_itself():
    parts = PARTS["uneven"]
    expected = torch.cat(parts).sort().values.tolist()
    found = on_ranks(lambda part, reduce: order_statistics(part, range(137), reduce), parts)
    assert found == [expected] * 3


def test_infinities_are_at_the_ends_and_nan_last():
    values = torch.tensor([torch.nan, torch.inf, 3.0, -torch.inf, -torch.nan, 1.0]).double()
    found = order_statistics(values, range(6), lambda counts: counts)
    assert found[:4] == [-torch.inf, 1, 3, torch.inf]
    assert np.isnan(found[4:]).all()
    assert quantiles(values[:4], [0.0], 4, lambda counts: counts) == [-torch.inf]
    both = torch.tensor([torch.inf, torch.inf]).double()
    assert quantiles(both, [0.5], 2, lambda counts: counts) == [torch.inf]


@pytest.mark.parametrize("name", ["one", "uneven", "ties", "equal"])
def test_histogram_is_numpys_on_all_numbers(name):
    parts = PARTS[name]
    counts, edges = np.histogram(torch.cat(parts).numpy(), 7)
    for found in on_ranks(lambda part, reduce: histogram(part, 7, reduce), parts):
        assert found[0] == counts.tolist()
        assert found[1] == pytest.approx(edges.tolist(), rel=1e-14)


def test_histogram_leaves_out_what_is_not_finite():
    values = torch.tensor([1.0, torch.inf, 2.0, torch.nan]).double()
    assert histogram(values, 2, lambda counts: counts) == ([1, 1], [1, 1.5, 2])
    assert histogram(values[1:2], 2, lambda counts: counts) == ([], [])
