"""Graduated assignment: soft matchings that reinforce what their neighbourhoods agree on."""

import torch
from torch import Tensor

from ..graph_operators import gather_sum, row_pointers
from .base import GraphPairs, Graphs, Refiner

__all__ = ["GraduatedAssignment"]


class GraduatedAssignment(Refiner):
    r"""Refine scores by the neighbours that a soft matching brings together.

    After `"A graduated assignment algorithm for graph matching" <https://doi.org/10.1109/34.491619>`_ (Gold and
    Rangarajan 1996). With S_0 the given scores, read as log-likelihoods, and A, B the adjacency matrices,

    .. math:: X_t = \mathrm{Sinkhorn}(\exp S_t), \qquad S_{t+1} = w S_0 + \beta_t\, A X_t B

    adds beta to a match for every neighbour that is expected to be matched to a neighbour of the other node. By default
    :math:`\beta = -\log(\text{density of B})`, the log-likelihood ratio of one common neighbour when little noise
    separates the graphs; it grows from beta / ``anneal`` to beta ``anneal`` in equal ratios. From scores with a few per
    cent of correct matches all nodes of a sparse graph can fall into place. Deviation from the paper: S_0 stays in,
    with weight w. O(E n) time a step (sparse products), O(n^2) memory a pair. Weights of edges are not looked at.

    Args:
        steps: Number of steps T.
        balances: Sinkhorn iterations a step.
        evidence: beta; ``None`` for the logarithm of the inverse density.
        anneal: Factor by which beta grows to its mean and beyond it; 1 for a constant.
        prior: Weight w; less than 1 for scores that are surer than they should be.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, steps: int = 60, balances: int = 3, evidence: float | None = None, anneal: float = 1.0, prior: float = 1.0
    ) -> None:
        super().__init__()
        for name, value in (("steps", steps), ("balances", balances)):
            if value < 1:
                msg = f"GraduatedAssignment({name}={value}): must be at least 1."
                raise ValueError(msg)
        if evidence is not None and not evidence > 0:
            msg = f"GraduatedAssignment(evidence={evidence}): must be positive, e.g. 2.0, or null."
            raise ValueError(msg)
        if not anneal >= 1:
            msg = f"GraduatedAssignment(anneal={anneal}): must be at least 1, which keeps the evidence constant."
            raise ValueError(msg)
        if not prior >= 0:
            msg = f"GraduatedAssignment(prior={prior}): must be 0 or more, e.g. 1.0."
            raise ValueError(msg)
        self.prior = prior
        self.steps = steps
        self.anneal = anneal
        self.balances = balances
        self.evidence = evidence

    @torch.no_grad()
    def refine(self, pairs: GraphPairs, scores: Tensor) -> Tensor:
        """Give the scores after the last step, (B, N1, N2), from the given ones; zero scores know nothing.

        Raises:
            ValueError: If the pairs want a small objective.
        """
        if pairs.minimize:
            msg = "GraduatedAssignment: it looks for common edges, these pairs want a small cost; use QAPSolver or FAQ."
            raise ValueError(msg)
        mask = pairs.mask
        start = self.prior * scores.float()
        first, second = _Neighbours(pairs.first), _Neighbours(pairs.second)
        beta = self._beta(pairs)[:, None, None]
        current = start
        for step in range(self.steps):
            soft = self._balance(current, mask, pairs)
            strength = beta * self.anneal ** (2 * step / max(self.steps - 1, 1) - 1)
            current = torch.addcmul(start, strength, second.sums(first.sums(soft).transpose(1, 2)).transpose(1, 2))
        return current

    def _beta(self, pairs: GraphPairs) -> Tensor:
        if self.evidence is not None:
            return torch.full((pairs.num_pairs,), self.evidence, device=pairs.second.sizes.device)
        graph = pairs.second.sparse
        edges = torch.bincount(graph.batch[graph.edge_index[0]], minlength=pairs.num_pairs)  # pyright: ignore[reportOptionalSubscript]
        return (pairs.second.sizes.square() / edges.clamp(min=1)).log().clamp(min=0.1)

    def _balance(self, scores: Tensor, mask: Tensor | None, pairs: GraphPairs) -> Tensor:
        """Bring exp(scores) near to doubly stochastic; columns of a larger second graph sum to n1 / n2."""
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        soft = (scores - scores.amax(2, keepdim=True).clamp(min=-1e30)).exp()
        share = (pairs.first.sizes / pairs.second.sizes)[:, None, None]
        for _ in range(self.balances):
            soft *= soft.sum(2, keepdim=True).clamp_(min=1e-30).reciprocal_()
            soft *= share / soft.sum(1, keepdim=True).clamp_(min=1e-30)
        return soft


class _Neighbours:
    """Sums over the neighbours of each node, for the B graphs of one side."""

    def __init__(self, graphs: Graphs) -> None:
        graph = graphs.sparse
        assert graph.edge_index is not None
        self._columns = graph.edge_index[1]
        self._pointers = row_pointers(graph.edge_index[0], int(graph.num_nodes or 0))
        self._nodes = graphs.node_mask if graphs.padded else None

    def sums(self, x: Tensor) -> Tensor:
        """Compute A x for x (B, N, d)."""
        if self._nodes is None:
            return gather_sum(x.flatten(0, 1), self._columns, self._pointers).view(x.shape)
        result = torch.zeros_like(x)
        result[self._nodes] = gather_sum(x[self._nodes], self._columns, self._pointers)
        return result
