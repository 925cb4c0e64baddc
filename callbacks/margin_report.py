"""Figures and tables of margins: the latest distributions, and their quantiles over the epochs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only

from .media import log_figure, log_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Distribution", "MarginHistory", "draw_margins", "show", "unit"]


@dataclass(frozen=True)
class Distribution:
    """Smallest value and quantiles by name, and a histogram of what is finite: counts and edges, one more."""

    statistics: Mapping[str, float]
    counts: list[int]
    edges: list[float]

    def scaled(self, factor: float) -> "Distribution":
        """Give the distribution of the values times a positive number."""
        statistics = {name: value * factor for name, value in self.statistics.items()}
        return Distribution(statistics, self.counts, [edge * factor for edge in self.edges])


@dataclass
class MarginHistory:
    """All measured values by stage, epoch after epoch, and the latest distributions."""

    rows: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    latest: dict[str, dict[str, Distribution]] = field(default_factory=dict)

    def add(self, stage: str, epoch: int, values: Mapping[str, float], found: Mapping[str, Distribution]) -> None:
        """Remember an epoch; one that is measured again takes the place of the first time."""
        self.rows[stage] = [*self.before(stage, epoch), {"epoch": epoch, **values}]
        self.latest[stage] = dict(found)

    def before(self, stage: str, epoch: int) -> list[dict[str, float]]:
        """Give the values of the epochs before one, in order."""
        return [row for row in self.rows.get(stage, []) if row["epoch"] < epoch]


def unit(quantity: str) -> str:
    """Name the unit of a quantity, for axes and tables."""
    units = {"margin": "logits", "margin_normalized": "logits / weight^L", "margin_spectral": "1"}
    return units.get(quantity, "units of the input")


@rank_zero_only
def show(trainer: Trainer, history: MarginHistory, stage: str) -> None:
    """Store the figure and the table ``<stage>/margins``, of each of the stage's dataloaders.

    The table has one row an epoch.
    """
    for key, found in history.latest.items():
        if key.split("/")[0] != stage:
            continue
        rows = history.rows[key]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        log_table(trainer, f"{key}/margins", columns, [[row.get(name) for name in columns] for row in rows])
        log_figure(trainer, f"{key}/margins", draw_margins(found, rows))


def draw_margins(found: Mapping[str, Distribution], rows: list[dict[str, float]]) -> "Figure":
    """Draw a row of panels a quantity: its latest histogram, and its smallest value and quantiles over the epochs.

    Args:
        found: The latest distribution of each quantity.
        rows: ``epoch`` and ``<quantity>/<statistic>`` of each epoch.

    Returns:
        The figure, which no global state of matplotlib knows.
    """
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    over_time = len(rows) > 1
    figure = Figure(figsize=(10 if over_time else 5, 3.2 * len(found)), layout="constrained")
    grid: Any = figure.subplots(len(found), 1 + over_time, squeeze=False)
    for (quantity, distribution), axes in zip(found.items(), grid, strict=True):
        label = f"{quantity.replace('_', ' ')} ({unit(quantity)})"
        if distribution.counts:
            axes[0].stairs(distribution.counts, distribution.edges, fill=True)
        axes[0].axvline(0, color="black", linewidth=1)
        axes[0].set_xlabel(label)
        axes[0].set_ylabel("samples")
        if over_time:
            for statistic in distribution.statistics:
                key = f"{quantity}/{statistic}"
                points = [(row["epoch"], row[key]) for row in rows if key in row]
                axes[1].plot(*zip(*points, strict=True), label=statistic, marker=".", linewidth=1)
            axes[1].set_xlabel("epoch")
            axes[1].set_ylabel(label)
            axes[1].grid(alpha=0.3)
            axes[1].legend(fontsize="small")
    return figure
