"""FAQ against brute force, direct formulas and SciPy's."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import quadratic_assignment

from theodolite.datamodules.qap_datamodule import QAPDataset
from theodolite.modules.matching import (
    FAQ,
    GraphPairs,
    Graphs,
    HandmadeFeatures,
    Refined,
    assign,
    assignment_accuracy,
    faq,
    objective,
    qap_cost,
)
from theodolite.modules.matching.faq import _line_search, _Problem, random_doubly_stochastic


def random_matrices(number, n, seed, symmetric=False):
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randint(0, 9, (2, number, n, n), generator=generator).double()
    return matrices + matrices.mT if symmetric else matrices


def er_pairs(noise, number=8, num_nodes=30):
    return QAPDataset([noise], number, "test", num_nodes=num_nodes).__getitems__(list(range(number)))


def values_of(network, pairs):
    return objective(assign(network(pairs), pairs), pairs)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("maximize", [True, False])
def test_best_of_many_starts_is_the_optimum_of_small_problems(symmetric, maximize):
    reached = []
    for n in (4, 5, 6, 7):
        first, second = random_matrices(2, n, n, symmetric)
        pairs = GraphPairs.from_dense(first, second, minimize=not maximize)
        found = values_of(FAQ(restarts=60), pairs)
        everything = torch.tensor(list(itertools.permutations(range(n))))
        for k in range(2):
            costs = qap_cost(first[k], second[k], everything)
            best = costs.max() if maximize else costs.min()
            assert found[k] <= best if maximize else found[k] >= best
            reached.append(bool(found[k] == best))
    assert sum(reached) >= 5  # of 8: what no vertex near a random start leads to stays out of reach


def problem_of(first, second, symmetric):
    number, n = first.shape[:2]
    return _Problem(first, second, torch.full((number,), n), torch.ones(number, n, dtype=torch.bool), symmetric)


def test_gradient_is_that_of_the_objective():
    first, second = random_matrices(3, 6, 0)
    matrix = torch.rand(3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    value = (first * (matrix @ second @ matrix.mT)).sum()
    expected = torch.autograd.grad(value, matrix)[0]
    gradient = problem_of(first, second, False).gradient(lambda other: matrix @ other)
    torch.testing.assert_close(gradient, expected)
    first, second = first + first.mT, second + second.mT
    both = [problem_of(first, second, s).gradient(lambda other: matrix @ other) for s in (True, False)]
    torch.testing.assert_close(both[0], both[1])


def test_line_search_is_the_best_of_a_grid():
    square, linear = torch.randn(2, 200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = torch.linspace(0, 1, 10001, dtype=torch.float64).unsqueeze(1)
    best = (square * grid**2 + linear * grid).max(0).values
    step = _line_search(square, linear)
    assert ((step >= 0) & (step <= 1)).all()
    assert (square * step**2 + linear * step >= best).all()


@pytest.mark.parametrize("symmetric", [True, False])
def test_scipy_from_the_same_start_ends_alike(symmetric):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 12, 15, 15, generator=generator, dtype=torch.float64)
    if symmetric:
        first, second = first + first.mT, second + second.mT
    for maximize in (True, False):
        pairs = GraphPairs.from_dense(first, second, minimize=not maximize)
        found = values_of(FAQ(), pairs)
        options = {"maximize": maximize, "rng": np.random.default_rng(0)}  # its default is to change with SciPy 1.17
        expected = torch.tensor(
            [quadratic_assignment(a.numpy(), b.numpy(), options=options).fun for a, b in zip(first, second)]
        )
        torch.testing.assert_close(found, expected)  # real weights: no ties for rounding to decide


def test_padded_batches_equal_single_pairs():
    sizes = [(5, 5), (4, 7), (8, 8)]
    ns, ms = torch.tensor(sizes).T
    first, second = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    singles = []
    for k, (n, m) in enumerate(sizes):
        a, b = random_matrices(1, n, k, True)[0, 0], random_matrices(1, m, k + 9, True)[1, 0]
        first[k, :n, :n], second[k, :m, :m] = a, b
        sides = Graphs(ns[k : k + 1], dense=a.unsqueeze(0)), Graphs(ms[k : k + 1], dense=b.unsqueeze(0))
        singles.append(GraphPairs(*sides, sample_id=torch.tensor([k])))
    pairs = GraphPairs(Graphs(ns, dense=first), Graphs(ms, dense=second))
    for network in (FAQ(), FAQ(restarts=3)):
        scores = network(pairs)
        for k, (n, m) in enumerate(sizes):
            assert torch.equal(scores[k, :n, :m], network(singles[k])[0])
            assert scores[k].sum() == n
        refined = network.refine(pairs, scores)
        for k, (n, m) in enumerate(sizes):
            assert torch.equal(refined[k, :n, :m], network.refine(singles[k], scores[k : k + 1, :n, :m])[0])


def test_refining_a_subgraph_keeps_all_its_edges():
    pairs = er_pairs(0.0, 6, 20)
    order = pairs.permutation[:, :15]
    first = Graphs(torch.full((6,), 15), dense=pairs.first.dense[:, :15, :15])
    inside = GraphPairs(first, pairs.second, order)
    truth = torch.nn.functional.one_hot(order, 20).float()
    found = objective(assign(FAQ().refine(inside, truth), inside), inside)
    assert torch.equal(found, objective(order, inside))


def test_refining_the_planted_matching_keeps_it():
    pairs = er_pairs(0.05)
    truth = torch.nn.functional.one_hot(pairs.permutation, 30).float()
    assert torch.equal(FAQ().refine(pairs, truth), truth)
    assert torch.equal(FAQ(weight=1.0).refine(pairs, truth), truth)


def test_refined_network_improves_its_objective():
    pairs = er_pairs(0.05)
    plain = values_of(HandmadeFeatures(), pairs)
    refined = values_of(Refined(HandmadeFeatures(), [FAQ()]), pairs)
    assert (refined >= plain).all()
    assert refined.mean() > plain.mean()


def test_noise_free_graphs_are_recovered():
    pairs = er_pairs(0.0, 8, 50)
    assert assignment_accuracy(assign(FAQ()(pairs), pairs), pairs).mean() > 0.9


def test_more_restarts_are_never_worse_and_reproducible():
    pairs = er_pairs(0.2)
    values = [values_of(FAQ(restarts=number), pairs) for number in (1, 2, 5, 15)]
    assert all((more >= fewer).all() for fewer, more in itertools.pairwise(values))
    assert (values[-1] > values[0]).any()
    assert torch.equal(values[-1], values_of(FAQ(restarts=15), pairs))


def test_start_and_problem_are_left_as_given():
    first, second = random_matrices(2, 6, 3)
    start = torch.full((2, 6, 6), 1 / 6, dtype=torch.float64)
    copies = first.clone(), second.clone(), start.clone()
    columns = faq(first, second, start)
    assert torch.equal(columns.sort(1).values, torch.arange(6).expand(2, -1))
    assert all(torch.equal(*both) for both in zip((first, second, start), copies))


def test_random_starts_are_doubly_stochastic():
    matrix = random_doubly_stochastic(9, np.random.default_rng(0), iterations=100)
    np.testing.assert_allclose(matrix.sum(0), 1)
    np.testing.assert_allclose(matrix.sum(1), 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("restarts", 0), ("iterations", 0), ("seed", -1), ("tolerance", -0.1), ("weight", 0.0), ("weight", 1.5)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=rf"FAQ\({argument}={value}\): must be"):
        FAQ(**{argument: value})
