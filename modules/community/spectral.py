"""Spectral baselines for community detection on sparse graphs."""

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from .clustering import (
    ClusteringBaseline,
    Structure,
    extreme_eigenvectors,
    kmeans,
    normalize_rows,
    rightmost_eigenvectors,
)


def bethe_hessian(adjacency: scipy.sparse.csr_array, r: float) -> scipy.sparse.csr_array:
    r"""Build the Bethe Hessian.

    .. math:: H(r) = (r^2 - 1) I - r A + D

    From `"Spectral Clustering of Graphs with the Bethe Hessian" <https://arxiv.org/abs/1406.1880>`_ (Saade, Krzakala,
    Zdeborova 2014).

    Args:
        adjacency: Adjacency matrix A, (n, n).
        r: The square root of the average degree for associative communities, minus it for disassociative ones.
    """
    degree = adjacency.sum(1)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(r**2 - 1 + degree) - r * adjacency)


def normalized_adjacency(adjacency: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    r"""Build :math:`D^{-1/2} A D^{-1/2}`, (n, n): identity minus normalised Laplacian. Degrees must be positive."""
    scale = scipy.sparse.diags_array(adjacency.sum(1) ** -0.5)
    return scipy.sparse.csr_array(scale @ adjacency @ scale)


def nonbacktracking_companion(adjacency: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    r"""Build the companion matrix of the non-backtracking operator B, (2n, 2n).

    .. math:: C = \begin{pmatrix} A & I - D \\ I & 0 \end{pmatrix}

    By the Ihara-Bass identity its eigenvalues are those of B (2m x 2m, one row a directed edge) but for some at
    :math:`\pm 1`. An eigenvector is :math:`(g, g / \lambda)`, where :math:`g_i` is the sum of B's eigenvector over the
    edges into node i. From `"Spectral redemption in clustering sparse networks" <https://arxiv.org/abs/1306.5550>`_
    (Krzakala, Moore, Mossel, Neeman, Sly, Zdeborova, Zhang 2013).
    """
    degree = adjacency.sum(1)
    eye = scipy.sparse.eye_array(degree.size)
    blocks = [[adjacency, scipy.sparse.diags_array(1 - degree)], [eye, None]]
    return scipy.sparse.csr_array(scipy.sparse.block_array(blocks))


class BetheHessian(ClusteringBaseline):
    r"""Cluster the eigenvectors of the smallest eigenvalues of the Bethe Hessian by k-means.

    Rows of the eigenvector matrix are scaled to length one first: on sparse graphs nodes of high degree have large
    entries. With c the average degree of the graph, :math:`r = \sqrt{c}` and k eigenvectors for associative
    communities, :math:`r = -\sqrt{c}` and k - 1 eigenvectors for disassociative ones. With structure ``auto`` and no
    ``graph.probs`` the sign with the lower sum of k - 1 informative eigenvalues is taken.

    Labels come from k-means even for k = 2: where the graph falls apart into two large components (no edge between
    communities) the sign of an eigenvector says nothing, since each lives on one of them.
    """

    def cluster(self, adjacency: scipy.sparse.csr_array, structure: Structure, rng: np.random.Generator) -> np.ndarray:
        """Assign the nodes of one graph; see :class:`ClusteringBaseline`."""
        r = np.sqrt(adjacency.sum(1).mean())
        k = self.num_classes
        found = {}
        if structure != "disassociative":
            found["associative"] = extreme_eigenvectors(bethe_hessian(adjacency, r), k, "smallest", rng)
        if structure != "associative":
            found["disassociative"] = extreme_eigenvectors(bethe_hessian(adjacency, -r), k - 1, "smallest", rng)
        if structure == "auto":
            gain = {name: values[-(k - 1) :].sum() for name, (values, _) in found.items()}
            structure = min(gain, key=gain.__getitem__)
        return kmeans(normalize_rows(found[structure][1]), k, rng)


class NormalizedLaplacian(ClusteringBaseline):
    r"""Cluster the eigenvectors of the normalised Laplacian :math:`I - D^{-1/2} A D^{-1/2}` of the giant component.

    Associative communities show in its k smallest eigenvalues, disassociative ones in its k - 1 largest. On the whole
    of a sparse graph the method finds nothing but small components; so it sees the largest one only and every
    other node gets a random label.
    """

    def cluster(self, adjacency: scipy.sparse.csr_array, structure: Structure, rng: np.random.Generator) -> np.ndarray:
        """Assign the nodes of one graph; see :class:`ClusteringBaseline`."""
        k = self.num_classes
        labels = rng.integers(k, size=adjacency.sum(1).size)
        _, component = scipy.sparse.csgraph.connected_components(adjacency, directed=False)
        giant = np.flatnonzero(component == np.bincount(component).argmax())
        matrix = normalized_adjacency(scipy.sparse.csr_array(adjacency[giant][:, giant]))
        found = {}
        if structure != "disassociative":
            found["associative"] = extreme_eigenvectors(matrix, k, "largest", rng)
        if structure != "associative":
            found["disassociative"] = extreme_eigenvectors(matrix, k - 1, "smallest", rng)
        if structure == "auto":
            gain = {name: np.abs(values[-(k - 1) :]).sum() for name, (values, _) in found.items()}
            structure = max(gain, key=gain.__getitem__)
        labels[giant] = kmeans(normalize_rows(found[structure][1]), k, rng)
        return labels


class NonBacktracking(ClusteringBaseline):
    r"""Cluster the leading eigenvectors of the non-backtracking operator by k-means.

    A node's score is the sum of an eigenvector over the edges into it. The informative eigenvalues are real and lie
    outside the bulk, a disk of radius :math:`\sqrt{c}` (c the average degree): to its right for associative
    communities, where the first k (the trivial one keeps separate components apart) are taken, and to its left for
    disassociative ones, where k - 1 are taken. Rows are scaled to length one, as for :class:`BetheHessian`. With
    structure ``auto`` and no ``graph.probs`` the side with the larger informative eigenvalues counts.
    """

    def cluster(self, adjacency: scipy.sparse.csr_array, structure: Structure, rng: np.random.Generator) -> np.ndarray:
        """Assign the nodes of one graph; see :class:`ClusteringBaseline`."""
        k = self.num_classes
        matrix = nonbacktracking_companion(adjacency)
        found = {}
        if structure != "disassociative":
            found["associative"] = rightmost_eigenvectors(matrix, k, rng)
        if structure != "associative":
            found["disassociative"] = rightmost_eigenvectors(-matrix, k - 1, rng)
        if structure == "auto":
            gain = {name: values[-(k - 1) :].sum() for name, (values, _) in found.items()}
            structure = max(gain, key=gain.__getitem__)
        num_nodes = adjacency.indptr.size - 1
        return kmeans(normalize_rows(found[structure][1][:num_nodes]), k, rng)


class PowerIteration(ClusteringBaseline):
    r"""Iterate the shifted Bethe Hessian from a random start: the plain spectral method a graph network unrolls.

    .. math:: v \leftarrow M v, \qquad M = \|H(r)\|_\infty I - H(r)

    followed in each step by removal of the mean and orthonormalisation of the k - 1 columns; then k-means. From
    `"Supervised Community Detection with Line Graph Neural Networks" <https://arxiv.org/abs/1705.08415>`_ (Chen, Li,
    Bruna 2019), section 4. A weak baseline: the shift is far larger than the spectral gap, and 30 steps (the depth of
    the paper's networks) end near chance on sparse graphs.

    Args:
        num_classes: Number of communities k.
        structure: As for :class:`ClusteringBaseline`; ``auto`` without ``graph.probs`` keeps the sign of r whose
            columns end with the lower mean value of :math:`v^T H v`.
        seed: Seed of the start and of k-means.
        steps: Number of iterations.

    Raises:
        ValueError: If ``steps`` is below 1.
    """

    def __init__(self, num_classes: int, structure: Structure = "auto", seed: int = 0, steps: int = 30) -> None:
        super().__init__(num_classes, structure, seed)
        if steps < 1:
            msg = f"PowerIteration(steps={steps}): steps must be at least 1; the published networks have 30 layers."
            raise ValueError(msg)
        self.steps = steps

    def cluster(self, adjacency: scipy.sparse.csr_array, structure: Structure, rng: np.random.Generator) -> np.ndarray:
        """Assign the nodes of one graph; see :class:`ClusteringBaseline`."""
        degree = adjacency.sum(1)
        r = np.sqrt(degree.mean())
        start = rng.standard_normal((degree.size, min(self.num_classes - 1, degree.size)))
        signs = {"auto": (1, -1), "associative": (1,), "disassociative": (-1,)}[structure]
        best, lowest = start, np.inf
        for sign in signs:
            matrix = bethe_hessian(adjacency, sign * r)
            shift = abs(matrix).sum(1).max()
            vectors = start
            for _ in range(self.steps):
                vectors = shift * vectors - matrix @ vectors
                vectors = np.linalg.qr(vectors - vectors.mean(0))[0]
            energy = (vectors * (matrix @ vectors)).sum()
            if energy < lowest:
                best, lowest = vectors, energy
        return kmeans(best, self.num_classes, rng)
