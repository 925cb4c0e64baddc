"""Quantiles and histograms over processes against NumPy on all numbers together."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch

from theodolite.modules.margins import order_statistics, summaries


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


def alone(counts):
    return counts


@pytest.mark.parametrize("name", PARTS)
def test_quantiles_are_numpys_on_all_numbers(name):
    parts = [torch.stack([part, -3 * part], dim=1) for part in PARTS[name]]
    together = torch.cat(parts)
    levels = [0, 0.01, 0.25, 0.5, 0.9, 1]
    expected = np.quantile(together.numpy(), levels, axis=0).T.tolist()
    for found in on_ranks(lambda part, reduce: summaries(part, levels, 3, reduce), parts):
        assert found[0].quantiles == pytest.approx(expected[0], rel=1e-14, abs=0)
        assert found[1].quantiles == pytest.approx(expected[1], rel=1e-14, abs=0)


def test_every_order_statistic_is_one_of_the_numbers_itself():
    parts = [torch.stack([part, part.exp()], dim=1) for part in PARTS["uneven"]]
    expected = torch.cat(parts).sort(dim=0).values.T.tolist()
    ranks = torch.arange(137).expand(2, -1)
    found = on_ranks(lambda part, reduce: order_statistics(part, ranks, reduce).tolist(), parts)
    assert found == [expected] * 3


def test_infinities_are_at_the_ends_and_nan_last():
    values = torch.tensor([torch.nan, torch.inf, 3.0, -torch.inf, -torch.nan, 1.0]).double()[:, None]
    found = order_statistics(values, torch.arange(6)[None], alone)[0].tolist()
    assert found[:4] == [-torch.inf, 1, 3, torch.inf]
    assert np.isnan(found[4:]).all()
    assert summaries(values[:4], [0.0], 2, alone)[0].quantiles == [-torch.inf]
    both = torch.tensor([torch.inf, torch.inf]).double()[:, None]
    assert summaries(both, [0.5], 2, alone)[0].quantiles == [torch.inf]


@pytest.mark.parametrize("name", ["one", "uneven", "ties", "equal"])
def test_histogram_is_numpys_on_all_numbers(name):
    parts = PARTS[name]
    counts, edges = np.histogram(torch.cat(parts).numpy(), 7)
    for found in on_ranks(lambda part, reduce: summaries(part[:, None], [0.5], 7, reduce)[0], parts):
        assert found.counts == counts.tolist()
        assert found.edges == pytest.approx(edges.tolist(), rel=1e-14)


def test_histogram_leaves_out_what_is_not_finite():
    columns = [[1.0, torch.inf, 2.0, torch.nan], [-torch.inf, 1.0, -torch.inf, 2.0], [torch.inf, torch.nan] * 2]
    first, second, third = summaries(torch.tensor(columns).double().T, [0.0], 2, alone)
    assert (first.counts, first.edges) == ([1, 1], [1, 1.5, 2])
    assert (second.counts, second.edges) == ([1, 1], [1, 1.5, 2])
    assert (third.counts, third.edges) == ([], [])


def test_no_sample_at_all_is_one_line():
    with pytest.raises(ValueError, match="no samples"):
        summaries(torch.zeros(0, 2).double(), [0.5], 3, alone)
