"""Graphs with overlapping ground-truth communities from SNAP, and the published two-community instances cut from them.

Data: "Defining and evaluating network communities based on ground-truth" (arXiv:1205.6233), https://snap.stanford.edu.
Experiment: section 6.3 of "Supervised Community Detection with Line Graph Neural Networks" (arXiv:1705.08415).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp

from .edge_list import IntArray, compact_ids, parse_integer_edges, parse_integers, read_bytes, simplify

_CHUNK = 4_000_000  # neighbours looked at together in `cut_instances`; bounds its memory to about 150 MB


@dataclass(frozen=True)
class CommunityGraph:
    """An undirected graph with communities that may overlap.

    Attributes:
        adjacency: Symmetric 0/1 matrix (n, n), CSR with sorted columns, no loops.
        communities: 0/1 matrix (communities, n), CSR with sorted columns: the members of each community.
        node_ids: The file's id of each node, int64 (n,), increasing.
    """

    adjacency: sp.csr_array
    communities: sp.csr_array
    node_ids: IntArray


@dataclass(frozen=True)
class Instances:
    """Subgraphs on the union of two communities, stored one after the other.

    Instance i has the nodes ``node_ptr[i]:node_ptr[i + 1]`` and the edges ``edge_ptr[i]:edge_ptr[i + 1]``.

    Attributes:
        pairs: Numbers of the two communities C1, C2 of each instance, int64 (instances, 2).
        node_ptr: int64 (instances + 1,).
        nodes: Row of the node in the whole graph, int64 (nodes of all instances,).
        labels: 0 for nodes of C1 alone, 1 of C2 alone, 2 of both, int64, like ``nodes``.
        edge_ptr: int64 (instances + 1,).
        edges: int64 (2, edges of all instances), both directions, sorted, numbered from 0 in each instance.
    """

    pairs: IntArray
    node_ptr: IntArray
    nodes: IntArray
    labels: IntArray
    edge_ptr: IntArray
    edges: IntArray

    def __len__(self) -> int:
        """Give the number of instances."""
        return len(self.pairs)


class Statistics(NamedTuple):
    """Sizes of a set of instances, as printed in the paper's Table 2, and what guessing scores on it.

    Attributes:
        instances: Number of instances.
        mean_nodes: Mean number of nodes.
        mean_edges: Mean number of entries of ``edge_index``, which counts both directions of an edge.
        best_single_label: Accuracy of giving all nodes of a graph its most frequent label, mean over graphs.
    """

    instances: int
    mean_nodes: float
    mean_edges: float
    best_single_label: float


def read_community_graph(edge_path: Path, community_path: Path) -> CommunityGraph:
    """Read SNAP's ``*.ungraph.txt`` and ``*.cmty.txt``, gzipped or not, with or without ``#`` header lines.

    Takes about half a second for com-DBLP (1,049,866 edges).

    Args:
        edge_path: Two node ids on each line.
        community_path: The node ids of one community on each line.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is empty, damaged or malformed, or a community has a node that no edge has; the message
            names file and line.
    """
    u, v = parse_integer_edges(read_bytes(edge_path), str(edge_path))
    node_ids, rows = compact_ids(np.concatenate((u, v)))
    n = len(node_ids)
    edge_index = simplify(rows[: len(u)], rows[len(u) :], n).edge_index.numpy()
    indptr = np.searchsorted(edge_index[0], np.arange(n + 1))
    adjacency = sp.csr_array((np.ones(edge_index.shape[1], np.int8), edge_index[1], indptr), shape=(n, n))

    values, counts = parse_integers(read_bytes(community_path), str(community_path))
    if not len(values):
        msg = f"{community_path}: there are no communities in it; give a file with one community on each line."
        raise ValueError(msg)
    members = np.minimum(np.searchsorted(node_ids, values), n - 1)
    unknown = node_ids[members] != values
    if unknown.any():
        first = int(unknown.argmax())
        line = int(np.searchsorted(counts.cumsum(), first, side="right")) + 1
        msg = (
            f"{community_path}, line {line}: node {values[first]} is not in the graph {edge_path}; take both files "
            "from the same data set."
        )
        raise ValueError(msg)
    sizes = counts[counts > 0]
    indptr = np.concatenate(([0], sizes.cumsum()))
    communities = sp.csr_array((np.ones(len(members), np.int8), members, indptr), shape=(len(sizes), n))
    communities.sum_duplicates()  # also sorts the columns; a node listed twice is one member
    communities.data[:] = 1
    return CommunityGraph(adjacency, communities, node_ids)


def community_pairs(graph: CommunityGraph, max_community_size: int) -> IntArray:
    """Find the pairs of communities that an edge crosses.

    For every edge (i, j): C1 is the largest community that has i and not j, C2 the largest that has j and not i, among
    the communities of at most ``max_community_size`` nodes; of equally large ones the first in the file (so identical
    communities count once). The edge gives a pair if both exist.

    Args:
        graph: The graph with its communities.
        max_community_size: Larger communities are left out, in nodes.

    Returns:
        The distinct pairs, int64 (pairs, 2), smaller number first, in increasing order.
    """
    sizes = np.diff(graph.communities.indptr)
    keep = sizes <= max_community_size
    membership = sp.csr_array((graph.communities * keep[:, None]).T)
    membership.eliminate_zeros()
    upper = sp.triu(graph.adjacency, format="coo")
    covered = np.diff(membership.indptr) > 0
    crossing = covered[upper.row] & covered[upper.col]
    first, second = membership[upper.row[crossing]], membership[upper.col[crossing]]
    shared = first.multiply(second)
    only_first, only_second = sp.csr_array(first - shared), sp.csr_array(second - shared)
    only_first.eliminate_zeros()
    only_second.eliminate_zeros()
    both = (np.diff(only_first.indptr) > 0) & (np.diff(only_second.indptr) > 0)
    if not both.any():
        return np.empty((0, 2), np.int64)
    rank = np.empty(len(sizes), np.int64)
    order = np.lexsort((-np.arange(len(sizes)), sizes))  # by size, then the first in the file highest
    rank[order] = np.arange(len(sizes))

    def largest(choices: sp.csr_array) -> IntArray:
        chosen = choices[both]
        return order[np.maximum.reduceat(rank[chosen.indices], chosen.indptr[:-1])]

    pairs = np.stack((largest(only_first), largest(only_second)), axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def split_pairs(
    pairs: IntArray, val_fraction: float, test_fraction: float, seed: int
) -> dict[Literal["train", "val", "test"], IntArray]:
    """Split pairs so that no community is in two splits; pairs across splits are left out.

    The communities that occur are shuffled; the first ``test_fraction`` of them are for the test, of the others
    ``val_fraction`` for validation. So the test split does not depend on ``val_fraction``, and of P pairs about
    ``P test_fraction^2`` become test pairs.

    Args:
        pairs: Pairs of communities, int64 (P, 2).
        val_fraction: Share of the communities not in the test split that are for validation, in [0, 1).
        test_fraction: Share of the communities for the test, in (0, 1).
        seed: Seed of the shuffle, >= 0.
    """
    communities, numbers = np.unique(pairs, return_inverse=True)
    numbers = numbers.reshape(pairs.shape)
    order = np.random.default_rng(seed).permutation(len(communities))
    num_test = round(test_fraction * len(communities))
    num_val = round(val_fraction * (len(communities) - num_test))
    side = np.zeros(len(communities), np.int64)
    side[order[:num_test]] = 2
    side[order[num_test : num_test + num_val]] = 1

    def inside(which: int) -> IntArray:
        return pairs[(side[numbers] == which).all(axis=1)]

    return {"train": inside(0), "val": inside(1), "test": inside(2)}


def pairs_apart(graph: CommunityGraph, pairs: IntArray, others: IntArray) -> IntArray:
    """Keep the pairs whose communities share no node with any community of the other pairs.

    Args:
        graph: The graph with its communities.
        pairs: Pairs to choose from, int64 (P, 2).
        others: Pairs to stay apart from, int64 (Q, 2).
    """
    seen = np.zeros(len(graph.node_ids), np.int64)
    seen[graph.communities[np.unique(others)].indices] = 1
    touched = (graph.communities @ seen) > 0
    return pairs[~touched[pairs].any(axis=1)]


def cut_instances(graph: CommunityGraph, pairs: IntArray) -> Instances:
    """Cut the subgraph on C1 u C2 for each pair (C1, C2), in time proportional to the degrees of the nodes involved.

    Args:
        graph: The graph with its communities.
        pairs: Pairs of communities, int64 (P, 2), P >= 1.
    """
    union = sp.csr_array(graph.communities[pairs[:, 0]] + 2 * graph.communities[pairs[:, 1]])
    union.sort_indices()
    node_ptr, nodes = union.indptr.astype(np.int64), union.indices.astype(np.int64)
    n, indptr, indices = len(graph.node_ids), graph.adjacency.indptr, graph.adjacency.indices
    owner = np.repeat(np.arange(len(pairs)), np.diff(node_ptr))
    key = owner * n + nodes  # increasing: instances in order, and nodes in order within each
    degree = np.diff(indptr)[nodes].astype(np.int64)
    work = degree.cumsum()
    bounds = np.searchsorted(work, np.arange(0, work[-1], _CHUNK), side="left")
    parts = []
    for first, last in zip(bounds, [*bounds[1:], len(nodes)], strict=True):
        count = degree[first:last]
        row = np.repeat(np.arange(first, last), count)
        offset = np.arange(len(row)) - np.repeat(count.cumsum() - count, count)
        wanted = owner[row] * n + indices[indptr[nodes[row]] + offset]
        column = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        inside = key[column] == wanted
        parts.append(np.stack((row[inside], column[inside])))
    edges = np.concatenate(parts, axis=1)
    edge_ptr = np.searchsorted(edges[0], node_ptr)
    edges -= node_ptr[owner[edges[0]]]
    return Instances(pairs, node_ptr, nodes, union.data.astype(np.int64) - 1, edge_ptr, edges)


def summarize(instances: Instances) -> Statistics:
    """Compute the statistics of a set of at least one instance."""
    sizes = np.diff(instances.node_ptr)
    owner = np.repeat(np.arange(len(instances)), sizes)
    counts = np.bincount(3 * owner + instances.labels, minlength=3 * len(instances)).reshape(-1, 3)
    return Statistics(
        len(instances),
        float(sizes.mean()),
        float(np.diff(instances.edge_ptr).mean()),
        float((counts.max(axis=1) / sizes).mean()),
    )
