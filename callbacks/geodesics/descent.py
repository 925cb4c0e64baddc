"""Train many parameter vectors at once, each until it is low enough."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any, Literal

import torch
from torch import Tensor

from .kept import once
from .landscape import LARGE, Landscape
from .ranks import share
from .status import detail, stage

__all__ = ["below", "clipped", "descend", "dropped", "snapshots"]

#: Rows are trained together up to so many numbers: beyond, nothing stays in the cache, and one by one is faster.
_NUMBERS = 2**22


class _Rows:
    """Points under training: rows of one tensor with one optimizer, which acts on every row as if it were alone."""

    def __init__(
        self, points: Tensor, lr: float, optimizer: Literal["adam", "sgd"], clip: float, drop_steps: float
    ) -> None:
        self.points = points.clone()
        self.index = torch.arange(len(points), device=points.device)
        self._lr, self._kind, self._clip, self._drop_steps = lr, optimizer, clip, drop_steps
        self._steps = 0
        self._optimizer = self._fresh()

    def _fresh(self) -> torch.optim.Optimizer:
        if self._kind == "sgd":
            return torch.optim.SGD([self.points], lr=self._lr)
        return torch.optim.Adam([self.points], lr=self._lr, fused=self.points.shape[1] >= LARGE or None)

    def step(self, gradient: Tensor) -> None:
        self.points.grad = clipped(gradient, self._clip)
        self._optimizer.param_groups[0]["lr"] = dropped(self._lr, self._steps, self._drop_steps)
        self._optimizer.step()
        self._steps += 1

    def keep(self, mask: Tensor) -> None:
        """Drop the rows that are done, and what the optimizer remembers of them."""
        old = self._optimizer
        self.points, self.index = self.points[mask], self.index[mask]
        self._optimizer = self._fresh()
        for state in old.state.values():
            moments = {name: value[mask] if value.ndim else value for name, value in state.items()}
            self._optimizer.state[self.points] = moments


def dropped(lr: float, steps: Any, drop_steps: float) -> Any:
    """Give the rate after a number of steps, or one for each number in a tensor: a tenth from ``drop_steps`` on."""
    return lr if drop_steps == float("inf") else lr * (1 - 0.9 * (steps >= drop_steps))


def clipped(gradient: Tensor, norm: float) -> Tensor:
    """Scale gradients, (n, P), to at most this norm each."""
    if norm == float("inf"):
        return gradient
    return gradient * (norm / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp_min(norm))


def descend(
    landscape: Landscape,
    points: Tensor,
    target: float,
    *,
    lr: float,
    block: int,
    max_steps: int,
    optimizer: Literal["adam", "sgd"] = "adam",
    clip: float = float("inf"),
    drop_steps: float = float("inf"),
) -> tuple[Tensor, Tensor]:
    """Train points until the quantity of the level is below a target; those of large networks one after another.

    Args:
        landscape: Gives gradients of the training loss, and the quantity of the level.
        points: Where to start, (n, P).
        target: The quantity must fall below it.
        lr: Rate, > 0.
        block: Steps between two looks at the quantity, >= 1.
        max_steps: Most steps of each point.
        optimizer: Adam or plain gradient descent.
        clip: Gradients are scaled to at most this norm, > 0.
        drop_steps: Steps after which the rate falls to a tenth, > 0.

    Returns:
        The points, (n, P), and the quantity there, (n,): not below the target where the budget was used up.
    """
    parts = points.split(max(_NUMBERS // points.shape[1], 1))
    if len(parts) > 1:
        results = [
            descend(
                landscape, part, target, lr=lr, block=block, max_steps=max_steps, optimizer=optimizer, clip=clip,
                drop_steps=drop_steps,
            )
            for part in parts
        ]  # fmt: skip
        points, values = (torch.cat(column) for column in zip(*results, strict=True))
        return points, values
    done, values = points.clone(), landscape.values(points)
    rows = _Rows(points, lr, optimizer, clip, drop_steps)
    rows.keep(~below(values, target))
    step = 0
    while len(rows.index) and step < max_steps:
        for _ in range(min(block, max_steps - step)):
            _, gradient = landscape.gradient(rows.points, step)
            rows.step(gradient)
            step += 1
        now = landscape.values(rows.points)
        done[rows.index], values[rows.index] = rows.points, now
        detail(f"Beads: {len(now)}, step {step} of {max_steps}, {float(now.min()):.4g} (to {target:.4g}).")
        if bool(below(now, target).any()):
            rows.keep(~below(now, target))
    return done, values


def below(values: Tensor, target: float) -> Tensor:
    """Tell which values are below a target, bool like them; an error rate is not below 0, but may reach it."""
    return values < target if target else values <= 0


def snapshots(
    landscape: Landscape,
    points: Tensor,
    levels: Sequence[float],
    *,
    lr: float,
    max_steps: int,
    block: int = 100,
    optimizer: Literal["adam", "sgd"] = "adam",
    clip: float = float("inf"),
    drop_steps: float = float("inf"),
    kept: FilePath | None = None,
) -> tuple[Tensor, Tensor]:
    """Train points once, and keep each as it was when first seen below each level; each process trains its share.

    Args:
        landscape: Gives the training loss, and the quantity of the level.
        points: Where to start, (n, P).
        levels: Levels, L of them.
        lr: Rate, > 0.
        max_steps: Most steps.
        block: Steps between two looks at the quantity of the level, >= 1. Where it is the loss that every step gives
            anyway, every step is a look.
        optimizer: Adam or plain gradient descent.
        clip: Gradients are scaled to at most this norm, > 0.
        drop_steps: Steps after which the rate falls to a tenth, > 0.
        kept: Folder in which the networks that are done are kept, and found by a run that goes on after a kill.

    Returns:
        The snapshots, (L, n, P), and which levels were reached, (L, n) bool.
    """

    def train(points: Tensor) -> tuple[Tensor, Tensor]:
        parts = points.split(max(_NUMBERS // points.shape[1], 1))
        trained = []
        for number, part in enumerate(parts, start=1):
            stage(f"Networks, part {number} of {len(parts)}.")
            digest = hashlib.blake2b(part.cpu().numpy().tobytes(), digest_size=8).hexdigest()
            rows = _Rows(part, lr, optimizer, clip, drop_steps)
            run = partial(_snapshots, landscape, rows, levels, max_steps, block)
            trained.append(once(kept / f"networks-{digest}.pt" if kept else None, run, part.device))
        snapshot, reached = (torch.cat(column) for column in zip(*trained, strict=True))
        return snapshot, reached

    snapshot, reached = share(train, points)
    return snapshot.transpose(0, 1), reached.T


def _snapshots(
    landscape: Landscape, rows: _Rows, levels: Sequence[float], max_steps: int, block: int
) -> tuple[Tensor, Tensor]:
    """Train rows together; gives what was kept, (n, L, P), and which levels were reached, (n, L)."""
    points = rows.points
    limits = torch.tensor(levels, dtype=points.dtype, device=points.device)
    kept = points[:, None].repeat(1, len(levels), 1)
    reached = torch.zeros(len(points), len(levels), dtype=torch.bool, device=points.device)
    for step in range(max_steps + (not landscape.level_is_loss)):  # one look more, behind the last step
        losses, gradient = landscape.gradient(rows.points, step)
        if not landscape.level_is_loss:
            looked = (step > 0 and step % block == 0) or step == max_steps
            losses = landscape.values(rows.points) if looked else torch.full_like(losses, float("inf"))
        if step % block == 0:
            detail(f"Step {step} of {max_steps}, {float(losses.min()):.4g} (to {levels[-1]:.4g}).")
        new = (losses[:, None] < limits) & ~reached[rows.index]
        for number, mask in enumerate(new.T if bool(new.any()) else []):
            kept[rows.index[mask], number] = rows.points[mask]
            reached[rows.index[mask], number] = True
        rows.step(gradient)
        if bool(new.any()):
            rows.keep(~reached[rows.index].all(1))
            if not len(rows.index):
                break
    return kept, reached
