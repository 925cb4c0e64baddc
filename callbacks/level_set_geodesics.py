"""Train many pairs of a small network to each of several levels, and connect them: length and beads against level."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .comparison import mean_and_standard_error
from .geodesic_path import settings_of
from .geodesics.descent import snapshots
from .geodesics.landscape import ModelLandscape, as_measured, flat, unflat
from .geodesics.search import find_paths
from .geodesics.settings import Settings
from .media import log_figure, log_table, run_directory
from .training_batches import away_from_inference, training_batches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LevelSetGeodesics"]

#: Columns of a level's row.
COLUMNS = ("level", "pairs", "connected", "length", "length_stderr", "beads", "beads_stderr", "maximum")


class LevelSetGeodesics(Callback):
    r"""Measure how long and crooked the paths between trained networks are, level by level.

    The experiment of `"Topology and Geometry of Half-Rectified Network Optimization"
    <https://arxiv.org/abs/1611.01540>`_, figure 1. In ``test``, 2 ``pairs`` copies of the module with fresh initial
    weights are trained together, by Adam on the training batches; each is kept at the first step at which its loss is
    below a level, so that one training serves all levels. At each level, consecutive networks are connected by dynamic
    string sampling, all pairs at once. The module itself is left as it was.

    Logs, for each level L, over the pairs that were connected: ``test/geodesic/length/level_L`` (normalised length) and
    ``test/geodesic/beads/level_L`` (ends included), each with ``_stderr``; ``test/geodesic/connected/level_L`` (their
    share of the pairs) and ``test/geodesic/maximum/level_L`` (highest value on any of the paths on a refined grid, in
    units of the level). With published values also ``test/geodesic/length_agreement`` and ``.../beads_agreement``: the
    share of published levels at which the length is within two published error bars, and the beads within 20 %. Writes
    a table and a figure. On several ranks the beads of a level are shared out.

    Args:
        levels: Levels of the training loss.
        pairs: Pairs of networks at each level, >= 1.
        convention: ``authors``: that of their code, which accepts 1.1 times the level; or ``certified``.
        count: Parameters that lengths count.
        lr: Adam's rate, of networks and beads.
        max_steps: Most steps of a network.
        bead_steps: Most steps of a bead.
        max_passes: Most times that all open segments are split.
        published: Published points, each ``[level, length, error of the length, beads]``.
        mark: A level to be marked in the figure, e.g. that below which no constant function lies.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        levels: Sequence[float],
        pairs: int = 20,
        convention: Literal["certified", "authors"] = "authors",
        count: Literal["all", "weights"] = "weights",
        lr: float = 1e-3,
        max_steps: int = 60000,
        bead_steps: int = 20000,
        max_passes: int = 10,
        published: Sequence[Sequence[float]] = (),
        mark: float | None = None,
    ) -> None:
        if not levels or min(levels) <= 0:
            msg = f"LevelSetGeodesics(levels={list(levels)}): give levels above 0, e.g. [0.1, 0.05]."
            raise ValueError(msg)
        if pairs < 1 or max_steps < 1:
            msg = f"LevelSetGeodesics(pairs={pairs}, max_steps={max_steps}): both must be at least 1."
            raise ValueError(msg)
        if any(len(point) != 4 for point in published):
            msg = "LevelSetGeodesics(published=...): each point is [level, length, error of the length, beads]."
            raise ValueError(msg)
        self.levels = sorted((float(level) for level in levels), reverse=True)
        self.pairs = pairs
        self.settings: Settings = settings_of(convention, lr=lr, max_steps=bead_steps, max_passes=max_passes)
        self.count: Literal["all", "weights"] = count
        self.max_steps = max_steps
        self.published = [list(map(float, point)) for point in published]
        self.mark = mark

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the networks, connect them, and report."""
        with away_from_inference(), as_measured(pl_module):
            landscape = ModelLandscape(pl_module, training_batches(trainer, pl_module, 0), count=self.count)
            starts = fresh_points(pl_module, 2 * self.pairs, trainer.strategy.broadcast(torch.initial_seed()))
            networks, reached = snapshots(landscape, starts, self.levels, lr=self.settings.lr, max_steps=self.max_steps)
            rows = []
            for level, points, low in zip(self.levels, networks, reached, strict=True):
                rows.append(self._connect(landscape, points[low], level))
                self._log(pl_module, rows[-1])
        agreement = agreements(rows, self.published)
        for name, value in agreement.items():
            pl_module.log(f"test/geodesic/{name}_agreement", value, sync_dist=True, batch_size=1)
        self._show(trainer, rows)

    def _connect(self, landscape: ModelLandscape, points: Tensor, level: float) -> list[float]:
        """Connect networks two by two; gives the row of the level, NaN where no pair was connected."""
        pairs = len(points) // 2
        if pairs < self.pairs:
            rank_zero_warn(f"level {level:g}: {pairs} of {self.pairs} pairs got there in {self.max_steps} steps.")
        paths = (
            find_paths(landscape, points[0 : 2 * pairs : 2], points[1 : 2 * pairs : 2], level, "dss", self.settings)
            if pairs
            else []
        )
        found = [path for path in paths if path.connected]
        if not found:
            return [level, pairs, 0.0, *[float("nan")] * 5]
        values = torch.tensor([[path.length, path.num_beads] for path in found], dtype=torch.float64)
        means, errors = mean_and_standard_error(values)
        highest = max(path.maximum for path in found) / level
        length, beads = zip(means.tolist(), errors.tolist(), strict=True)
        return [level, pairs, len(found) / pairs, *length, *beads, highest]

    def _log(self, pl_module: LightningModule, row: list[float]) -> None:
        values = dict(zip(COLUMNS, row, strict=True))
        level = f"level_{values.pop('level'):g}"
        del values["pairs"]
        for name, value in values.items():
            quantity, stderr, _ = name.partition("_stderr")
            pl_module.log(f"test/geodesic/{quantity}/{level}{stderr}", value, sync_dist=True, batch_size=1)

    @rank_zero_only
    def _show(self, trainer: Trainer, rows: list[list[float]]) -> None:
        known = {point[0]: point[1:] for point in self.published}
        nan = [float("nan")] * 3
        columns = [*COLUMNS, "published_length", "published_error", "published_beads"]
        records = [[*row, *known.get(row[0], nan)] for row in rows]
        log_table(trainer, "test/geodesics", columns, records)
        table = Table("level", "pairs", "connected", "length", "published", "beads", "published", "certified / level")
        for level, pairs, share, length, error, beads, spread, highest, theirs, bar, count in records:
            table.add_row(
                f"{level:g}", f"{pairs:g}", f"{share:.0%}", f"{length:.3f} ± {error:.3f}", f"{theirs:.3f} ± {bar:.3f}",
                f"{beads:.2f} ± {spread:.2f}", f"{count:.2f}", f"{highest:.3f}",
            )  # fmt: skip
        console = Console(width=max(Console().width, 110))
        console.print(table)
        console.print(f"Run directory: {run_directory(trainer)}", soft_wrap=True)
        if any(row[2] for row in rows):  # of no pair connected there is nothing to draw
            path = log_figure(trainer, "test/geodesics", draw_levels(rows, self.published, self.mark))
            console.print(f"Figure: {path}", soft_wrap=True)


def fresh_points(module: LightningModule, number: int, seed: int) -> Tensor:
    """Draw initial parameters ``number`` >= 2 times, (number, P), by the ``reset_parameters`` of the module's parts.

    Raises:
        ValueError: If that changes nothing.
    """
    own = flat(module)
    parts = [part for part in module.modules() if callable(getattr(part, "reset_parameters", None))]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        points = []
        for _ in range(number):
            for part in reversed(parts):  # what holds others decides last
                part.reset_parameters()  # pyright: ignore[reportCallIssue]
            points.append(flat(module))
        for name, value in unflat(own, module).items():
            module.get_parameter(name).copy_(value)
    if torch.equal(points[0], points[1]):
        msg = f"{type(module).__name__}: none of its parts has a reset_parameters that draws initial weights anew."
        raise ValueError(msg)
    return torch.stack(points)


def agreements(rows: Sequence[Sequence[float]], published: Sequence[Sequence[float]]) -> dict[str, float]:
    """Give the shares of published levels at which length (two error bars) and beads (20 %) agree.

    Where less than half of the pairs were connected none agrees: their mean is that of the easy ones.
    """
    measured = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}
    pairs = [(measured[point[0]], point) for point in published if point[0] in measured]
    if not pairs:
        return {}
    lengths = [
        row["connected"] >= 0.5 and abs(row["length"] - length) <= 2 * error for row, (_, length, error, _) in pairs
    ]
    beads = [row["connected"] >= 0.5 and abs(row["beads"] - count) <= 0.2 * count for row, (_, _, _, count) in pairs]
    return {"length": sum(lengths) / len(pairs), "beads": sum(beads) / len(pairs)}


def draw_levels(rows: Sequence[Sequence[float]], published: Sequence[Sequence[float]], mark: float | None) -> "Figure":
    """Draw normalised length and number of beads against the level, beside the published points."""
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    figure = Figure(figsize=(10, 4))
    columns: Any = list(zip(*rows, strict=True))
    points: Any = [list(column) for column in zip(*sorted(map(list, published)), strict=True)]
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("normalised length", "beads"), strict=True)):
        place = 3 + 2 * number
        axes.errorbar(columns[0], columns[place], yerr=columns[place + 1], marker="o", capsize=2, label="measured")
        if published:
            bars = points[2] if number == 0 else None
            axes.errorbar(points[0], points[1 + 2 * number], yerr=bars, marker="x", linestyle=":", color="0.4",
                          capsize=2, label="published")  # fmt: skip
        if mark is not None:
            axes.axvline(mark, color="tab:red", linewidth=0.8, linestyle="--")
        axes.set_xscale("log")
        if number == 1:
            axes.set_yscale("log")
        axes.set_xlabel("level of the loss")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
