"""Messages, free energy and parameter learning of the stochastic block model, on many graphs at once."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class BlockModelProblem:
    """One disjoint union of G graphs (N nodes, E directed edges in all) with the block model of each.

    Attributes:
        row: Tail of every directed edge, (E,) int64, in ascending order.
        reverse: Position of the opposite edge, (E,) int64.
        node_graph: Graph of every node, (N,) int64, in ascending order.
        edge_graph: Graph of every directed edge, (E,) int64, in ascending order.
        log_prior: Logarithm of the expected fraction of nodes in each community, (k, G).
        affinity: Edge probability between communities times the number of nodes, c_st = n p_st, (k, k, G).
        sizes: Number of nodes of every graph, (G,), in the dtype of the messages.
        external_field: Whether the absent edges act, as they do in the block model; without them the graphical model
            is the pairwise one of the edges alone, which the same equations solve exactly on a tree.
    """

    row: Tensor
    reverse: Tensor
    node_graph: Tensor
    edge_graph: Tensor
    log_prior: Tensor
    affinity: Tensor
    sizes: Tensor
    external_field: bool = True

    def edge_affinity(self) -> Tensor:
        """Spread the affinity over the edges, (k, k, E), or (k, k, 1) where all graphs share one."""
        if bool((self.affinity == self.affinity[:, :, :1]).all()):
            return self.affinity[:, :, :1]
        return self.affinity.index_select(2, self.edge_graph)

    def repeat(self, times: int) -> "BlockModelProblem":
        """Put copies of all graphs side by side: ``times`` G graphs, to be solved from different starts."""
        copy = torch.arange(times, device=self.row.device)[:, None]
        num_nodes, num_edges, num_graphs = self.node_graph.numel(), self.row.numel(), self.sizes.numel()
        return replace(
            self,
            row=(self.row + copy * num_nodes).reshape(-1),
            reverse=(self.reverse + copy * num_edges).reshape(-1),
            node_graph=(self.node_graph + copy * num_graphs).reshape(-1),
            edge_graph=(self.edge_graph + copy * num_graphs).reshape(-1),
            log_prior=self.log_prior.repeat(1, times),
            affinity=self.affinity.repeat(1, 1, times),
            sizes=self.sizes.repeat(times),
        )

    def select(self, graphs: Tensor) -> tuple["BlockModelProblem", Tensor]:
        """Keep the graphs of a boolean mask (G,); also give the mask (E,) of the edges kept."""
        nodes, edges = graphs[self.node_graph], graphs[self.edge_graph]
        graph_number, node_number, edge_number = (mask.cumsum(0) - 1 for mask in (graphs, nodes, edges))
        smaller = BlockModelProblem(
            row=node_number[self.row[edges]],
            reverse=edge_number[self.reverse[edges]],
            node_graph=graph_number[self.node_graph[nodes]],
            edge_graph=graph_number[self.edge_graph[edges]],
            log_prior=self.log_prior[:, graphs],
            affinity=self.affinity[:, :, graphs],
            sizes=self.sizes[graphs],
            external_field=self.external_field,
        )
        return smaller, edges


class Sweep(NamedTuple):
    """One pass of the equations: the new messages, and the unnormalised log-marginals of the nodes."""

    incoming: Tensor
    totals: Tensor


def sum_by(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Add up the columns of ``values`` (k, M) that share an index (M,) in [0, size); gives (k, size)."""
    return values.new_zeros(values.shape[0], size).index_add_(1, index, values)


def _log_likelihoods(incoming: Tensor, affinity: Tensor) -> Tensor:
    """Give log sum_s c_ts psi_s for every message, (k, E); impossible ones get the smallest finite logarithm."""
    likelihood = affinity[:, 0] * incoming[0]
    for s in range(1, incoming.shape[0]):
        likelihood.addcmul_(affinity[:, s], incoming[s])
    return likelihood.clamp_(min=torch.finfo(incoming.dtype).tiny).log_()


