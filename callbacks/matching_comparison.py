"""Matchings by a trained network, beside solvers and published values on the same pairs."""

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..modules.matching import argmax_accuracy, assign, assignment_accuracy, common_edges, exact_recovery, gap
from ..modules.matching.base import GraphPairs, MatchingNetwork, Refiner
from ..modules.matching.refined import refined_name
from .comparison import Comparison, snake_case, words

MatchingMetric = Literal["accuracy", "argmax_accuracy", "common_edges", "exact_recovery", "gap", "solved"]
#: Quantities that need a planted matching.
_PLANTED = {"accuracy", "argmax_accuracy", "exact_recovery"}


class MatchingComparison(Comparison):
    """Measure how well graphs are matched, by the module and by solvers, on the same pairs of graphs.

    How it averages, and what it logs and writes: see :class:`Comparison`; an example of a key is
    ``test/accuracy_faq/noise_0.02``. Cost: one more forward pass of the module a batch, one of every solver, and one
    linear assignment a method and pair.

    Args:
        solvers: Methods that need no training; any module that maps a batch of pairs to scores.
        refinements: Refine the module's own scores too, by each chain of refiners; what every link gives is a method of
            its own (for example ``test/accuracy_module_graduated_assignment/noise_0.02``, and the same with ``_faq``).
        planted: Show the planted matching too (for ``common_edges``: what the noise left).
        metrics: ``accuracy`` (of the best assignment), ``argmax_accuracy`` (best column of each row),
            ``common_edges``, ``exact_recovery``, all of generated pairs; ``gap`` to the best known objective in per
            cent, and ``solved``, 1 if there is none, of quadratic assignment problems. One table and one figure each.
        group_by: ``noise``, or ``None`` for one group.
        published_accuracy: Published accuracies to show beside, ``{source: [[noise, value], ...]}``.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.

    Raises:
        ValueError: If a metric or ``group_by`` is another, two methods have one name, or ``every_n_epochs`` is
            negative.
    """

    logged_by_module = ("accuracy", "argmax_accuracy", "common_edges", "exact_recovery")

    def __init__(
        self,
        solvers: list[MatchingNetwork] | None = None,
        refinements: list[list[Refiner]] | None = None,
        planted: bool = False,
        metrics: list[MatchingMetric] | None = None,
        group_by: Literal["noise"] | None = "noise",
        published_accuracy: dict[str, list[tuple[float, float]]] | None = None,
        every_n_epochs: int = 0,
    ) -> None:
        for metric in metrics or []:
            if metric not in get_args(MatchingMetric):
                known = ", ".join(get_args(MatchingMetric))
                msg = f"MatchingComparison(metrics=[... {metric!r} ...]): choose from {known}."
                raise ValueError(msg)
        if group_by not in ("noise", None):
            msg = f"MatchingComparison(group_by={group_by!r}): must be 'noise' or null."
            raise ValueError(msg)
        super().__init__(metrics or ["accuracy"], group_by, every_n_epochs)
        self.solvers = solvers or []
        self.refinements = refinements or []
        self.planted = planted
        self.published_accuracy = published_accuracy or {}
        self._check_names()

    def _check_names(self) -> None:
        names = [refined_name("module", refiners) for refiners in self._chains()]
        names += [solver.name for solver in self.solvers] + ["planted"] * self.planted
        keys = [snake_case(name) for name in names]
        for name, key in zip(names, keys, strict=True):
            if keys.count(key) > 1:
                msg = (
                    f"MatchingComparison: {keys.count(key)} methods are called {name!r}, and would share their keys; "
                    "compare them in runs of their own, or subclass one with another name."
                )
                raise ValueError(msg)

    def _chains(self) -> list[list[Refiner]]:
        """Give every beginning of every chain of refiners: each is a method."""
        return [refiners[:length] for refiners in self.refinements for length in range(1, len(refiners) + 1)]

    def methods(self, pl_module: LightningModule) -> dict[str, str]:
        """Name the module's network, its refinement, the solvers and the planted matching."""
        own = words(getattr(getattr(pl_module, "network", None), "name", type(pl_module).__name__))
        found = {"": own}
        for refiners in self._chains():
            found[snake_case(refined_name("module", refiners))] = words(refined_name(own, refiners))
        for solver in self.solvers:
            found[snake_case(solver.name)] = words(solver.name)
        if self.planted:
            found["planted"] = "planted"
        return found

    def measure(self, pl_module: LightningModule, batch: GraphPairs) -> tuple[Tensor, Tensor, Tensor]:
        """Match the pairs of a batch by every method."""
        groups = batch.noise if self.group_by is not None else torch.zeros(batch.num_pairs)
        if groups is None:
            msg = "MatchingComparison(group_by='noise'): the pairs have no noise level; give group_by=null."
            raise ValueError(msg)
        if batch.permutation is None and (self.planted or _PLANTED & set(self.metrics)):
            msg = (
                "MatchingComparison: the pairs have no planted matching; leave planted out and measure gap, solved or "
                "common_edges."
            )
            raise ValueError(msg)
        scores = pl_module(batch)
        results = [scores]
        for refiners in self.refinements:
            refined = scores
            for refiner in refiners:
                refined = refiner.refine(batch, refined)
                results.append(refined)
        results += [solver(batch) for solver in self.solvers]
        values = [self._values(result, assign(result, batch), batch) for result in results]
        if self.planted and batch.permutation is not None:
            ideal = torch.zeros_like(scores).scatter_(2, batch.permutation.clamp(min=0).unsqueeze(2), 1.0)
            values.append(self._values(ideal, batch.permutation, batch))
        return batch.sample_id, groups, torch.stack(values, dim=1)

    def published(self, metric: str) -> Mapping[str, Mapping[float, float]]:
        """Give the published accuracies beside the measured ones."""
        return (
            {source: dict(values) for source, values in self.published_accuracy.items()} if metric == "accuracy" else {}
        )

    def _values(self, scores: Tensor, matching: Tensor, batch: GraphPairs) -> Tensor:
        """Give the quantities of one method, (B, metrics) float64."""
        computed = {
            "accuracy": lambda: assignment_accuracy(matching, batch),
            "argmax_accuracy": lambda: argmax_accuracy(scores, batch),
            "common_edges": lambda: common_edges(matching, batch),
            "exact_recovery": lambda: exact_recovery(matching, batch),
            "gap": lambda: gap(matching, batch),
            "solved": lambda: gap(matching, batch) <= 0,
        }
        return torch.stack([computed[metric]().double() for metric in self.metrics], dim=1)
