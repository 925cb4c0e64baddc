"""Matching by eigenvectors: GRAMPA, Umeyama's method and LowRankAlign, none of which is trained."""

import itertools

import torch
from torch import Tensor

from .assignment import assign
from .base import GraphPairs, Graphs, MatchingNetwork
from .metrics import objective

__all__ = ["GRAMPA", "LowRankAlign", "Umeyama"]


class GRAMPA(MatchingNetwork):
    r"""Match by all pairs of eigenvectors, near eigenvalues counting most.

    From `"Spectral graph matching and regularized quadratic relaxations" <https://arxiv.org/abs/1907.08880>`_ (Fan et
    al. 2019). With :math:`A = U \Lambda U^T`, :math:`B = V M V^T` and J the matrix of ones the scores are

    .. math:: X = U (W \circ U^T J V) V^T, \quad W_{ij} = \frac{1}{(\lambda_i - \mu_j)^2 + \eta^2}.

    A and B are made symmetric, centred by the mean m of the entries off the diagonal, and scaled: (A - m (J - I)) /
    (sqrt(n) s), with s their standard deviation. X depends on eigenspaces only, so repeated eigenvalues do no harm. On
    a pair of regular graphs it is constant. O(n^3) time a pair.

    Args:
        eta: Width of the kernel, in units of the scaled eigenvalues (their bulk is within [-2, 2]).

    Raises:
        ValueError: If ``eta`` is not positive.
    """

    def __init__(self, eta: float = 0.2) -> None:
        super().__init__()
        if not eta > 0:
            msg = f"GRAMPA(eta={eta}): must be above 0; the paper uses 0.2."
            raise ValueError(msg)
        self.eta = eta

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give X, (B, N1, N2) float64."""
        (values, vectors), (others, other_vectors) = (
            torch.linalg.eigh(_standardised(side)) for side in (pairs.first, pairs.second)
        )
        # U^T J V: J is of rank 1, and zero beyond the sizes, where eigenvectors of padding live.
        row = vectors.mT @ pairs.first.node_mask.double().unsqueeze(2)
        column = other_vectors.mT @ pairs.second.node_mask.double().unsqueeze(2)
        kernel = 1 / ((values.unsqueeze(2) - others.unsqueeze(1)).square() + self.eta**2)
        return vectors @ (kernel * row * column.mT) @ other_vectors.mT


def _standardised(graphs: Graphs) -> Tensor:
    """Centre and scale symmetrised matrices, (B, N, N) float64; zero beyond a size."""
    dense, nodes = graphs.dense.double(), graphs.node_mask
    dense = (dense + dense.mT) / 2
    off_diagonal = nodes.unsqueeze(2) & nodes.unsqueeze(1)
    off_diagonal.diagonal(dim1=1, dim2=2).fill_(False)
    count = off_diagonal.sum((1, 2)).clamp(min=1)[:, None, None]
    mean = (dense * off_diagonal).sum((1, 2), keepdim=True) / count
    centred = dense - mean * off_diagonal
    deviation = ((centred * off_diagonal).square().sum((1, 2), keepdim=True) / count).sqrt()
    # A graph with no or all edges has deviation 0 and nothing to scale.
    return centred / (graphs.sizes[:, None, None].sqrt() * deviation).clamp(min=1e-12)


class Umeyama(MatchingNetwork):
    r"""Match by the absolute values of the eigenvectors in the order of their eigenvalues.

    From "An eigendecomposition approach to weighted graph matching problems" (Umeyama 1988,
    https://doi.org/10.1109/34.6778). With :math:`A = U \Lambda U^T` and :math:`B = V M V^T`, eigenvalues sorted, the
    scores are :math:`|U| |V|^T`. Matrices are made symmetric; a smaller first graph is padded by isolated nodes. Where
    eigenvalues repeat, eigenvectors are arbitrary and so are the scores. O(n^3) time a pair.
    """

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give the scores, (B, N1, N2) float64."""
        scores = _zeros(pairs)
        for number in range(pairs.num_pairs):
            vectors, others = _eigenvectors(pairs, number)
            scores[number, : len(vectors), : len(others)] = vectors.abs() @ others.abs().T
        return scores


class LowRankAlign(MatchingNetwork):
    r"""Match by the leading eigenvectors, trying all their signs.

    After `"Spectral alignment of graphs" <https://arxiv.org/abs/1602.04181>`_ (Feizi et al. 2016). Among orthogonal
    matrices :math:`X = \sum_i s_i u_i v_i^T`, with signs s in {-1, 1}, maximises the objective of the rank-k
    approximations of A and B. Here u_i and v_i are the eigenvectors of the k largest eigenvalues; for each of the 2^k
    signs X is rounded by linear assignment, and the X whose assignment has the largest objective on A and B themselves
    is given (on a tie that of the largest total score). The paper's term for mismatched edges is left out. Matrices are
    made symmetric; a smaller first graph is padded by isolated nodes. O(2^k n^3) time a pair.

    Args:
        rank: Number of eigenvectors k (the number of nodes, if that is less).

    Raises:
        ValueError: If ``rank`` is not in 1..12.
    """

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        if not 1 <= rank <= 12:
            msg = f"LowRankAlign(rank={rank}): must be in 1..12, for all 2^rank signs are tried."
            raise ValueError(msg)
        self.rank = rank

    @torch.no_grad()
    def forward(self, pairs: GraphPairs) -> Tensor:
        """Give X of the best signs, (B, N1, N2) float64."""
        eigenvectors = [_eigenvectors(pairs, number) for number in range(pairs.num_pairs)]
        result = _zeros(pairs)
        best = best_total = result.new_full((pairs.num_pairs,), -torch.inf)
        for signs in itertools.product((1.0, -1.0), repeat=self.rank):
            scores = _zeros(pairs)
            for number, (vectors, others) in enumerate(eigenvectors):
                kept, other = vectors[:, -self.rank :], others[:, -self.rank :]
                scores[number, : len(kept), : len(other)] = (kept * kept.new_tensor(signs[: kept.shape[1]])) @ other.T
            matching = assign(scores, pairs)
            value = objective(matching, pairs)
            taken = scores.gather(2, matching.clamp(min=0).unsqueeze(2)).squeeze(2)
            total = (taken * pairs.first.node_mask).sum(1)
            better = (value > best) | ((value == best) & (total > best_total))
            best = torch.where(better, value, best)
            best_total = torch.where(better, total, best_total)
            result[better] = scores[better]
        return result


def _zeros(pairs: GraphPairs) -> Tensor:
    size = (pairs.num_pairs, pairs.first.max_size, pairs.second.max_size)
    return torch.zeros(size, dtype=torch.float64, device=pairs.first.dense.device)


def _eigenvectors(pairs: GraphPairs, number: int) -> tuple[Tensor, Tensor]:
    """Give the eigenvectors of a pair, (n1, n2) and (n2, n2), eigenvalues ascending, the first graph padded to n2."""
    n, m = int(pairs.first.sizes[number]), int(pairs.second.sizes[number])
    padded = pairs.first.dense.new_zeros(m, m, dtype=torch.float64)
    padded[:n, :n] = pairs.first.dense[number, :n, :n]
    second = pairs.second.dense[number, :m, :m].double()
    return torch.linalg.eigh((padded + padded.T) / 2)[1][:n], torch.linalg.eigh((second + second.T) / 2)[1]
