"""Belief propagation against brute force, known fixed points and planted communities."""

import itertools
import math

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from theodolite.modules.community.belief_propagation import BeliefPropagation, solve
from theodolite.modules.community.block_model import (
    BlockModelProblem,
    free_energy,
    learn_parameters,
    occupation_numbers,
    sweep_messages,
)
from theodolite.modules.graph_operators import reverse_edges


def edges_of(graph: nx.Graph) -> torch.Tensor:
    return torch.tensor(sorted([*graph.edges, *((j, i) for i, j in graph.edges)]), dtype=torch.long).reshape(-1, 2).T


def sbm(sizes: list[int], inside: float, between: float, seed: int) -> Data:
    k = len(sizes)
    probs = [[inside if s == t else between for s in range(k)] for t in range(k)]
    graph = nx.stochastic_block_model(sizes, probs, seed=seed)
    return Data(
        edge_index=edges_of(graph),
        num_nodes=sum(sizes),
        y=torch.arange(k).repeat_interleave(torch.tensor(sizes)),
        probs=torch.tensor([probs], dtype=torch.float64),
        sizes=torch.tensor([sizes]),
    )


def accuracy(prediction: torch.Tensor, y: torch.Tensor, k: int) -> float:
    return max((torch.tensor(p)[prediction] == y).double().mean().item() for p in itertools.permutations(range(k)))


def problem_of(edge_index: torch.Tensor, num_nodes: int, prior: torch.Tensor, affinity: torch.Tensor, field: bool):
    return BlockModelProblem(
        row=edge_index[0],
        reverse=reverse_edges(edge_index, num_nodes),
        node_graph=torch.zeros(num_nodes, dtype=torch.long),
        edge_graph=torch.zeros(edge_index.shape[1], dtype=torch.long),
        log_prior=prior.log()[:, None],
        affinity=affinity[:, :, None],
        sizes=torch.tensor([float(num_nodes)], dtype=prior.dtype),
        external_field=field,
    )


