"""What the spectral baselines share: k-means, extreme eigenvectors, and the shell that clusters graph by graph."""

from abc import abstractmethod
from typing import Any, Literal, cast, get_args

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch_geometric.data import Data

from ..graph_operators import graph_ids
from .base import NodeNetwork

#: Whether communities have more edges inside or between; ``auto`` finds out from ``graph.probs`` or the spectrum.
Structure = Literal["auto", "associative", "disassociative"]

#: Up to this many nodes a dense symmetric eigensolver is the faster one.
DENSE_NODES = 200

#: Probability mass a hard clustering leaves to the communities it did not choose.
SMOOTHING = 1e-3


def kmeans(
    points: np.ndarray, num_clusters: int, rng: np.random.Generator, restarts: int = 10, iterations: int = 100
) -> np.ndarray:
    """Cluster points by Lloyd's algorithm from k-means++ starts, keeping the start with the least squared error.

    Args:
        points: Coordinates, float (n, d).
        num_clusters: Number of clusters k; with fewer than k distinct points some clusters stay empty.
        rng: Source of the random starts.
        restarts: Number of starts.
        iterations: Largest number of Lloyd steps a start.

    Returns:
        The cluster of each point, int64 (n,), in [0, k).
    """
    num_points = len(points)
    best_labels, best_error = np.zeros(num_points, dtype=np.int64), np.inf
    if num_points == 0:
        return best_labels
    points = points - points.mean(0)
    norms = (points**2).sum(1)
    for _ in range(restarts):
        centers = points[rng.integers(num_points)][None]
        nearest = ((points - centers) ** 2).sum(1)
        while len(centers) < num_clusters:
            total = nearest.sum()
            # All points already are centers: any further one is a repeat and wins no point.
            chosen = rng.choice(num_points, p=nearest / total) if total > 0 else 0
            centers = np.concatenate([centers, points[chosen][None]])
            nearest = np.minimum(nearest, ((points - points[chosen]) ** 2).sum(1))
        labels = np.full(num_points, -1)
        error = np.inf
        for _ in range(iterations):
            distances = norms[:, None] - 2 * points @ centers.T + (centers**2).sum(1)
            moved = distances.argmin(1)
            error = distances[np.arange(num_points), moved].sum()
            if (moved == labels).all():
                break
            labels = moved
            members = np.eye(num_clusters)[labels]
            counts = members.sum(0)
            centers = np.where(counts[:, None] > 0, members.T @ points / np.maximum(counts, 1)[:, None], centers)
        if error < best_error:
            best_labels, best_error = labels, error
    return best_labels


def normalize_rows(points: np.ndarray) -> np.ndarray:
    """Scale every row of a float (n, d) array to length one; rows of zeros stay."""
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    return points / np.where(lengths > 0, lengths, 1)


