"""Find the path from a network to another inside a level set, in any evaluation loop."""

import math
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from .geodesics.alignment import aligned
from .geodesics.figures import Plane, draw_plane, draw_profile, on_plane
from .geodesics.landscape import LossFunction, ModelLandscape, as_measured, flat, loss_of, own_error
from .geodesics.path import Path, barrier
from .geodesics.profile import along
from .geodesics.search import Method, check_same_buffers, find_paths, higher_end
from .geodesics.settings import AUTHORS, Settings
from .geodesics.status import status_line
from .held_out import EvaluationMeasurement
from .media import log_figure, log_table, run_directory, shows_progress
from .reference import check_reference, reference_state
from .training_batches import EvaluatedBatches, away_from_inference, training_batches, training_loader

__all__ = ["GeodesicPath", "Metric"]

#: What a level bounds.
Metric = Literal["loss", "error", "perplexity"]


class GeodesicPath(EvaluationMeasurement):
    r"""Search for a path from the module to a reference network on which a quantity stays at or below a level.

    Beads are trained on the training batches by the loss; what the level bounds is a ``metric`` on these, or on the
    batches that the loop evaluates, which then train nothing. Works with any LightningModule that has ``loss(batch)``,
    or a ``loss_fn``; for the metric ``error`` also ``error(batch)`` (error rate of an image classifier, mean
    absolute error of a regression), or an ``error_fn``. Measures at the end of ``validate`` and ``test``, and within
    ``fit`` every ``every_n_epochs``. The module is left as it was.

    Logs ``<stage>/geodesic/length`` (normalised: 1 is straight), ``beads``, ``maximum`` (of the metric, certified on a
    refined grid), ``connected`` (1, or 0 for "not at this budget"), and the barriers by name: ``loss_barrier``,
    ``error_barrier`` where there is an error, and that of the metric; each is the highest value on the path less that
    of the higher end, on the batches of the level; certified for the metric, at its tested points for the others.
    Writes the path to ``paths/<stage>.pt`` (:meth:`Path.load`), a table of the metric along it, and two figures: that,
    and the path over its surface on the plane of the beads.

    On several ranks the open segments are shared out and every rank holds all batches; where a large network's bead
    takes longer than the process group's timeout, raise that. A search by ``dss`` that is killed goes on from
    ``resume``.

    Cost, in forward passes over the batches: ``grid`` times the segments tested, twice that of the segments found for
    the barriers, plus 625 for the second figure; one forward and backward pass on a batch for each bead and step.

    Args:
        reference: Checkpoint of the other network (a file with ``state_dict``).
        level: The level; ``None`` for the higher of the two ends.
        method: ``dss`` (dynamic string sampling), ``linear``, ``bezier`` or ``neb``.
        metric: What the level bounds: the ``loss``, the ``error``, or the ``perplexity``, the exponential of the loss.
        quantity: On which batches: ``training`` or ``evaluated`` (held-out) ones.
        convention: ``certified``, or that of the ``authors``' code, which accepts 1.1 times the level.
        count: Parameters that lengths count.
        align: First exchange hidden units of the reference to bring its weights close to the module's, which leaves its
            function as it is (weight matching; feed-forward networks that ``torch.fx`` traces).
        num_batches: Training batches that beads are trained on; 0 for all.
        lr: Adam's rate for beads.
        max_steps: Most steps of a bead, or of the whole curve or band.
        max_passes: Most times that all open segments are split.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        resume: File, which all ranks see, in which a search by ``dss`` keeps what it has, and goes on from; ``None`` to
            start afresh.
        loss_fn: Loss of (module, batch), a mean over samples; ``None`` for ``module.loss(batch)``.
        error_fn: Error of (module, batch), a mean over samples; ``None`` for ``module.error(batch)``, if any.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range; when a loop begins, if the checkpoint is of another architecture, or
            there is no loss, error or training batch.
    """

    def __init__(
        self,
        reference: str,
        level: float | None = None,
        method: Method = "dss",
        metric: Metric = "loss",
        quantity: Literal["training", "evaluated"] = "training",
        convention: Literal["certified", "authors"] = "certified",
        count: Literal["all", "weights"] = "all",
        align: bool = False,
        num_batches: int = 0,
        lr: float = 1e-3,
        max_steps: int = 20000,
        max_passes: int = 10,
        every_n_epochs: int = 0,
        resume: str | None = None,
        loss_fn: LossFunction | None = None,
        error_fn: LossFunction | None = None,
    ) -> None:
        check_reference(reference, "GeodesicPath")
        super().__init__(every_n_epochs)
        if level is not None and not math.isfinite(level):
            msg = f"GeodesicPath(level={level}): must be a finite number, or null for the higher end."
            raise ValueError(msg)
        if num_batches < 0:
            msg = f"GeodesicPath(num_batches={num_batches}): must be at least 0; 0 for all."
            raise ValueError(msg)
        for name, value, allowed in (
            ("method", method, get_args(Method)),
            ("metric", metric, get_args(Metric)),
            ("quantity", quantity, ("training", "evaluated")),
            ("count", count, ("all", "weights")),
        ):
            if value not in allowed:
                msg = f"GeodesicPath({name}={value!r}): choose from {', '.join(allowed)}."
                raise ValueError(msg)
        self.reference = reference
        self.level = level
        self.method: Method = method
        self.metric: Metric = metric
        self.quantity = quantity
        self.settings = settings_of(convention, lr=lr, max_steps=max_steps, max_passes=max_passes)
        self.count: Literal["all", "weights"] = count
        self.align = align
        self.num_batches = num_batches
        self.resume = FilePath(resume) if resume is not None else None
        self.loss_fn = loss_fn
        self.error_fn = error_fn

    def _require(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss_of(pl_module, self.loss_fn)
        self._metrics(pl_module)
        self._state(pl_module)
        if trainer.state.fn != "fit":  # fit has its training batches
            training_loader(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse training batches that could not be drawn."""
        del pl_module
        if self.every_n_epochs > 0:
            training_loader(trainer)

    def _forget(self) -> None:
        self._evaluated = EvaluatedBatches()

    def _keep(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> None:
        del pl_module
        if self.quantity == "evaluated":
            self._evaluated.add(trainer, batch, dataloader_idx)

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Search for the path, at the quantity of the stage."""
        with away_from_inference(), as_measured(pl_module), status_line(show=shows_progress(trainer)):
            batches = training_batches(trainer, pl_module, self.num_batches)
            held = self._evaluated.gather(pl_module) or None
            landscapes = {
                metric: self._landscape(pl_module, metric, batches, held) for metric in self._metrics(pl_module)
            }
            landscape = landscapes[self.metric]
            state = self._state(pl_module)
            if self.align:
                state = aligned(pl_module, state, batches[0], loss_of(pl_module, self.loss_fn))
            ends = torch.stack([flat(pl_module), flat(pl_module, state)])
            level = higher_end(landscape, ends) if self.level is None else self.level
            (path,) = find_paths(landscape, ends[:1], ends[1:], level, self.method, self.settings, state=self.resume)
            summary = path.summary()
            for metric, other in landscapes.items():
                values = path.values if metric == self.metric else along(other, path)
                summary[f"{metric}_barrier"] = barrier(values)
            del summary["barrier"]
            for name, value in summary.items():
                pl_module.log(f"{stage}/geodesic/{name}", value, sync_dist=True, batch_size=1)
            self._show(trainer, on_plane(landscape, path), path, stage)
        self._forget()

    def _state(self, pl_module: LightningModule) -> dict[str, Tensor]:
        """Read the reference, which must end a path of the module's parameters."""
        state = reference_state(pl_module, self.reference, "GeodesicPath")
        check_same_buffers(pl_module, state)
        return state

    def _metrics(self, pl_module: LightningModule) -> list[Metric]:
        """List the metrics whose barriers are measured."""
        errs = self.error_fn is not None or callable(getattr(pl_module, "error", None))
        if self.metric == "error" and not errs:
            msg = f"{type(pl_module).__name__} has no error(batch); give GeodesicPath error_fn(module, batch)."
            raise ValueError(msg)
        return ["loss", *(["error"] if errs else []), *(["perplexity"] if self.metric == "perplexity" else [])]

    def _landscape(
        self, pl_module: LightningModule, metric: Metric, batches: list[Any], held: list[Any] | None
    ) -> ModelLandscape:
        return ModelLandscape(
            pl_module,
            batches,
            loss_fn=self.loss_fn,
            level_fn=(self.error_fn or own_error) if metric == "error" else None,
            level_batches=held,
            level_scale=torch.exp if metric == "perplexity" else None,
            count=self.count,
        )

    @rank_zero_only
    def _show(self, trainer: Trainer, plane: Plane | None, path: Path, stage: str) -> None:
        file = run_directory(trainer) / "paths" / f"{stage}.pt"
        path.save(file)
        rows = list(zip(path.position.tolist(), path.values.tolist(), strict=True))
        log_table(trainer, f"{stage}/geodesic_profile", ["position", self.metric], rows)
        profile = draw_profile(path, f"{self.metric}, {self.quantity} batches")
        shown = [log_figure(trainer, f"{stage}/geodesic_profile", profile)]
        if plane is not None:
            shown.append(log_figure(trainer, f"{stage}/geodesic_plane", draw_plane(plane, path.level)))
        console = Console()
        console.print(str(path), soft_wrap=True, highlight=False)
        for place in [file, *shown]:
            console.print(f"{'Path' if place == file else 'Figure'}: {place}", soft_wrap=True, highlight=False)


def settings_of(convention: Literal["certified", "authors"], **changes: Any) -> Settings:
    """Give the settings of a convention, some of them changed.

    Raises:
        ValueError: If there is no such convention.
    """
    if convention not in {"certified", "authors"}:
        msg = f"convention={convention!r}: choose from certified, authors."
        raise ValueError(msg)
    base = vars(AUTHORS if convention == "authors" else Settings())
    return Settings(**{**base, **changes})