def random_start(k: int, num_edges: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(k, num_edges, generator=torch.Generator().manual_seed(seed), dtype=dtype).softmax(0)


def brute_force(edges: list[tuple[int, int]], num_nodes: int, prior: torch.Tensor, affinity: torch.Tensor):
    """Marginals (n, k) and log partition function of prod_i prior[t_i] prod_(ij) affinity[t_i, t_j]."""
    k = len(prior)
    marginals, total = torch.zeros(num_nodes, k, dtype=torch.float64), 0.0
    for labels in itertools.product(range(k), repeat=num_nodes):
        weight = math.prod(prior[t].item() for t in labels)
        weight *= math.prod(affinity[labels[i], labels[j]].item() for i, j in edges)
        total += weight
        for node, label in enumerate(labels):
            marginals[node, label] += weight
    return marginals / total, math.log(total)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("forbidden", [False, True])
def test_messages_on_a_tree_give_the_exact_marginals_and_partition_function(k: int, forbidden: bool) -> None:
    tree = nx.from_prufer_sequence([3, 3, 0, 5, 1])
    generator = torch.Generator().manual_seed(k)
    prior = torch.rand(k, generator=generator, dtype=torch.float64).add(0.1)
    prior /= prior.sum()
    affinity = torch.rand(k, k, generator=generator, dtype=torch.float64) * 4
    affinity = affinity + affinity.T
    if forbidden:
        affinity.fill_diagonal_(0)
    edge_index = edges_of(tree)
    problem = problem_of(edge_index, 7, prior, affinity, field=False)
    solution = solve(problem, random_start(k, 12), iterations=100, damping=0.0, tolerance=1e-15)
    totals = sweep_messages(solution.problem, solution.incoming, solution.occupation).totals
    marginals, log_partition = brute_force(list(tree.edges), 7, prior, affinity)
    torch.testing.assert_close(totals.softmax(0).T, marginals, rtol=0, atol=1e-12)
    energy = free_energy(problem, solution.incoming, solution.occupation)
    assert -7 * energy.item() == pytest.approx(log_partition, abs=1e-10)


def test_impossible_edges_keep_messages_and_energy_finite() -> None:
    """A triangle cannot be coloured with two colours: every state has weight zero."""
    problem = problem_of(edges_of(nx.complete_graph(3)), 3, torch.full((2,), 0.5), 6 * (1 - torch.eye(2)), field=True)
    start = torch.tensor([[1.0, 0.0]]).T.expand(2, 6).contiguous()
    solution = solve(problem, start, iterations=50)
    assert solution.incoming.isfinite().all()
    assert free_energy(problem, solution.incoming, solution.occupation).isfinite().all()


def test_uniform_messages_are_a_fixed_point_for_equal_blocks_of_a_regular_graph() -> None:
    k, n = 3, 12
    edge_index = edges_of(nx.random_regular_graph(4, n, seed=0))
    affinity = torch.full((k, k), 2.0, dtype=torch.float64).fill_diagonal_(8.0)
    problem = problem_of(edge_index, n, torch.full((k,), 1 / k, dtype=torch.float64), affinity, field=True)
    uniform = torch.full((k, edge_index.shape[1]), 1 / k, dtype=torch.float64)
    occupation = torch.full((k, 1), n / k, dtype=torch.float64)
    swept = sweep_messages(problem, uniform, occupation)
    torch.testing.assert_close(swept.incoming, uniform, rtol=0, atol=1e-15)
    torch.testing.assert_close(occupation_numbers(problem, swept.totals), occupation)
    # There, with c = (8 + 2 * 2) / 3 = 4: log Z^ij = log 4, log Z^i = -4 + 4 log 4, so f = 2 log 4 - 4 log 4 + 4 - 2.
    assert free_energy(problem, uniform, occupation).item() == pytest.approx(2 - 2 * math.log(4), abs=1e-12)


def test_small_perturbations_grow_at_the_eigenvalue_of_the_paper() -> None:
    """Linearised at the uniform point a message perturbation is multiplied by lambda = (a - b) / (k c) an edge."""
    k, n = 2, 10
    edge_index = edges_of(nx.cycle_graph(n))
    a, b = 3.0, 1.0  # c = 2, the cycle's degree; lambda = 0.5
    affinity = torch.full((k, k), b, dtype=torch.float64).fill_diagonal_(a)
    problem = problem_of(edge_index, n, torch.full((k,), 0.5, dtype=torch.float64), affinity, field=True)
    bump = 1e-6 * torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    start = torch.full((k, 2 * n), 0.5, dtype=torch.float64)
    start[:, :1] += bump
    swept = sweep_messages(problem, start, torch.full((k, 1), n / 2, dtype=torch.float64)).incoming - 0.5
    moved = swept.abs().sum(0) > 1e-12
    # The message 1 -> 0 (edge (0, 1)) is passed on as 0 -> 9, which is incoming for edge (9, 0).
    assert moved.nonzero().flatten().tolist() == [edge_index.T.tolist().index([9, 0])]
    torch.testing.assert_close(swept[:, moved], 0.5 * bump, rtol=1e-5, atol=0)


def test_energy_is_stationary_at_a_fixed_point() -> None:
    graph = sbm([40, 40], 0.2, 0.02, seed=1)
    prior = torch.full((2,), 0.5, dtype=torch.float64)
    problem = problem_of(graph.edge_index, 80, prior, graph.probs[0] * 80, field=True)
    start = random_start(2, graph.num_edges)
    solution = solve(problem, start, iterations=2000, tolerance=1e-13)
    assert solution.converged.all()
    at_rest = free_energy(problem, solution.incoming, solution.occupation)
    direction = torch.tensor([[1.0], [-1.0]], dtype=torch.float64) * random_start(1, graph.num_edges, 5)
    sizes = (1e-3, 1e-4)
    changes = []
    for size in sizes:
        nudged = (solution.incoming.log() + size * direction).softmax(0)
        changes.append((free_energy(problem, nudged, solution.occupation) - at_rest).abs().item())
    assert changes[1] < changes[0] / 50  # second order: 100 times smaller, not 10


def test_learning_from_the_true_messages_counts_the_edges() -> None:
    graph = sbm([30, 20], 0.3, 0.05, seed=3)
    prior = torch.full((2,), 0.5, dtype=torch.float64)
    problem = problem_of(graph.edge_index, 50, prior, torch.ones(2, 2, dtype=torch.float64), field=True)
    row, col = graph.edge_index
    truth = torch.nn.functional.one_hot(graph.y[col]).double().T
    learned = learn_parameters(problem, truth, torch.tensor([[30.0], [20.0]], dtype=torch.float64))
    within = ((graph.y[row] == 0) & (graph.y[col] == 0)).sum().item()
    across = ((graph.y[row] == 0) & (graph.y[col] == 1)).sum().item()
    assert learned.affinity[0, 0, 0].item() == pytest.approx(50 * within / 30**2)
    assert learned.affinity[0, 1, 0].item() == pytest.approx(50 * across / (30 * 20))
    torch.testing.assert_close(learned.log_prior.exp().flatten(), torch.tensor([0.6, 0.4], dtype=torch.float64))


@pytest.mark.parametrize("learn", [False, True])
def test_easy_communities_are_found_exactly(learn: bool) -> None:
    graph = sbm([100, 100], 0.5, 0.02, seed=0)
    scores = BeliefPropagation(2, learn=learn)(graph)
    assert accuracy(scores.argmax(1), graph.y, 2) == 1
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(200))


def test_planted_colouring_is_found() -> None:
    graph = sbm([60, 60, 60], 0.0, 0.3, seed=2)
    assert accuracy(BeliefPropagation(3)(graph).argmax(1), graph.y, 3) == 1


def test_parameters_are_learned_where_the_graph_does_not_tell_them() -> None:
    graph = sbm([500, 500], 0.014, 0.001, seed=4)
    told = accuracy(BeliefPropagation(2)(graph).argmax(1), graph.y, 2)
    blank = Data(edge_index=graph.edge_index, num_nodes=1000)
    learned = accuracy(BeliefPropagation(2)(blank).argmax(1), graph.y, 2)
    given = accuracy(BeliefPropagation(2, probs=[[0.014, 0.001], [0.001, 0.014]])(blank).argmax(1), graph.y, 2)
    assert told > 0.9
    assert given == told
    assert learned > told - 0.01