def extreme_eigenvectors(
    matrix: scipy.sparse.csr_array, count: int, end: Literal["smallest", "largest"], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Find the eigenvalues at one end of a symmetric matrix's spectrum, and their eigenvectors.

    Args:
        matrix: Symmetric, (n, n).
        count: Number of eigenpairs; with n < count only n are found.
        end: Which end of the spectrum.
        rng: Source of the iterative solver's start vector.

    Returns:
        Eigenvalues (count,) from the end inwards, and eigenvectors as columns (n, count).
    """
    num_nodes = matrix.indptr.size - 1
    count = min(count, num_nodes)
    if num_nodes <= max(DENSE_NODES, count + 1):
        values, vectors = np.linalg.eigh(matrix.toarray())
        order = np.arange(num_nodes) if end == "smallest" else np.arange(num_nodes)[::-1]
        return values[order[:count]], vectors[:, order[:count]]
    start = rng.standard_normal(num_nodes)
    which = "SA" if end == "smallest" else "LA"
    options: dict[str, Any] = {"which": which, "v0": start, "ncv": min(num_nodes, max(4 * count, 40)), "tol": 1e-5}
    try:
        values, vectors = scipy.sparse.linalg.eigsh(matrix, count, **options)
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    order = np.argsort(values) if end == "smallest" else np.argsort(-values)
    return values[order], vectors[:, order]


def rightmost_eigenvectors(
    matrix: scipy.sparse.csr_array, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Find the real eigenvalues farthest to the right of a matrix that is not symmetric, and their eigenvectors.

    Args:
        matrix: Real, (n, n).
        count: Number of eigenpairs. Complex pairs only fill up where the search meets too few real ones; of them the
            real parts are given.
        rng: Source of the iterative solver's start vector.

    Returns:
        Real parts of the eigenvalues (m,) in falling order, real ones first, and of the eigenvectors as columns (n, m);
        m is at most ``count``.
    """
    num_rows = matrix.indptr.size - 1
    searched = count + 2
    if num_rows <= DENSE_NODES:
        spectrum = np.linalg.eig(matrix.toarray())
        values, vectors = spectrum.eigenvalues, spectrum.eigenvectors
    else:
        start = rng.standard_normal(num_rows)
        options: dict[str, Any] = {"which": "LR", "v0": start, "ncv": max(4 * searched, 40), "tol": 1e-5}
        try:
            found = scipy.sparse.linalg.eigs(matrix, searched, **options)
            values, vectors = cast(tuple[np.ndarray, np.ndarray], found)
        except scipy.sparse.linalg.ArpackNoConvergence as error:
            values, vectors = error.eigenvalues, error.eigenvectors
    # lexsort: the last key counts first.
    order = np.lexsort((-np.real(values), np.abs(np.imag(values)) > 1e-6))[:count]
    return np.real(values)[order], np.real(vectors)[:, order]


def adjacency_matrix(edge_index: np.ndarray, num_nodes: int) -> scipy.sparse.csr_array:
    """Give the adjacency matrix, float64 (n, n), of an ``edge_index`` (2, E) with both directions of every edge."""
    ones = np.ones(edge_index.shape[1])
    return scipy.sparse.csr_array((ones, (edge_index[0], edge_index[1])), shape=(num_nodes, num_nodes))


class ClusteringBaseline(NodeNetwork):
    """Cluster every graph by itself, without training; the shell of the spectral baselines.

    Scores are logarithms of a smoothed one-hot vector: log(1 - 0.001) for the chosen community, log(0.001 / (k - 1))
    for the others. The result depends on ``seed`` and the graph alone: not on its place in the batch nor on the global
    random state. Works on the CPU with SciPy, whatever the device of the graph.

    Args:
        num_classes: Number of communities k.
        structure: Whether communities have more edges inside (``associative``) or between (``disassociative``);
            ``auto`` reads it off ``graph.probs`` where present and off the spectrum otherwise.
        seed: Seed of k-means and of the eigensolver's start.

    Raises:
        ValueError: If ``num_classes`` is below 2 or ``structure`` is unknown.
    """

    def __init__(self, num_classes: int, structure: Structure = "auto", seed: int = 0) -> None:
        super().__init__(num_classes)
        if structure not in get_args(Structure):
            msg = (
                f"{type(self).__name__}(structure={structure!r}): structure must be one of "
                f"{', '.join(get_args(Structure))}."
            )
            raise ValueError(msg)
        self.structure: Structure = structure
        self.seed = seed

    @abstractmethod
    def cluster(self, adjacency: scipy.sparse.csr_array, structure: Structure, rng: np.random.Generator) -> np.ndarray:
        """Assign the nodes of one graph, n >= 1 nodes and at least one edge, to communities.

        Args:
            adjacency: Adjacency matrix (n, n).
            structure: What is known about the communities.
            rng: Source of randomness, a pure function of the seed.

        Returns:
            Labels, int64 (n,), in [0, num_classes).
        """

    @torch.no_grad()
    def forward(self, graph: Data) -> Tensor:
        """Score the nodes of a batch; see :class:`NodeNetwork`."""
        node_graph, num_graphs = graph_ids(graph)
        edge_index = cast(Tensor, graph.edge_index)
        sizes = torch.bincount(node_graph, minlength=num_graphs)
        degrees = torch.bincount(node_graph[edge_index[0]], minlength=num_graphs)
        structures = self._structures(graph, num_graphs)
        labels = []
        first = 0
        for size, edges, structure in zip(
            sizes.tolist(), edge_index.cpu().split(degrees.tolist(), 1), structures, strict=True
        ):
            rng = np.random.default_rng(self.seed)
            if edges.shape[1] == 0:
                labels.append(rng.integers(self.num_classes, size=size))
            else:
                adjacency = adjacency_matrix(edges.numpy() - first, size)
                labels.append(self.cluster(adjacency, structure, rng))
            first += size
        chosen = torch.from_numpy(np.concatenate(labels)).to(edge_index.device)
        scores = torch.full(
            (chosen.numel(), self.num_classes), SMOOTHING / (self.num_classes - 1), device=chosen.device
        )
        return scores.scatter_(1, chosen[:, None], 1 - SMOOTHING).log_()

    def _structures(self, graph: Data, num_graphs: int) -> list[Structure]:
        """Give the structure of every graph: the argument, else what ``graph.probs`` (B, k, k) says, else ``auto``."""
        probs = getattr(graph, "probs", None)
        if self.structure != "auto" or probs is None:
            return [self.structure] * num_graphs
        k = probs.shape[-1]
        inside = probs.diagonal(dim1=1, dim2=2).mean(1)
        between = (probs.sum((1, 2)) - inside * k) / max(k * (k - 1), 1)
        return ["associative" if more else "disassociative" for more in (inside >= between).tolist()]