def sweep_messages(
    problem: BlockModelProblem, incoming: Tensor, occupation: Tensor, affinity: Tensor | None = None
) -> Sweep:
    r"""Update every message once, all in parallel.

    .. math::
        \psi^{i \to j}_t \propto n_t e^{-h_t} \prod_{l \in \partial i \setminus j} \sum_s c_{ts} \psi^{l \to i}_s,
        \qquad h_t = \frac{1}{n} \sum_i \sum_s c_{ts} \psi^i_s

    From `"Asymptotic analysis of the stochastic block model" <https://arxiv.org/abs/1109.3041>`_ (Decelle, Krzakala,
    Moore, Zdeborova 2011). Computed in logarithms: a node adds up its incoming terms once and every outgoing message
    leaves one of them out, so a pass costs O(k^2 E).

    Args:
        problem: The graphs and their block models.
        incoming: For edge (i, j) the message j -> i, normalised, (k, E).
        occupation: Sum of the marginals over the nodes of each graph, (k, G); enters the field h.
        affinity: ``problem.edge_affinity()`` where the caller has it at hand.

    Returns:
        New incoming messages (k, E) and the unnormalised log-marginals of the nodes (k, N).
    """
    logs = _log_likelihoods(incoming, problem.edge_affinity() if affinity is None else affinity)
    bias = problem.log_prior
    if problem.external_field:
        bias = bias - torch.einsum("tsg,sg->tg", problem.affinity, occupation) / problem.sizes
    totals = bias.index_select(1, problem.node_graph).index_add_(1, problem.row, logs)
    outgoing = totals.index_select(1, problem.row).sub_(logs).softmax(0)
    return Sweep(outgoing.index_select(1, problem.reverse), totals)


def occupation_numbers(problem: BlockModelProblem, totals: Tensor) -> Tensor:
    """Add up the marginals softmax(totals) over the nodes of each graph, (k, G)."""
    return sum_by(totals.softmax(0), problem.node_graph, problem.sizes.numel())


def free_energy(problem: BlockModelProblem, incoming: Tensor, occupation: Tensor) -> Tensor:
    r"""Give the Bethe free energy a node of every graph, (G,) float64; the lower, the likelier the solution.

    .. math::
        f = \frac{1}{n} \sum_{(ij) \in E} \log Z^{ij} - \frac{1}{n} \sum_i \log Z^i - \frac{1}{2} m^T c\, m,
        \qquad Z^{ij} = \sum_{st} c_{st} \psi^{i \to j}_s \psi^{j \to i}_t

    with Z^i the normalisation of the node's marginal and m the mean marginal. At the true parameters m is the prior
    and the last term is half the average degree, as printed in the paper (eq. 28); keeping m makes f comparable between
    solutions with other proportions. Without external field the last term is absent and, on a tree, -n f is exactly
    the logarithm of the partition function.

    Args:
        problem: The graphs and their block models.
        incoming: Messages, (k, E).
        occupation: Sum of the marginals over the nodes of each graph, (k, G).
    """
    num_graphs = problem.sizes.numel()
    logs = _log_likelihoods(incoming, problem.edge_affinity())
    totals = sweep_messages(problem, incoming, occupation).totals
    # In logarithms: the product of two exclusive one-hot messages must stay finite.
    outgoing = incoming.index_select(1, problem.reverse).clamp(min=torch.finfo(logs.dtype).tiny)
    edge_terms = (outgoing.log() + logs).logsumexp(0)
    per_edge = sum_by(edge_terms.double()[None], problem.edge_graph, num_graphs)[0] / 2
    per_node = sum_by(totals.logsumexp(0).double()[None], problem.node_graph, num_graphs)[0]
    sizes = problem.sizes.double().clamp(min=1)
    energy = (per_edge - per_node) / sizes
    if problem.external_field:
        mean = occupation.double() / sizes
        energy = energy - torch.einsum("sg,stg,tg->g", mean, problem.affinity.double(), mean) / 2
    return energy


def learn_parameters(problem: BlockModelProblem, incoming: Tensor, occupation: Tensor) -> BlockModelProblem:
    r"""Take one maximisation step of the EM algorithm: the priors and affinities the present messages suggest.

    .. math::
        n_t = \frac{N_t}{n}, \qquad
        c_{st} = \frac{n}{N_s N_t} \sum_{i \to j} \frac{c_{st} \psi^{i \to j}_s \psi^{j \to i}_t}{Z^{ij}}

    with N_t the occupation numbers (Decelle et al. 2011, eqs. 30-31).

    Args:
        problem: The graphs and their present block models.
        incoming: Messages, (k, E).
        occupation: Sum of the marginals over the nodes of each graph, (k, G).
    """
    k, num_graphs = occupation.shape
    tiny = torch.finfo(incoming.dtype).tiny
    outgoing = incoming.index_select(1, problem.reverse)
    pairs = problem.edge_affinity() * outgoing[:, None] * incoming[None]
    pairs = (pairs / pairs.sum((0, 1)).clamp(min=tiny)).reshape(k * k, -1)
    counts = sum_by(pairs, problem.edge_graph, num_graphs).view(k, k, num_graphs)
    floor = occupation.clamp(min=1e-3)  # an empty community would otherwise divide by zero
    affinity = counts * problem.sizes / (floor[:, None] * floor[None])
    log_prior = (floor / floor.sum(0)).log()
    return replace(problem, affinity=(affinity + affinity.transpose(0, 1)) / 2, log_prior=log_prior)
