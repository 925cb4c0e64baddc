"""Swaps, 2-opt, tabu search and SciPy's solvers: against recomputed costs, brute force and QAPLIB."""

import csv
import itertools
import time

import numpy as np
import pytest
import torch
from scipy.optimize import quadratic_assignment

from theodolite.modules.matching import (
    GraphPairs,
    Graphs,
    QAPSolver,
    ScipyFAQ,
    ScipyTwoOpt,
    TabuSearch,
    TwoOpt,
    assign,
    objective,
    qap_cost,
    swap_deltas,
)
from theodolite.modules.matching.local_search import shuffle_some


def integers(n, seed, symmetric=(False, False), diagonal=True):
    generator = torch.Generator().manual_seed(seed)
    matrices = []
    for make_symmetric in symmetric:
        matrix = torch.randint(0, 9, (n, n), generator=generator).double()
        matrix = matrix + matrix.T if make_symmetric else matrix
        matrices.append(matrix if diagonal else matrix.fill_diagonal_(0))
    return matrices


def permutations(n, number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(n, generator=generator) for _ in range(number)])


def recomputed_deltas(a, b, p):
    deltas = torch.zeros(len(p), len(p), dtype=torch.float64)
    for u, v in itertools.product(range(len(p)), repeat=2):
        q = p.clone()
        q[u], q[v] = p[v], p[u]
        deltas[u, v] = (a * b[q][:, q]).sum() - (a * b[p][:, p]).sum()
    return deltas


def optimum(a, b, maximize=False):
    everything = torch.tensor(list(itertools.permutations(range(len(a)))))
    costs = qap_cost(a, b, everything)
    return float(costs.max() if maximize else costs.min())


def qaplib(folder, name):
    path = folder / "qaplib" / f"{name}.dat"
    if not path.is_file():
        pytest.skip(f"no QAPLIB: {path} is missing; set THEODOLITE_TEST_DATA")
    n, *numbers = (int(word) for word in path.read_text().split())
    a, b = torch.tensor(numbers[: 2 * n * n], dtype=torch.float64).view(2, 1, n, n)
    with (folder / "qaplib" / "best_known.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["instance"] == name)
    return GraphPairs.from_dense(a, b, minimize=True), int(row["cost_recomputed_from_shipped_permutation"])


def value(network, pairs):
    return float(objective(assign(network(pairs), pairs), pairs)[0])


KINDS = [
    ((True, True), False),
    ((True, True), True),
    ((True, False), True),
    ((False, True), False),
    ((False, False), False),
    ((False, False), True),
]


@pytest.mark.parametrize(("symmetric", "diagonal"), KINDS)
def test_deltas_are_the_changes_of_the_recomputed_cost(symmetric, diagonal):
    a, b = integers(7, 0, symmetric, diagonal)
    starts = permutations(7, 3)
    expected = torch.stack([recomputed_deltas(a, b, p) for p in starts])
    assert torch.equal(swap_deltas(a, b, starts), expected)
    assert torch.equal(swap_deltas(a, b, starts[1]), expected[1])


@pytest.mark.parametrize(("symmetric", "diagonal"), KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_search_keeps_exact_deltas_and_costs_after_every_step(symmetric, diagonal, scale):
    a, b = integers(8, 1, symmetric, diagonal)
    a = a * scale
    search = TabuSearch(a, b, permutations(8, 4), torch.Generator().manual_seed(0))
    assert search.dtype == (torch.float32 if scale == 1 else torch.float64)
    for _ in range(40):
        search.run(1)
        assert torch.equal(search.permutation.sort(1).values, torch.arange(8).expand(4, -1))
        assert torch.equal(search.inverse, search.permutation.argsort(1))
        assert torch.equal(search.deltas.double(), swap_deltas(a, b, search.permutation))
        assert torch.equal(search.cost, qap_cost(a, b, search.permutation))
        assert torch.equal(search.best_cost, qap_cost(a, b, search.best))


def test_a_tabu_swap_returns_two_nodes_to_places_they_left_less_than_a_tenure_ago():
    n, steps = 9, 60
    a, b = integers(n, 2, (True, True), False)
    search = TabuSearch(a, b, permutations(n, 5), torch.Generator().manual_seed(1))
    left = np.full((5, n, n), -1000)
    aspired = forbidden = 0
    for step in range(1, steps + 1):
        before, best = search.permutation.clone(), search.best_cost.clone()
        search.run(1)
        for start in range(5):
            moved = (search.permutation[start] != before[start]).nonzero().flatten().tolist()
            if not moved:
                continue
            assert len(moved) == 2
            back = [step - left[start, node, search.permutation[start, node]] <= int(0.9 * n) for node in moved]
            if all(back):
                assert search.cost[start] < best[start]
                aspired += 1
            forbidden += any(back)
            for node in moved:
                left[start, node, before[start, node]] = step
    assert forbidden > aspired


@pytest.mark.parametrize("symmetric", [(True, True), (False, False)])
@pytest.mark.parametrize("maximize", [False, True])
def test_solver_finds_the_optimum_of_small_problems(symmetric, maximize):
    for n in range(1, 8):
        a, b = integers(n, n, symmetric)
        pairs = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0), minimize=not maximize)
        solver = QAPSolver(iterations=80, starts=8)
        assert value(solver, pairs) == optimum(a, b, maximize)


