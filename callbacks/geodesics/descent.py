"""Train many parameter vectors at once, each until it is low enough."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .landscape import Landscape

__all__ = ["descend", "snapshots"]


class _Rows:
    """Points under training: rows of one tensor with one Adam, which acts on every row as if it were alone."""

    def __init__(self, points: Tensor, lr: float) -> None:
        self.points = points.clone()
        self.index = torch.arange(len(points), device=points.device)
        self.optimizer = torch.optim.Adam([self.points], lr=lr)

    def step(self, gradient: Tensor) -> None:
        self.points.grad = gradient
        self.optimizer.step()

    def keep(self, mask: Tensor) -> None:
        """Drop the rows that are done, and what Adam remembers of them."""
        old = self.optimizer
        self.points, self.index = self.points[mask], self.index[mask]
        self.optimizer = torch.optim.Adam([self.points], lr=old.param_groups[0]["lr"])
        for state in old.state.values():
            moments = {name: value[mask] if value.ndim else value for name, value in state.items()}
            self.optimizer.state[self.points] = moments


def descend(
    landscape: Landscape, points: Tensor, target: float, *, lr: float, block: int, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Train points by Adam until the quantity of the level is below a target.

    Args:
        landscape: Gives gradients of the training loss, and the quantity of the level.
        points: Where to start, (n, P).
        target: The quantity must fall below it.
        lr: Adam's rate, > 0.
        block: Steps between two looks at the quantity, >= 1.
        max_steps: Most steps of each point.

    Returns:
        The points, (n, P), and the quantity there, (n,): not below the target where the budget was used up.
    """
    done, values = points.clone(), landscape.values(points)
    rows = _Rows(points, lr)
    rows.keep(~(values < target))
    step = 0
    while len(rows.index) and step < max_steps:
        for _ in range(min(block, max_steps - step)):
            _, gradient = landscape.gradient(rows.points, step)
            rows.step(gradient)
            step += 1
        now = landscape.values(rows.points)
        done[rows.index], values[rows.index] = rows.points, now
        if bool((now < target).any()):
            rows.keep(~(now < target))
    return done, values


def snapshots(
    landscape: Landscape, points: Tensor, levels: Sequence[float], *, lr: float, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Train points once by Adam, and keep each as it was at the first step below each level.

    Args:
        landscape: Its training loss decides, at every step.
        points: Where to start, (n, P).
        levels: Levels of the loss, L of them.
        lr: Adam's rate, > 0.
        max_steps: Most steps.

    Returns:
        The snapshots, (L, n, P), and which levels were reached, (L, n) bool.
    """
    limits = torch.tensor(levels, dtype=points.dtype, device=points.device)
    kept = points.expand(len(levels), *points.shape).clone()
    reached = torch.zeros(len(levels), len(points), dtype=torch.bool, device=points.device)
    rows = _Rows(points, lr)
    for step in range(max_steps):
        losses, gradient = landscape.gradient(rows.points, step)
        new = (losses < limits[:, None]) & ~reached[:, rows.index]
        if bool(new.any()):
            for number, mask in enumerate(new):
                kept[number, rows.index[mask]] = rows.points[mask]
                reached[number, rows.index[mask]] = True
            rows.step(gradient)
            rows.keep(~reached[:, rows.index].all(0))
            if not len(rows.index):
                break
        else:
            rows.step(gradient)
    return kept, reached
