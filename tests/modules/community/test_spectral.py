"""Spectral baselines: operators against their identities, clusterings against planted communities."""

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.cluster import KMeans
from torch_geometric.data import Batch, Data

from theodolite.modules.community.clustering import (
    ClusteringBaseline,
    adjacency_matrix,
    extreme_eigenvectors,
    kmeans,
    rightmost_eigenvectors,
)
from theodolite.modules.community.spectral import (
    BetheHessian,
    NonBacktracking,
    NormalizedLaplacian,
    PowerIteration,
    bethe_hessian,
    nonbacktracking_companion,
    normalized_adjacency,
)

ALL = [BetheHessian, NonBacktracking, NormalizedLaplacian, PowerIteration]


def edges_of(graph: nx.Graph) -> torch.Tensor:
    return torch.tensor(sorted([*graph.edges, *((j, i) for i, j in graph.edges)]), dtype=torch.long).reshape(-1, 2).T


def sbm(sizes: list[int], inside: float, between: float, seed: int) -> Data:
    k = len(sizes)
    probs = [[inside if s == t else between for s in range(k)] for t in range(k)]
    graph = nx.stochastic_block_model(sizes, probs, seed=seed)
    y = torch.arange(k).repeat_interleave(torch.tensor(sizes))
    return Data(edge_index=edges_of(graph), num_nodes=sum(sizes), y=y, probs=torch.tensor([probs]))


def accuracy(prediction: torch.Tensor, y: torch.Tensor, k: int) -> float:
    return max((torch.tensor(p)[prediction] == y).double().mean().item() for p in itertools.permutations(range(k)))


def matrix_of(graph: nx.Graph) -> scipy.sparse.csr_array:
    return adjacency_matrix(edges_of(graph).numpy(), graph.number_of_nodes())


def nonbacktracking(graph: nx.Graph) -> np.ndarray:
    """B[(i, j), (j, l)] = 1 iff l != i, written out edge by edge."""
    edges = edges_of(graph).T.tolist()
    return np.array([[float(j == u and v != i) for u, v in edges] for i, j in edges])


@pytest.mark.parametrize("r", [1.7, -1.7])
def test_bethe_hessian_is_networkx_own(r: float) -> None:
    graph = nx.karate_club_graph()
    expected = nx.bethe_hessian_matrix(nx.Graph(graph.edges), r=r, nodelist=range(34)).toarray()
    np.testing.assert_allclose(bethe_hessian(matrix_of(graph), r).toarray(), expected, atol=1e-12)


def test_normalized_adjacency_is_one_minus_networkx_laplacian() -> None:
    graph = nx.Graph(nx.karate_club_graph().edges)
    expected = np.eye(34) - nx.normalized_laplacian_matrix(graph, nodelist=range(34)).toarray()
    np.testing.assert_allclose(normalized_adjacency(matrix_of(graph)).toarray(), expected, atol=1e-12)


def test_companion_has_the_spectrum_of_the_nonbacktracking_operator() -> None:
    """Ihara-Bass: det(I - uB) = (1 - u^2)^(m - n) det(I - uA + u^2 (D - I)), and the latter is det(I - uC)."""
    graph = nx.gnm_random_graph(9, 16, seed=1)
    n, m = 9, 16
    adjacency = matrix_of(graph).toarray()
    degree = np.diag(adjacency.sum(1))
    companion = nonbacktracking_companion(matrix_of(graph)).toarray()
    operator = nonbacktracking(graph)
    for u in (0.3, -0.7, 0.45 + 0.2j):
        left = np.linalg.det(np.eye(2 * m) - u * operator)
        deformed = np.linalg.det(np.eye(n) - u * adjacency + u**2 * (degree - np.eye(n)))
        assert left == pytest.approx((1 - u**2) ** (m - n) * deformed, rel=1e-9)
        assert np.linalg.det(np.eye(2 * n) - u * companion) == pytest.approx(deformed, rel=1e-9)


