"""Find the path from a network to another inside a level set, in any evaluation loop."""

from pathlib import Path as FilePath
from typing import Any, Literal

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from .geodesics.figures import draw_plane, draw_profile
from .geodesics.landscape import LossFunction, ModelLandscape, as_measured, flat
from .geodesics.path import Path
from .geodesics.search import Method, find_paths
from .geodesics.settings import AUTHORS, Settings
from .held_out import EvaluationMeasurement
from .media import log_figure, run_directory
from .training_batches import away_from_inference, gather_batches, training_batches

__all__ = ["GeodesicPath"]


class GeodesicPath(EvaluationMeasurement):
    r"""Search for a path from the module to a reference network on which a quantity stays at or below a level.

    Beads are trained on training batches; the quantity is the loss on these, or on the batches that the loop evaluates,
    which then train nothing. Works with any LightningModule that has ``loss(batch)``, or a ``loss_fn``. Measures at the
    end of ``validate`` and ``test``, and within ``fit`` every ``every_n_epochs``. The module is left as it was.

    Logs ``<stage>/geodesic/length`` (normalised: 1 is straight), ``beads``, ``maximum`` (certified on a refined grid,
    in units of the loss), ``barrier`` (the maximum less the higher end), and ``connected`` (1, or 0 for "not at this
    budget"). Writes the path to ``paths/<stage>.pt`` (:meth:`Path.load`), and two figures: the loss along the path, and
    the path over the loss surface on the plane of its beads. On several ranks the open segments are shared out and
    every rank holds all batches. A search that is killed goes on from ``resume``.

    Cost, in forward passes over the batches: ``grid`` times the segments tested, plus 625 for the second figure; one
    forward and backward pass on a batch for each bead and step.

    Args:
        reference: Checkpoint of the other network (a file with ``state_dict``).
        level: The level; ``None`` for the higher of the two ends.
        method: ``dss`` (dynamic string sampling), ``linear``, ``bezier`` or ``neb``.
        quantity: What the level bounds: the loss on the ``training`` batches or on the ``evaluated`` ones.
        convention: ``certified``, or that of the ``authors``' code, which accepts 1.1 times the level.
        count: Parameters that lengths count.
        num_batches: Training batches that beads are trained on; 0 for all.
        lr: Adam's rate for beads.
        max_steps: Most steps of a bead, or of the whole curve or band.
        max_passes: Most times that all open segments are split.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        resume: File in which the search keeps what it has, and goes on from; ``None`` to start afresh.
        loss_fn: Loss of (module, batch), a mean over samples; ``None`` for ``module.loss(batch)``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        reference: str,
        level: float | None = None,
        method: Method = "dss",
        quantity: Literal["training", "evaluated"] = "training",
        convention: Literal["certified", "authors"] = "certified",
        count: Literal["all", "weights"] = "all",
        num_batches: int = 0,
        lr: float = 1e-3,
        max_steps: int = 20000,
        max_passes: int = 10,
        every_n_epochs: int = 0,
        resume: str | None = None,
        loss_fn: LossFunction | None = None,
    ) -> None:
        if not FilePath(reference).is_file():
            msg = f"GeodesicPath(reference={reference!r}): there is no such checkpoint; check the path."
            raise FileNotFoundError(msg)
        super().__init__(every_n_epochs)
        if num_batches < 0:
            msg = f"GeodesicPath(num_batches={num_batches}): must be at least 0; 0 for all."
            raise ValueError(msg)
        self.reference = reference
        self.level = level
        self.method: Method = method
        self.quantity = quantity
        self.settings = settings_of(convention, lr=lr, max_steps=max_steps, max_passes=max_passes)
        self.count: Literal["all", "weights"] = count
        self.num_batches = num_batches
        self.resume = FilePath(resume) if resume is not None else None
        self.loss_fn = loss_fn

    def _forget(self) -> None:
        self._evaluated: list[Any] = []

    def _keep(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> None:
        del trainer, pl_module, dataloader_idx
        if self.quantity == "evaluated":
            with torch.inference_mode(False):  # a tensor of inference mode could not be used outside of it
                self._evaluated.append(apply_to_collection(batch, Tensor, torch.clone))

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Search for the path, at the quantity of the stage."""
        with away_from_inference(), as_measured(pl_module):
            landscape = ModelLandscape(
                pl_module,
                training_batches(trainer, pl_module, self.num_batches),
                loss_fn=self.loss_fn,
                level_batches=gather_batches(trainer, pl_module, self._evaluated) or None,
                count=self.count,
            )
            ends = torch.stack([flat(pl_module), reference_point(pl_module, self.reference)])
            level = float(landscape.values(ends).max()) if self.level is None else self.level
            (path,) = find_paths(landscape, ends[:1], ends[1:], level, self.method, self.settings, state=self.resume)
            for name, value in path.summary().items():
                pl_module.log(f"{stage}/geodesic/{name}", value, sync_dist=True, batch_size=1)
            self._show(trainer, landscape, path, stage)
        self._forget()

    @rank_zero_only
    def _show(self, trainer: Trainer, landscape: ModelLandscape, path: Path, stage: str) -> None:
        file = run_directory(trainer) / "paths" / f"{stage}.pt"
        path.save(file)
        shown = [
            log_figure(trainer, f"{stage}/geodesic_profile", draw_profile(path, f"loss, {self.quantity} batches")),
            log_figure(trainer, f"{stage}/geodesic_plane", draw_plane(landscape, path)),
        ]
        console = Console()
        state = "connected" if path.connected else "not connected at this budget"
        console.print(
            f"{path.method}, level {path.level:.4g}: {state}; length {path.length:.3f}, {path.num_beads} beads, "
            f"highest {path.maximum:.4g} at {path.highest:.2f} of the way",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
        for place in [file, *shown]:
            console.print(f"{'Path' if place == file else 'Figure'}: {place}", soft_wrap=True, highlight=False)


def settings_of(convention: Literal["certified", "authors"], **changes: Any) -> Settings:
    """Give the settings of a convention, some of them changed."""
    base = vars(AUTHORS if convention == "authors" else Settings())
    return Settings(**{**base, **changes})


def reference_point(module: LightningModule, reference: str) -> Tensor:
    """Read the parameters of another network of the same architecture from a checkpoint, (P,).

    Raises:
        ValueError: If the file holds no ``state_dict``, or one whose parameters differ.
    """
    content = torch.load(reference, map_location=module.device, weights_only=True)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        msg = f"GeodesicPath(reference={reference!r}): the file holds no state_dict; give a checkpoint."
        raise ValueError(msg)
    for name, parameter in module.named_parameters():
        if name not in state or state[name].shape != parameter.shape:
            found = tuple(state[name].shape) if name in state else "absent"
            msg = (
                f"GeodesicPath(reference={reference!r}): {name} is {found} there and {tuple(parameter.shape)} here; "
                "give a checkpoint of the same architecture."
            )
            raise ValueError(msg)
    return torch.cat([state[name].to(parameter).reshape(-1) for name, parameter in module.named_parameters()])
