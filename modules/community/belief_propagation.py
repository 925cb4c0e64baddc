"""Belief propagation for the stochastic block model, on many graphs and random starts at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from ..graph_operators import graph_ids, reverse_edges
from .base import NodeNetwork
from .block_model import (
    BlockModelProblem,
    free_energy,
    learn_parameters,
    occupation_numbers,
    sweep_messages,
)

#: Passes between two checks of convergence (and, when learning, between two parameter updates).
CHECK_EVERY = 10

#: Restarts run side by side as long as together they hold at most this many message entries (about 1 GB).
MAX_ENTRIES = 2**24

#: Graphs with more nodes than this use float64: sums of so many float32 marginals lose the field's precision.
MAX_SINGLE_PRECISION_NODES = 2**17

#: Signal-to-noise ratio at which learning starts: strong enough to leave the uninformed solution.
INITIAL_SNR = 2.0


class Solution(NamedTuple):
    """Where the iteration of G graphs ended.

    Attributes:
        incoming: Messages, (k, E).
        occupation: Sum of the marginals over the nodes of each graph, (k, G).
        problem: The problem solved, with the learned parameters where they were learned.
        converged: Which graphs came to a standstill, bool (G,).
    """

    incoming: Tensor
    occupation: Tensor
    problem: BlockModelProblem
    converged: Tensor


def solve(
    problem: BlockModelProblem,
    incoming: Tensor,
    *,
    iterations: int,
    damping: float = 0.2,
    tolerance: float = 1e-3,
    learn: bool = False,
) -> Solution:
    """Iterate the messages until they stand still; graphs that have converged leave the computation.

    Messages and the field's occupation numbers are damped alike: were only the messages damped, the field would answer
    a swing of the whole graph from the pass before and amplify it.

    Args:
        problem: The graphs and their block models.
        incoming: Messages to start from, normalised over the communities, (k, E).
        iterations: Largest number of passes.
        damping: Share of the old value kept at each pass, in [0, 1).
        tolerance: A graph has converged when no message would move by more than this in an undamped pass.
        learn: Whether to re-estimate priors and affinities at every check.
    """
    solution = Solution(
        incoming.clone(),
        problem.log_prior.exp() * problem.sizes,
        replace(problem, log_prior=problem.log_prior.clone(), affinity=problem.affinity.clone()),
        torch.zeros_like(problem.sizes, dtype=torch.bool),
    )
    occupation = solution.occupation.clone()
    graphs = torch.arange(problem.sizes.numel(), device=incoming.device)
    edges = torch.arange(incoming.shape[1], device=incoming.device)
    for start in range(0, iterations, CHECK_EVERY):
        affinity = problem.edge_affinity()
        change = torch.zeros_like(incoming)
        for _ in range(min(CHECK_EVERY, iterations - start)):
            swept = sweep_messages(problem, incoming, occupation, affinity)
            change = swept.incoming.sub_(incoming)
            incoming = incoming.add(change, alpha=1 - damping)
            occupation = occupation.lerp(occupation_numbers(problem, swept.totals), 1 - damping)
        moved = occupation.new_zeros(graphs.numel()).scatter_reduce_(
            0, problem.edge_graph, change.abs().amax(0), "amax"
        )
        if learn:
            learned = learn_parameters(problem, incoming, occupation)
            drift = (learned.affinity - problem.affinity).abs().amax((0, 1)) / learned.affinity.amax((0, 1)).clamp(
                min=1
            )
            moved, problem = torch.maximum(moved, drift), learned
        solution.incoming[:, edges], solution.occupation[:, graphs] = incoming, occupation
        solution.problem.affinity[:, :, graphs] = problem.affinity
        solution.problem.log_prior[:, graphs] = problem.log_prior
        active = moved >= tolerance
        solution.converged[graphs] = ~active
        if not bool(active.any()):
            break
        if not bool(active.all()):
            problem, kept = problem.select(active)
            incoming, occupation, graphs, edges = incoming[:, kept], occupation[:, active], graphs[active], edges[kept]
    return solution


class BeliefPropagation(NodeNetwork):
    r"""Give the marginals of the stochastic block model by belief propagation; a baseline without training.

    From `"Asymptotic analysis of the stochastic block model" <https://arxiv.org/abs/1109.3041>`_ (Decelle, Krzakala,
    Moore, Zdeborova 2011), with the external field of the absent edges and parallel, damped updates. Every graph is
    solved from several random starts (messages drawn from a flat Dirichlet law) and keeps the one of lowest Bethe free
    energy: among those that converged, if any did, as the energy means nothing away from a fixed point. Near the
    detectability threshold some graphs have no stable fixed point at all and the last pass counts. Scores are
    log-marginals. They depend on ``seed`` and the graph alone: not on its place in the batch, nor on the global random
    state.

    Parameters of the model: ``probs`` if given, else the true ``graph.probs`` (B, k, k) and ``graph.sizes`` (B, k)
    where present, else learned.

    Args:
        num_classes: Number of communities k.
        iterations: Largest number of passes over the edges; one costs O(k^2 E).
        damping: Share of the old message kept at each pass, in [0, 1). Undamped parallel updates oscillate; 0.2 is
            faster (a quarter fewer passes) and as good but for a trace near the threshold.
        restarts: Number of random starts.
        tolerance: A graph stops when no message would move by more than this in one pass.
        learn: Learn the parameters by expectation maximisation even where they are known, starting from equal
            communities at signal-to-noise ratio 2, associative and disassociative in turn.
        probs: Edge probabilities between the communities, k x k, symmetric: known to the user.
        seed: Seed of the starts.

    Raises:
        ValueError: If an argument is out of range, or ``graph.probs`` is for another number of communities.
    """

    def __init__(
        self,
        num_classes: int,
        iterations: int = 300,
        damping: float = 0.5,
        restarts: int = 5,
        tolerance: float = 1e-3,
        learn: bool = False,
        probs: list[list[float]] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(num_classes)
        for name, value, least in (("iterations", iterations, 1), ("restarts", restarts, 1)):
            if value < least:
                msg = f"BeliefPropagation({name}={value}): {name} must be at least {least}."
                raise ValueError(msg)
        if not 0 <= damping < 1:
            msg = f"BeliefPropagation(damping={damping}): damping must be in [0, 1), e.g. 0.5."
            raise ValueError(msg)
        if tolerance <= 0:
            msg = f"BeliefPropagation(tolerance={tolerance}): tolerance must be positive, e.g. 1e-3."
            raise ValueError(msg)
        self.iterations = iterations
        self.damping = damping
        self.restarts = restarts
        self.tolerance = tolerance
        self.learn = learn
        self.probs = None if probs is None else _check_probs(probs, num_classes)
        self.seed = seed

    @torch.no_grad()
    def forward(self, graph: Data) -> Tensor:
        """Give the log-marginals of a batch, (N, k) float32; see :class:`NodeNetwork`."""
        problem, learn = self._problem(graph)
        entries = max(1, self.num_classes * problem.row.numel())
        at_once = max(1, min(self.restarts, MAX_ENTRIES // entries))
        best = torch.full_like(problem.sizes, torch.inf, dtype=torch.float64)
        settled = torch.zeros_like(problem.sizes, dtype=torch.bool)
        scores = problem.log_prior.log_softmax(0).index_select(1, problem.node_graph)
        for first in range(0, self.restarts, at_once):
            restarts = range(first, min(first + at_once, self.restarts))
            for marginal, energy, converged in zip(*self._run(problem, restarts, learn), strict=True):
                better = (converged & ~settled) | ((converged == settled) & (energy < best))
                best, settled = torch.where(better, energy, best), torch.where(better, converged, settled)
                scores = torch.where(better[problem.node_graph], marginal, scores)
        return scores.T.float().contiguous()

    def _run(self, problem: BlockModelProblem, restarts: range, learn: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Solve from some of the random starts: log-marginals (R, k, N), free energies and who converged (R, B)."""
        num_graphs, num_starts = problem.sizes.numel(), len(restarts)
        repeated = problem.repeat(num_starts)
        if learn:
            signs = [1 if restart % 2 == 0 else -1 for restart in restarts]
            repeated = replace(repeated, affinity=torch.cat([_initial_affinity(problem, sign) for sign in signs], 2))
        edges = torch.bincount(problem.edge_graph, minlength=num_graphs).tolist()
        start = self._random_messages(edges, restarts).to(problem.sizes)
        solution = solve(
            repeated,
            start,
            iterations=self.iterations,
            damping=self.damping,
            tolerance=self.tolerance,
            learn=learn,
        )
        totals = sweep_messages(solution.problem, solution.incoming, solution.occupation).totals
        energies = free_energy(solution.problem, solution.incoming, solution.occupation)
        marginals = totals.log_softmax(0).view(self.num_classes, num_starts, problem.node_graph.numel()).transpose(0, 1)
        return marginals, energies.view(num_starts, num_graphs), solution.converged.view(num_starts, num_graphs)

    def _random_messages(self, edges: Sequence[int], restarts: range) -> Tensor:
        """Draw flat Dirichlet messages, (k, R E), each graph from a stream of its own keyed by seed and restart."""
        draws = [
            np.random.default_rng((self.seed, restart)).standard_exponential((count, self.num_classes), np.float32).T
            for restart in restarts
            for count in edges
        ]
        messages = torch.from_numpy(np.concatenate(draws, 1)) + torch.finfo(torch.float32).tiny
        return messages / messages.sum(0)

    def _problem(self, graph: Data) -> tuple[BlockModelProblem, bool]:
        """Build the problem of a batch, and say whether its parameters must be learned."""
        k = self.num_classes
        node_graph, num_graphs = graph_ids(graph)
        edge_index = cast(Tensor, graph.edge_index)
        row = edge_index[0]
        sizes = torch.bincount(node_graph, minlength=num_graphs)
        dtype = torch.float32 if int(sizes.max()) <= MAX_SINGLE_PRECISION_NODES else torch.float64
        probs = getattr(graph, "probs", None) if self.probs is None else self.probs.expand(num_graphs, k, k)
        counts = getattr(graph, "sizes", None) if self.probs is None and not self.learn else None
        learn = self.learn or probs is None
        if learn or probs is None:
            probs = torch.zeros(num_graphs, k, k)
        if probs.shape[-1] != k:
            msg = (
                f"BeliefPropagation(num_classes={k}): the graph's probs describe {probs.shape[-1]} communities. "
                f"Set num_classes={probs.shape[-1]}, or learn=True to ignore them."
            )
            raise ValueError(msg)
        if counts is None:
            counts = torch.ones(num_graphs, k)
        prior = counts / counts.sum(1, keepdim=True).clamp(min=1)
        affinity = probs.to(row.device) * sizes[:, None, None]
        problem = BlockModelProblem(
            row=row,
            reverse=reverse_edges(edge_index, node_graph.numel()),
            node_graph=node_graph,
            edge_graph=node_graph[row],
            log_prior=prior.to(row.device, dtype).clamp(min=torch.finfo(dtype).tiny).log().T,
            affinity=affinity.to(dtype).permute(1, 2, 0),
            sizes=sizes.to(dtype),
        )
        return problem, learn


