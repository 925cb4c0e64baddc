"""Spectral baselines for community detection on sparse graphs."""

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from .clustering import ClusteringBaseline, Structure, extreme_eigenvectors, kmeans, normalize_rows


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


class BetheHessian(ClusteringBaseline):
    r"""Cluster the eigenvectors of the smallest eigenvalues of the Bethe Hessian by k-means.

    Rows of the eigenvector matrix are scaled to length one first: on sparse graphs nodes of high degree have large
    entries. With c the average degree of the graph, :math:`r = \sqrt{c}` and k eigenvectors for associative
    communities, :math:`r = -\sqrt{c}` and k - 1 eigenvectors for disassociative ones. With structure ``auto`` and no
    ``graph.probs`` the sign with more negative eigenvalues (by sum, the trivial one left out) is taken.

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
            gain = {name: np.minimum(values[-(k - 1) :], 0).sum() for name, (values, _) in found.items()}
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
