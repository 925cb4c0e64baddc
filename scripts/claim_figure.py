"""One page of figures for a claim: how a quantity of each run went while it was measured."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from .claims import Claim, Curves

__all__ = ["draw_claim", "read_curve"]

_COLUMNS = 6
#: From this ratio of the largest to the least value on, the axis is logarithmic.
_LOGARITHMIC = 30


def read_curve(path: Path, curves: Curves) -> tuple[str, list[float], list[float]] | None:
    """Read the first quantity of ``curves.y`` that a run logged, against ``curves.x``.

    Args:
        path: The run's metrics.csv.
        curves: Columns to look for.

    Returns:
        The quantity's name and the points, or ``None`` if there are none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in curves.y:
        points = [(float(row[curves.x]), float(row[name])) for row in rows if row.get(curves.x) and row.get(name)]
        if points:
            x, y = zip(*points, strict=True)
            return name, list(x), list(y)
    return None


def draw_claim(claim: Claim, directories: Mapping[str, Sequence[Path]], path: Path) -> bool:
    """Draw a panel for each run, a line for each seed.

    Args:
        claim: A claim with ``figure``.
        directories: Run directories of each run, one a seed.
        path: The PNG to write.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    assert claim.figure is not None
    panels = {}
    for name, folders in directories.items():
        found = [read_curve(folder / "metrics.csv", claim.figure) for folder in folders]
        if lines := [curve for curve in found if curve is not None]:
            panels[name] = lines
    if not panels:
        return False
    rows, columns = -(-len(panels) // _COLUMNS), min(len(panels), _COLUMNS)
    figure = Figure(figsize=(2.6 * columns, 2.0 * rows + 0.4), layout="constrained")
    figure.suptitle(claim.title)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        for quantity, x, y in lines:
            axis.plot(x, y)
            axis.set_ylabel(quantity.split("/")[-1].replace("_", " "), fontsize="x-small")
            if min(x) > 0:
                axis.set_xscale("log")
            if min(y) > 0 and max(y) > _LOGARITHMIC * min(y):
                axis.set_yscale("log")
        axis.set_title(name, fontsize="small")
        axis.set_xlabel(claim.figure.x.split("/")[-1], fontsize="x-small")
        axis.tick_params(labelsize="x-small")
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    return True
