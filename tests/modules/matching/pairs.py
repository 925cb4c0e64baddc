"""Tiny pairs of graphs for the tests of matching."""

import numpy as np
import torch
from torch_geometric.data import Data

from theodolite.modules.matching import GraphPairs, Graphs


def random_graph(n, p=0.4, seed=0):
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < p, 1)
    return torch.from_numpy(upper | upper.T).float()


def shuffled(matrix, seed=0):
    """Renumber the nodes: node i becomes permutation[i]."""
    permutation = torch.from_numpy(np.random.default_rng(seed).permutation(len(matrix)))
    result = torch.empty_like(matrix)
    result[permutation[:, None], permutation] = matrix
    return result, permutation


def noise_free_pairs(n=12, batch=2, p=0.4, seed=0):
    first = [random_graph(n, p, seed + i) for i in range(batch)]
    second, permutations = zip(*(shuffled(matrix, seed + 100 + i) for i, matrix in enumerate(first)))
    return GraphPairs.from_dense(torch.stack(first), torch.stack(second), torch.stack(permutations))


def padded_side(matrices):
    """Put matrices of different sizes into one side, padded by zeros."""
    size = max(len(matrix) for matrix in matrices)
    dense = torch.zeros(len(matrices), size, size, dtype=matrices[0].dtype)
    for i, matrix in enumerate(matrices):
        dense[i, : len(matrix), : len(matrix)] = matrix
    return Graphs(torch.tensor([len(matrix) for matrix in matrices]), dense=dense)


def single(first, second):
    return GraphPairs.from_dense(first[None], second[None])


def circulant(n, steps):
    matrix = torch.zeros(n, n)
    for step in steps:
        for i in range(n):
            matrix[i, (i + step) % n] = matrix[(i + step) % n, i] = 1
    return matrix


def as_sparse(graphs):
    """Rebuild a side from its sparse form alone."""
    graph = graphs.sparse
    return Graphs(
        graphs.sizes,
        Data(edge_index=graph.edge_index, batch=graph.batch, num_nodes=graph.num_nodes, num_graphs=graph.num_graphs),
    )
