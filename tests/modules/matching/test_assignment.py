"""Linear assignment of scores and of embeddings, against SciPy on dense matrices."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from theodolite.modules.matching import GraphPairs, Graphs, assign, assign_candidates
from theodolite.modules.matching.assignment import assign_all


def test_each_pair_gets_its_best_assignment_within_its_sizes():
    sizes = [(3, 3), (4, 6), (5, 5)]
    ns, ms = torch.tensor(sizes).T
    pairs = GraphPairs(Graphs(ns, dense=torch.zeros(3, 5, 5)), Graphs(ms, dense=torch.zeros(3, 6, 6)))
    scores = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    for k, (n, m) in enumerate(sizes):
        scores[k, n:], scores[k, :, m:] = torch.nan, torch.inf
    matching = assign(scores, pairs)
    for k, (n, m) in enumerate(sizes):
        expected = linear_sum_assignment(scores[k, :n, :m].numpy(), maximize=True)[1]
        assert matching[k].tolist() == [*expected.tolist(), *[-1] * (5 - n)]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = torch.zeros(2, 3, 3)
    scores[1, 0, 2] = bad
    pairs = GraphPairs.from_dense(torch.zeros(2, 3, 3), torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match="scores of pair 1 are not all finite"):
        assign(scores, pairs)


def test_low_precision_and_gradients_do_no_harm():
    scores = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pairs = GraphPairs.from_dense(torch.zeros(1, 6, 6), torch.zeros(1, 6, 6))
    for dtype in (torch.bfloat16, torch.float64):
        expected = linear_sum_assignment(scores[0].to(dtype).detach().double().numpy(), maximize=True)[1]
        assert assign(scores.to(dtype), pairs)[0].tolist() == expected.tolist()


@pytest.mark.parametrize(("n", "m"), [(20, 20), (12, 30), (1, 1)])
def test_all_candidates_give_the_dense_optimum(n, m):
    generator = torch.Generator().manual_seed(n)
    first, second = torch.randn(n, 4, generator=generator), torch.randn(m, 4, generator=generator)
    scores = (first @ second.T).double().numpy()
    matching = assign_candidates(first, second, candidates=m).numpy()
    best = scores[linear_sum_assignment(scores, maximize=True)].sum()
    assert scores[np.arange(n), matching].sum() == pytest.approx(best, rel=1e-6)
    assert torch.equal(
        assign_candidates(first, second, candidates=m, block=3), assign_candidates(first, second, candidates=m)
    )


def test_few_candidates_give_different_nodes_even_if_all_want_the_same():
    first, second = torch.ones(30, 2), torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    for candidates in (1, 3):
        matching = assign_candidates(first, second, candidates=candidates)
        assert len(set(matching.tolist())) == 30
        assert 0 <= int(matching.min()) <= int(matching.max()) < 40


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="5 nodes cannot be matched to 4 different ones"):
        assign_candidates(torch.zeros(5, 2), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"assign_candidates\(candidates=0\)"):
        assign_candidates(torch.zeros(4, 2), torch.zeros(4, 2), candidates=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_square_problems_are_solved_at_their_optimum_whatever_the_scores(dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([9, 4, 9, 1, 9, 9])
    scores = torch.randn(6, 9, 9, generator=generator).to(dtype)
    scores[2] = 0.0
    scores[4] = scores[4, :, :1] * scores[4, :1]  # of rank 1, as at the first step of FAQ
    scores[5] = (8 * scores[5]).exp() * 1e6  # heavy tails
    for k, size in enumerate(sizes.tolist()):
        scores[k, size:], scores[k, :, size:] = 0, 0
    columns = assign_all(scores, sizes)
    for k, size in enumerate(sizes.tolist()):
        block = scores[k, :size, :size].double().numpy()
        best = block[linear_sum_assignment(block, maximize=True)].sum()
        assert block[np.arange(size), columns[k, :size].numpy()].sum() == pytest.approx(best, rel=1e-5)
        assert columns[k, size:].tolist() == list(range(size, 9))
        assert sorted(columns[k].tolist()) == list(range(9))


def test_threads_change_no_assignment():
    scores, threads = torch.randn(7, 12, 12, generator=torch.Generator().manual_seed(1)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = assign_all(scores, torch.full((7,), 12))
        torch.set_num_threads(3)
        assert torch.equal(assign_all(scores, torch.full((7,), 12)), alone)
    finally:
        torch.set_num_threads(threads)
