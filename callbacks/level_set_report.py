"""What the paths between many trained networks come to, level by level: agreement, table and figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from .media import log_figure, log_table, run_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLUMNS", "agreements", "show_levels"]

#: Columns of a level's row.
COLUMNS = ("level", "pairs", "connected", "length", "length_stderr", "beads", "beads_stderr", "maximum")

#: Rows of a level, by the convention that was searched by.
Rows = dict[str, list[list[float]]]


@rank_zero_only
def show_levels(trainer: Trainer, rows: Rows, published: Sequence[Sequence[float]], mark: float | None) -> None:
    """Write the table and the figure of the levels, and print the table with the published values beside it."""
    known = {point[0]: point[1:] for point in published}
    nan = [float("nan")] * 3
    columns = ["convention", *COLUMNS, "published_length", "published_error", "published_beads"]
    records = [[name, *row, *known.get(row[0], nan)] for name, part in rows.items() for row in part]
    log_table(trainer, "test/geodesics", columns, records)
    table = Table("level", "pairs", "connected", "length", "published", "beads", "published", "highest / level",
                  "convention")  # fmt: skip
    for name, level, pairs, share, length, error, beads, spread, highest, theirs, bar, count in records:
        table.add_row(
            f"{level:g}", f"{pairs:g}", f"{share:.0%}", f"{length:.3f} ± {error:.3f}", f"{theirs:.3f} ± {bar:.3f}",
            f"{beads:.2f} ± {spread:.2f}", f"{count:.2f}", f"{highest:.3f}", name,
        )  # fmt: skip
    console = Console(width=max(Console().width, 120))
    console.print(table)
    console.print(f"Run directory: {run_directory(trainer)}", soft_wrap=True)
    if any(record[3] for record in records):  # of no pair connected there is nothing to draw
        path = log_figure(trainer, "test/geodesics", draw_levels(rows, published, mark))
        console.print(f"Figure: {path}", soft_wrap=True)


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


def draw_levels(rows: Rows, published: Sequence[Sequence[float]], mark: float | None) -> "Figure":
    """Draw normalised length and number of beads against the level, beside the published points."""
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    figure = Figure(figsize=(10, 4))
    points: Any = [list(column) for column in zip(*sorted(map(list, published)), strict=True)]
    for number, (axes, name) in enumerate(zip(figure.subplots(1, 2), ("normalised length", "beads"), strict=True)):
        place = 3 + 2 * number
        for convention, part in rows.items():
            columns: Any = list(zip(*part, strict=True))
            label = "measured" if len(rows) == 1 else f"measured, {convention}"
            axes.errorbar(columns[0], columns[place], yerr=columns[place + 1], marker="o", capsize=2, label=label)
        if published:
            bars = points[2] if number == 0 else None
            axes.errorbar(points[0], points[1 + 2 * number], yerr=bars, marker="x", linestyle=":", color="0.4",
                          capsize=2, label="published")  # fmt: skip
        if mark is not None:
            axes.axvline(mark, color="tab:red", linewidth=0.8, linestyle="--")
        axes.set_xscale("log")
        if number == 1:
            axes.set_yscale("log")
        axes.set_xlabel("level")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
