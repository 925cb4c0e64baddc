"""Count the components that trained networks form at each of several levels, as far as found paths tell."""

from collections.abc import Sequence
from typing import Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from .geodesic_path import settings_of
from .geodesics.components import components
from .geodesics.descent import snapshots
from .geodesics.figures import draw_components
from .geodesics.landscape import ModelLandscape, as_measured, loss_of
from .geodesics.status import status_line
from .level_set_geodesics import fresh_points
from .media import log_figure, log_table, shows_progress
from .training_batches import away_from_inference, training_batches, training_loader

__all__ = ["LevelSetComponents"]


class LevelSetComponents(Callback):
    r"""Measure in ``test`` how many components K trained networks form at each level of the loss.

    Copies of the module with fresh initial weights are trained together, by Adam on the training batches, each kept
    when it is first seen below each level: after every step where the data are one batch, else every 100. At a level
    every pair is connected by dynamic string sampling; networks that found paths join are certainly in one component of
    :math:`\{\theta : E(\theta) \le u\}`. A search that fails proves nothing, so the number is an upper bound for these
    networks. The module itself is left as it was.

    Logs, for each level L, ``test/components/number/level_L``, and ``test/components/connected/level_L``, the share of
    pairs that were connected directly. Writes a table of the pairs and a figure of the graphs. On several ranks the
    networks, the beads and the points that are tested are shared out.

    Args:
        levels: Levels of the training loss.
        networks: K, >= 2.
        convention: ``certified``, or that of the ``authors``' code, which accepts 1.1 times the level.
        lr: Adam's rate, of networks and beads.
        max_steps: Most steps of a network.
        bead_steps: Most steps of a bead.
        max_passes: Most times that a segment is halved.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        levels: Sequence[float],
        networks: int = 8,
        convention: Literal["certified", "authors"] = "certified",
        lr: float = 1e-3,
        max_steps: int = 60000,
        bead_steps: int = 20000,
        max_passes: int = 10,
    ) -> None:
        if not levels or min(levels) <= 0:
            msg = f"LevelSetComponents(levels={list(levels)}): give levels above 0, e.g. [0.1, 0.01]."
            raise ValueError(msg)
        if networks < 2 or max_steps < 1:
            msg = f"LevelSetComponents(networks={networks}, max_steps={max_steps}): give at least 2 and at least 1."
            raise ValueError(msg)
        self.levels = sorted((float(level) for level in levels), reverse=True)
        self.networks = networks
        self.settings = settings_of(convention, lr=lr, max_steps=bead_steps, max_passes=max_passes)
        self.max_steps = max_steps

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module without a loss, and a trainer without training batches."""
        loss_of(pl_module, None)
        training_loader(trainer)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the networks, connect them, and report."""
        graphs: dict[float, tuple[Tensor, Tensor]] = {}
        with away_from_inference(), as_measured(pl_module), status_line(show=shows_progress(trainer)):
            landscape = ModelLandscape(pl_module, training_batches(trainer, pl_module, 0))
            starts = fresh_points(pl_module, self.networks, trainer.strategy.broadcast(torch.initial_seed()))
            networks, reached = snapshots(landscape, starts, self.levels, lr=self.settings.lr, max_steps=self.max_steps)
            for level, points, low in zip(self.levels, networks, reached, strict=True):
                if int(low.sum()) < self.networks:
                    rank_zero_warn(f"level {level:g}: {int(low.sum())} of {self.networks} networks got there.")
                graphs[level] = components(landscape, points[low], level, "dss", self.settings)
        rows = []
        for level, (connected, labels) in graphs.items():
            pairs = torch.triu_indices(len(labels), len(labels), offset=1)
            edges = connected[pairs[0], pairs[1]]
            number = float(labels.max() + 1) if len(labels) else 0.0
            share = float(edges.double().mean()) if len(edges) else float("nan")
            pl_module.log(f"test/components/number/level_{level:g}", number, sync_dist=True, batch_size=1)
            pl_module.log(f"test/components/connected/level_{level:g}", share, sync_dist=True, batch_size=1)
            rows += [[level, *pair, int(edge)] for pair, edge in zip(pairs.T.tolist(), edges, strict=True)]
        log_table(trainer, "test/components", ["level", "first", "second", "connected"], rows)
        log_figure(trainer, "test/components", draw_components(graphs))
