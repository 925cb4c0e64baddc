"""Pictures of a path: the loss along it, and its projection on the plane of its beads over the loss surface."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .landscape import Landscape
from .path import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Plane", "draw_components", "draw_plane", "draw_profile", "on_plane"]


def draw_profile(path: Path, quantity: str = "loss") -> "Figure":
    """Draw the tested quantity along a path, its beads and the level."""
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.plot(path.position.cpu(), path.values.cpu(), linewidth=1.5)
    lengths = torch.linalg.vector_norm(path.beads.diff(dim=0), dim=1)
    places = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).cpu() / max(float(lengths.sum()), 1e-300)
    axes.plot(
        places, [float(path.values[(path.position - float(p)).abs().argmin()]) for p in places], "k.", label="beads"
    )
    axes.axhline(path.level, color="tab:red", linestyle=":", label=f"level {path.level:g}")
    if path.accepted != path.level:
        axes.axhline(path.accepted, color="tab:orange", linestyle=":", label=f"accepted {path.accepted:g}")
    state = "connected" if path.connected else "not connected at this budget"
    axes.set_title(f"{path.method}: {state}, length {path.length:.3f}, {path.num_beads} beads", fontsize="medium")
    axes.set_xlabel("position along the path")
    axes.set_ylabel(quantity)
    axes.legend()
    return figure


def draw_components(graphs: Mapping[float, tuple[Tensor, Tensor]]) -> "Figure":
    """Draw networks on a circle, a line for each path that was found, and a colour for each component.

    Args:
        graphs: By level, which pairs are connected (K, K) and the component of each network (K,), as
            :func:`components` gives them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(graphs), 3.6), layout="constrained")
    for axes, (level, (connected, labels)) in zip(figure.subplots(1, len(graphs), squeeze=False)[0], graphs.items(),
                                                  strict=True):  # fmt: skip
        angles = torch.arange(len(labels)) * (2 * math.pi / max(len(labels), 1))
        x, y = angles.cos(), angles.sin()
        for i, j in connected.triu(1).nonzero().tolist():
            axes.plot(x[[i, j]], y[[i, j]], color="0.6", linewidth=1, zorder=1)
        axes.scatter(x, y, c=[f"C{int(label) % 10}" for label in labels], s=120, zorder=2)
        for i in range(len(labels)):
            axes.annotate(str(i), (float(x[i]), float(y[i])), ha="center", va="center", color="white", fontsize="small")
        number = int(labels.max()) + 1 if len(labels) else 0
        axes.set_title(f"level {level:g}: {number} component{'s' * (number != 1)}", fontsize="medium")
        axes.set_aspect("equal")
        axes.set_axis_off()
    return figure


class Plane(NamedTuple):
    """The plane of a path: the beads on it (K, 2), the grid's coordinates (n,), and the values there (n, n)."""

    places: Tensor
    x: Tensor
    y: Tensor
    values: Tensor


def on_plane(landscape: Landscape, path: Path, resolution: int = 25, margin: float = 0.2) -> Plane | None:
    """Evaluate the plane of the first two principal components of a path's beads, through their mean.

    Costs ``resolution`` squared evaluations, which the processes share; all must call it. ``None`` if a bead diverged.
    """
    if not path.beads.isfinite().all():
        return None
    center = path.beads.mean(0)
    centered = path.beads - center
    _, _, basis = torch.linalg.svd(centered, full_matrices=False)
    if len(basis) < 2:
        basis = torch.cat([basis, torch.zeros_like(basis)])
    basis = basis[:2]
    places = centered @ basis.T
    low, high = places.min(0).values, places.max(0).values
    space = margin * (high - low).max().clamp_min(1e-12)
    x, y = (torch.linspace(float(low[i] - space), float(high[i] + space), resolution).to(places) for i in range(2))
    grid = torch.cartesian_prod(x, y)
    values = torch.cat([landscape.values_together(center + part @ basis) for part in grid.split(resolution)])
    return Plane(places.cpu(), x.cpu(), y.cpu(), values.view(resolution, resolution).cpu())


def draw_plane(plane: Plane, level: float) -> "Figure":
    """Draw beads on their plane over the values there.

    What a bead leaves the plane by is not seen, so the colours under the path are not the values on it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5))
    axes = figure.subplots()
    surface = plane.values.T
    drawn = axes.contourf(plane.x, plane.y, surface, levels=20, cmap="viridis")
    if bool((surface < level).any() and (surface > level).any()):
        axes.contour(plane.x, plane.y, surface, levels=[level], colors="white", linewidths=1)
    axes.plot(*plane.places.T, "r.-", linewidth=1)
    axes.plot(*plane.places[[0, -1]].T, "r*", markersize=10)
    figure.colorbar(drawn, label="value on the plane")
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    return figure