def _initial_affinity(problem: BlockModelProblem, sign: int) -> Tensor:
    """Give the affinity (k, k, G) of equal communities at the graphs' own degree and SNR 2, where that can be."""
    k = problem.affinity.shape[0]
    degree = torch.bincount(problem.edge_graph, minlength=problem.sizes.numel()) / problem.sizes.clamp(min=1)
    strength = sign * (INITIAL_SNR / degree.clamp(min=1e-6)).sqrt()
    strength = strength.clamp(-0.95 / (k - 1), 0.95)
    equal = torch.eye(k, device=degree.device, dtype=degree.dtype)[:, :, None]
    return degree * (1 - strength + k * strength * equal)


def _check_probs(probs: list[list[float]], num_classes: int) -> Tensor:
    """Turn the user's edge probabilities into a tensor (1, k, k), or say what is wrong with them."""
    square = len(probs) == num_classes and all(len(line) == num_classes for line in probs)
    table = torch.tensor(probs, dtype=torch.float64) if square else torch.empty(0)
    if not square or not torch.equal(table, table.T) or bool(((table < 0) | (table > 1)).any()):
        msg = (
            f"BeliefPropagation(probs={probs}): probs must be a symmetric {num_classes} x {num_classes} table of "
            "probabilities in [0, 1], one row a community."
        )
        raise ValueError(msg)
    return table[None]