def test_smaller_first_graphs_are_matched_at_their_optimum():
    a, b = integers(4, 0, (True, True), False)[0], integers(6, 1, (True, True), False)[1]
    c, d = integers(5, 2, (True, True), False)
    padded = torch.zeros(2, 5, 5, dtype=torch.float64), torch.zeros(2, 6, 6, dtype=torch.float64)
    padded[0][0, :4, :4], padded[0][1], padded[1][0], padded[1][1, :5, :5] = a, c, b, d
    pairs = GraphPairs(Graphs(torch.tensor([4, 5]), dense=padded[0]), Graphs(torch.tensor([6, 5]), dense=padded[1]))
    isolated = torch.zeros(6, 6, dtype=torch.float64)
    isolated[:4, :4] = a
    best = torch.tensor([optimum(isolated, b, True), optimum(c, d, True)], dtype=torch.float64)
    networks = [QAPSolver(iterations=80, starts=8), TwoOpt(40), ScipyTwoOpt(40), ScipyFAQ()]
    for network in networks:
        scores = network(pairs)
        assert scores.shape == (2, 5, 6)
        assert scores.sum((1, 2)).tolist() == [4, 5]
        found = objective(assign(scores, pairs), pairs)
        assert (found <= best).all()
        if not isinstance(network, ScipyFAQ) or isinstance(network, ScipyTwoOpt):
            assert torch.equal(found, best), type(network).__name__


@pytest.mark.parametrize(
    "name", ["nug12", "had12", "chr12a", "esc16a", "rou12", "scr12", "tai12a", "bur26a", "chr25a", "nug30"]
)
def test_solver_reaches_the_proved_optimum_of_qaplib(data_dir, name):
    pairs, best = qaplib(data_dir, name)
    iterations = {"bur26a": 600, "chr25a": 2000, "nug30": 1500}.get(name, 240)
    assert value(QAPSolver(iterations=iterations), pairs) == best


def test_cost_convention_of_qaplib(data_dir):
    pairs, best = qaplib(data_dir, "chr12c")
    p = torch.tensor([[6, 4, 0, 2, 9, 3, 7, 5, 8, 10, 1, 11]])
    assert objective(p, pairs) == best == 11156
    assert objective(p.argsort(1), pairs) == 37812
    assert qap_cost(pairs.first.dense, pairs.second.dense, p) == 11156