def test_below_the_threshold_marginals_are_uninformed() -> None:
    """SNR 0.27: the only fixed point has the same balance at every node of a degree, here nearly (1/2, 1/2)."""
    graph = sbm([300, 300], 4 / 600, 2 / 600, seed=0)
    assert (BeliefPropagation(2)(graph).exp() - 0.5).abs().max() < 0.05


def test_unequal_priors_leave_isolated_nodes_at_the_prior_times_the_field() -> None:
    """A node without edges: psi_t ~ n_t exp(-h_t), h_t = sum_s p_ts N_s."""
    probs = torch.tensor([[[0.2, 0.05], [0.05, 0.1]]], dtype=torch.float64)
    graph = Data(
        edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=10, probs=probs, sizes=torch.tensor([[7, 3]])
    )
    marginals = BeliefPropagation(2, iterations=500, tolerance=1e-7)(graph).exp().double()
    field = probs[0] @ marginals.sum(0)
    expected = (torch.tensor([0.7, 0.3], dtype=torch.float64).log() - field).softmax(0)
    torch.testing.assert_close(marginals, expected.expand(10, 2), rtol=0, atol=1e-5)


def test_batch_gives_what_single_graphs_give() -> None:
    graphs = [sbm([50, 50], 0.2, 0.02, 0), sbm([40, 80], 0.15, 0.02, 1), sbm([3, 3], 0.9, 0.1, 2)]
    network = BeliefPropagation(2)
    together = network(Batch.from_data_list(graphs))
    apart = torch.cat([network(graph) for graph in graphs])
    torch.testing.assert_close(together.exp(), apart.exp(), rtol=0, atol=1e-4)


def test_relabelling_the_nodes_leaves_the_partition_of_an_easy_graph() -> None:
    graph = sbm([60, 60], 0.4, 0.03, seed=7)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    moved = order[graph.edge_index]
    moved = moved[:, (moved[0] * 120 + moved[1]).argsort()]
    shuffled = Data(edge_index=moved, num_nodes=120, probs=graph.probs, sizes=graph.sizes)
    network = BeliefPropagation(2)
    assert accuracy(network(shuffled).argmax(1)[order], network(graph).argmax(1), 2) == 1


def test_result_depends_on_the_seed_alone_and_spares_the_global_random_state() -> None:
    graph = sbm([100, 100], 0.04, 0.01, seed=0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first = BeliefPropagation(2, seed=3)(graph)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(BeliefPropagation(2, seed=3)(graph), first)


def test_each_graph_keeps_its_converged_start_of_lowest_free_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    energies = torch.tensor([[1.0, 3.0, 2.0], [0.0, 2.0, torch.nan], [-1.0, 1.0, 5.0]], dtype=torch.float64)
    converged = torch.tensor([[True, True, False], [True, True, False], [False, True, False]])
    starts = torch.arange(3.0).view(3, 1, 1).expand(3, 2, 6)
    monkeypatch.setattr(BeliefPropagation, "_run", lambda self, problem, restarts, learn: (starts, energies, converged))
    batch = Batch.from_data_list([sbm([1, 1], 0.0, 1.0, 0)] * 3)
    assert BeliefPropagation(2, restarts=3)(batch)[:, 0].tolist() == [1, 1, 2, 2, 0, 0]


def test_restarts_in_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = sbm([60, 60], 0.1, 0.03, seed=5)
    # Several starts end at one fixed point, and rounding decides which of them is lowest: they agree to the tolerance.
    network = BeliefPropagation(2, restarts=5, tolerance=1e-5)
    at_once = network(graph)
    monkeypatch.setattr("theodolite.modules.community.belief_propagation.MAX_ENTRIES", 2 * 2 * graph.num_edges)
    torch.testing.assert_close(network(graph), at_once, rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_nodes", [0, 1, 3])
def test_graphs_without_edges_or_with_few_nodes(num_nodes: int) -> None:
    scores = BeliefPropagation(5)(Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=num_nodes))
    assert scores.shape == (num_nodes, 5)
    assert scores.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"iterations": 0}, "iterations"),
        ({"restarts": 0}, "restarts"),
        ({"damping": 1.0}, "damping"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"probs": [[0.5, 0.1]]}, "probs"),
        ({"probs": [[0.5, 0.1], [0.2, 0.5]]}, "symmetric"),
        ({"probs": [[1.5, 0.1], [0.1, 0.5]]}, "probabilities"),
        ({"num_classes": 1}, "num_classes"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        BeliefPropagation(**{"num_classes": 2, **arguments})


def test_a_graph_with_other_communities_is_refused() -> None:
    with pytest.raises(ValueError, match="num_classes=3"):
        BeliefPropagation(2)(sbm([5, 5, 5], 0.5, 0.1, seed=0))