def test_companion_eigenvector_sums_the_operators_over_incoming_edges() -> None:
    graph = nx.gnm_random_graph(12, 30, seed=2)
    operator = nonbacktracking(graph)
    values, vectors = np.linalg.eig(operator.T)  # with this orientation sums run over the edges into a node
    top = values.real.argmax()
    incoming = np.zeros(12)
    np.add.at(incoming, edges_of(graph).numpy()[1], vectors[:, top].real)
    found, embedding = rightmost_eigenvectors(nonbacktracking_companion(matrix_of(graph)), 1, np.random.default_rng(0))
    assert found[0] == pytest.approx(values[top].real, rel=1e-9)
    score = embedding[:12, 0]
    assert abs(score @ incoming) == pytest.approx(np.linalg.norm(score) * np.linalg.norm(incoming), rel=1e-9)


@pytest.mark.parametrize("end", ["smallest", "largest"])
def test_sparse_eigenvectors_span_the_dense_ones(end: str) -> None:
    matrix = bethe_hessian(adjacency_matrix(sbm([200, 200], 0.05, 0.005, 0).edge_index.numpy(), 400), 3.3)
    dense_values, dense = np.linalg.eigh(matrix.toarray())
    order = np.arange(400) if end == "smallest" else np.arange(400)[::-1]
    values, vectors = extreme_eigenvectors(matrix, 2, end, np.random.default_rng(0))
    np.testing.assert_allclose(values, dense_values[order[:2]], atol=1e-4)
    overlap = np.linalg.svd(vectors.T @ dense[:, order[:2]])[1]
    np.testing.assert_allclose(overlap, 1, atol=1e-4)


def test_sparse_real_eigenvalues_of_the_companion_match_the_dense_ones() -> None:
    """For k = 2 the first is near c and the second near (a - b) / 2; the bulk has radius sqrt(c)."""
    graph = sbm([300, 300], 14 / 600, 2 / 600, 1)
    companion = nonbacktracking_companion(adjacency_matrix(graph.edge_index.numpy(), 600))
    values, _ = rightmost_eigenvectors(companion, 2, np.random.default_rng(0))
    spectrum = np.linalg.eigvals(companion.toarray())
    real = np.sort(spectrum[np.abs(spectrum.imag) < 1e-9].real)[::-1]
    np.testing.assert_allclose(values, real[:2], rtol=1e-4)
    np.testing.assert_allclose(values, [8, 6], rtol=0.1)
    assert np.abs(spectrum[np.abs(spectrum.imag) > 1e-9]).max() < 1.1 * np.sqrt(8)


def test_kmeans_is_as_good_as_sklearn() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(center, 0.6, (60, 2)) for center in ((0, 0), (2, 0), (0, 2), (2, 2))])
    labels = kmeans(points, 4, np.random.default_rng(1))
    error = sum(((points[labels == c] - points[labels == c].mean(0)) ** 2).sum() for c in range(4))
    reference = KMeans(4, n_init=10, random_state=0).fit(points).inertia_
    assert error <= reference * 1.0001


@pytest.mark.parametrize(
    "points", [np.zeros((0, 2)), np.zeros((1, 2)), np.zeros((5, 2)), np.eye(3)[:2], np.zeros((4, 0))]
)
def test_kmeans_with_fewer_distinct_points_than_clusters(points: np.ndarray) -> None:
    labels = kmeans(points, 4, np.random.default_rng(0))
    assert labels.shape == (len(points),)
    assert len(np.unique(labels)) == len(np.unique(points, axis=0))


@pytest.mark.parametrize("baseline", ALL)
@pytest.mark.parametrize("told", [True, False])
def test_easy_associative_communities_are_found_exactly(baseline: type[ClusteringBaseline], told: bool) -> None:
    graph = sbm([100, 100], 0.5, 0.02, seed=0)
    if not told:
        del graph.probs
    assert accuracy(baseline(2)(graph).argmax(1), graph.y, 2) == 1


@pytest.mark.parametrize("baseline", [BetheHessian, NonBacktracking, NormalizedLaplacian])
@pytest.mark.parametrize("told", [True, False])
def test_easy_disassociative_communities_are_found_exactly(baseline: type[ClusteringBaseline], told: bool) -> None:
    graph = sbm([70, 70, 70], 0.02, 0.5, seed=0)
    if not told:
        del graph.probs
    assert accuracy(baseline(3)(graph).argmax(1), graph.y, 3) == 1