def test_solver_with_iterations_is_reproducible_and_depends_on_the_seed_and_pair_only():
    a, b = integers(14, 3, (True, True), False)
    pairs = GraphPairs.from_dense(a.expand(2, -1, -1), b.expand(2, -1, -1), sample_id=torch.tensor([5, 6]))
    one = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0), sample_id=torch.tensor([6]))
    state = torch.get_rng_state()
    scores = QAPSolver(iterations=3, starts=4)(pairs)
    assert torch.equal(scores, QAPSolver(iterations=3, starts=4)(pairs))
    assert torch.equal(scores[1:], QAPSolver(iterations=3, starts=4)(one))
    assert not torch.equal(scores, QAPSolver(iterations=3, starts=4, seed=1)(pairs))
    assert torch.equal(state, torch.get_rng_state())


def test_solver_stops_at_its_time_budget():
    a, b = integers(30, 4, (True, True), False)
    pairs = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0))
    start = time.monotonic()
    QAPSolver(seconds=0.3)(pairs)
    assert 0.3 <= time.monotonic() - start < 3  # one step takes about a millisecond; the rest is a loaded machine


def test_two_opt_ends_where_no_swap_improves_and_no_worse_than_it_started():
    a, b = zip(*(integers(12, seed, (False, False)) for seed in range(3)), strict=True)
    pairs = GraphPairs.from_dense(torch.stack(a), torch.stack(b))
    scores = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    start = objective(assign(scores, pairs), pairs)
    for maximize in (True, False):
        pairs.minimize = not maximize
        matching = assign(TwoOpt().refine(pairs, scores), pairs)
        deltas = swap_deltas(pairs.first.dense, pairs.second.dense, matching)
        assert (deltas <= 0).all() if maximize else (deltas >= 0).all()
        change = objective(matching, pairs) - start
        assert (change > 0).all() if maximize else (change < 0).all()


def test_more_random_starts_of_two_opt_are_never_worse():
    a, b = integers(12, 5, (True, True), False)
    pairs = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0), minimize=True)
    values = [value(TwoOpt(restarts), pairs) for restarts in (1, 2, 5, 20)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]


def test_scipy_two_opt_with_restarts_reaches_the_optimum_of_small_problems():
    a, b = integers(6, 7, (True, True))
    pairs = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0))
    for maximize in (True, False):
        pairs.minimize = not maximize
        assert value(ScipyTwoOpt(60), pairs) == optimum(a, b, maximize)
        assert value(ScipyTwoOpt(seconds=0.5), pairs) == optimum(a, b, maximize)


def test_scipy_faq_starts_at_the_barycentre_and_restarts_are_never_worse():
    improved = False
    for seed, maximize in itertools.product(range(3), (True, False)):
        a, b = integers(12, seed)
        pairs = GraphPairs.from_dense(a.unsqueeze(0), b.unsqueeze(0), minimize=not maximize)
        values = [value(ScipyFAQ(restarts), pairs) for restarts in (1, 2, 8, 30)]
        assert (
            values[0]
            == quadratic_assignment(
                a.numpy(), b.numpy(), options={"maximize": maximize, "rng": np.random.default_rng(0)}
            ).fun
        )
        assert values == sorted(values, reverse=not maximize)
        improved |= values[-1] != values[0]
    assert improved


def test_shuffling_moves_exactly_the_places_asked_for():
    starts = permutations(10, 40)
    counts = torch.arange(40) % 9 + 2
    moved = shuffle_some(starts, counts, torch.Generator().manual_seed(0))
    assert torch.equal(moved.sort(1).values, torch.arange(10).expand(40, -1))
    assert torch.equal((moved != starts).sum(1), counts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QAPSolver(seconds=0), r"QAPSolver\(seconds=0\): must be above 0"),
        (lambda: QAPSolver(iterations=0), r"QAPSolver\(iterations=0\): must be at least 1"),
        (lambda: QAPSolver(starts=0), r"QAPSolver\(starts=0\)"),
        (lambda: QAPSolver(seed=-1), r"QAPSolver\(seed=-1\)"),
        (lambda: TwoOpt(restarts=0), r"TwoOpt\(restarts=0\)"),
        (lambda: ScipyFAQ(restarts=0), r"ScipyFAQ\(restarts=0\)"),
        (lambda: ScipyTwoOpt(seconds=-1), r"ScipyTwoOpt\(seconds=-1\)"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