@pytest.mark.parametrize("baseline", [BetheHessian, NonBacktracking])
def test_separate_giants_are_told_apart(baseline: type[ClusteringBaseline]) -> None:
    """No edge between the communities: each eigenvector lives on one of them and its sign says nothing."""
    graph = sbm([250, 250], 6 / 500, 0.0, seed=0)
    assert accuracy(baseline(2)(graph).argmax(1), graph.y, 2) > 0.93


def test_laplacian_labels_small_components_at_random() -> None:
    """Two planted halves, and 200 nodes without edges: those are a fair coin, k = 4 standard deviations."""
    graph = sbm([100, 100], 0.5, 0.02, seed=0)
    graph.num_nodes = 400
    labels = NormalizedLaplacian(2)(graph).argmax(1)
    assert accuracy(labels[:200], graph.y, 2) == 1
    assert abs(labels[200:].sum().item() - 100) < 4 * np.sqrt(200 / 4)


def test_power_iteration_with_many_steps_finds_the_bethe_hessian_eigenvector() -> None:
    graph = sbm([60, 60], 0.3, 0.03, seed=1)
    many = PowerIteration(2, steps=3000)(graph).argmax(1)
    assert accuracy(many, BetheHessian(2)(graph).argmax(1), 2) > 0.98


def test_power_iteration_with_thirty_steps_stays_near_chance_on_a_sparse_graph() -> None:
    graph = sbm([500, 500], 5.5 / 1000, 0.5 / 1000, seed=0)
    assert accuracy(BetheHessian(2)(graph).argmax(1), graph.y, 2) > 0.85
    assert accuracy(PowerIteration(2)(graph).argmax(1), graph.y, 2) < 0.65


@pytest.mark.parametrize("baseline", ALL)
def test_batch_gives_what_single_graphs_give_in_any_order(baseline: type[ClusteringBaseline]) -> None:
    graphs = [sbm([50, 50], 0.2, 0.02, 0), sbm([40, 80], 0.02, 0.15, 1), sbm([3, 3], 0.9, 0.1, 2)]
    network = baseline(2)
    apart = [network(graph) for graph in graphs]
    assert torch.equal(network(Batch.from_data_list(graphs)), torch.cat(apart))
    assert torch.equal(network(Batch.from_data_list(graphs[::-1])), torch.cat(apart[::-1]))


@pytest.mark.parametrize("baseline", ALL)
def test_relabelling_the_nodes_leaves_the_partition_of_an_easy_graph(baseline: type[ClusteringBaseline]) -> None:
    graph = sbm([130, 130], 0.4, 0.02, seed=7)
    order = torch.randperm(260, generator=torch.Generator().manual_seed(0))
    moved = order[graph.edge_index]
    moved = moved[:, (moved[0] * 260 + moved[1]).argsort()]
    shuffled = Data(edge_index=moved, num_nodes=260, probs=graph.probs)
    network = baseline(2)
    assert accuracy(network(shuffled).argmax(1)[order], network(graph).argmax(1), 2) == 1


@pytest.mark.parametrize("baseline", ALL)
def test_result_depends_on_the_seed_alone_and_spares_the_global_random_state(
    baseline: type[ClusteringBaseline],
) -> None:
    graph = sbm([150, 150], 0.02, 0.01, seed=0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first = baseline(3, seed=5)(graph)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(baseline(3, seed=5)(graph), first)


@pytest.mark.parametrize("baseline", ALL)
@pytest.mark.parametrize(
    ("edges", "num_nodes"),
    [
        ([], 0),
        ([], 1),
        ([], 3),
        ([(0, 1)], 2),
        ([(0, 1)], 4),
        ([(0, 1), (2, 3), (3, 4)], 7),
        ([(0, 1), (0, 2), (1, 2)], 3),
    ],
)
def test_tiny_and_broken_graphs(baseline: type[ClusteringBaseline], edges: list, num_nodes: int) -> None:
    graph = Data(edge_index=edges_of(nx.Graph(edges)), num_nodes=num_nodes)
    for structure in ("auto", "associative", "disassociative"):
        scores = baseline(5, structure)(graph)
        assert scores.shape == (num_nodes, 5)
        torch.testing.assert_close(scores.exp().sum(1), torch.ones(num_nodes))


def test_unknown_structure_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="associative"):
        BetheHessian(2, structure="assortative")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="steps"):
        PowerIteration(2, steps=0)
