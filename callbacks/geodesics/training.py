"""Train beads that come and go: each is begun when it is needed, and leaves as soon as it is low enough."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .descent import below, clipped, descend, dropped
from .landscape import LARGE, Landscape
from .ranks import rank_and_size
from .settings import Settings

__all__ = ["Training"]

#: Looks at the beads' values between two exchanges of those that are done.
_LOOKS = 20


class Training:
    """Beads under training, all together and each as if it were alone; those of large networks one after another.

    A bead has its own moments and its own number of steps, so it does not matter with which others it is trained: not
    when the others came, and not how many processes share them (the k-th bead that is added is trained by process k
    modulo their number). torch's own Adam has one number of steps for all rows of a tensor.

    Args:
        landscape: Gives gradients of the training loss, and the quantity of the level.
        target: A bead is done when the quantity is below it.
        settings: ``optimizer``, ``lr``, ``drop_steps``, ``clip``, ``block``, and ``max_steps``, rounded up to whole
            blocks.
    """

    def __init__(self, landscape: Landscape, target: float, settings: Settings) -> None:
        self.landscape = landscape
        self.target = target
        self.settings = settings
        #: Labels of the beads in training on any process, with the process that trains it.
        self.owners: dict[int, int] = {}
        self._added = 0
        self._labels: list[int] = []
        self._steps = torch.zeros(0, dtype=torch.int64)
        self._state: tuple[Tensor, ...] = ()  # points, and the two moments of their gradients, each (n, P)
        self._done: list[tuple[int, Tensor, float]] = []

    def add(self, labels: Sequence[int], points: Tensor) -> None:
        """Begin to train points (n, P), under labels that are not in training yet; the same on all processes."""
        rank, size = rank_and_size()
        owners = [(self._added + i) % size for i in range(len(labels))]
        self._added += len(labels)
        self.owners.update(zip(labels, owners, strict=True))
        mine = [i for i, owner in enumerate(owners) if owner == rank]
        if not mine:
            return
        new = points[mine]
        state = (new, torch.zeros_like(new), torch.zeros_like(new))
        self._state = (
            tuple(torch.cat(parts) for parts in zip(self._state, state, strict=True)) if self._state else state
        )
        self._labels += [labels[i] for i in mine]
        self._steps = torch.cat([self._steps, torch.zeros(len(mine), dtype=torch.int64)])
        self._look(len(self._labels) - len(mine))

    def drop(self, labels: Iterable[int]) -> None:
        """End the training of beads that are no longer needed; the same on all processes."""
        gone = set(labels)
        self.owners = {label: owner for label, owner in self.owners.items() if label not in gone}
        self._keep([label not in gone for label in self._labels])

    def advance(self) -> list[tuple[int, Tensor, float]]:
        """Train for a while, and give the beads that are done, on whichever process: label, point (P,), value.

        The value is not below the target where the steps were used up.
        """
        if self._labels and self._state[0].shape[1] >= LARGE:
            self._descend()
        for _ in range(_LOOKS):
            if not self._labels:
                break
            self._block()
            self._look(0)
        done, self._done = self._gathered(), []
        for label, _, _ in done:
            del self.owners[label]
        return done

    def _descend(self) -> None:
        """Train beads to their end, where each takes all of the processor anyway and its moments much memory."""
        settings = self.settings
        points, values = descend(
            self.landscape,
            self._state[0],
            self.target,
            lr=settings.lr,
            block=settings.block,
            max_steps=settings.max_steps,
            optimizer=settings.optimizer,
            clip=settings.clip,
            drop_steps=settings.drop_steps,
        )
        self._done += zip(self._labels, points, values.tolist(), strict=True)
        self._keep([False] * len(self._labels))

    def _look(self, first: int) -> None:
        """Take out the rows, from a first one on, that are below the target or at the end of their steps."""
        points = self._state[0][first:]
        values = self.landscape.values(points)
        done = below(values, self.target) | (self._steps[first:] >= self.settings.max_steps).to(values.device)
        for i in done.nonzero()[:, 0].tolist():
            self._done.append((self._labels[first + i], points[i].clone(), float(values[i])))
        self._keep([True] * first + (~done).tolist())

    def _keep(self, rows: list[bool]) -> None:
        if all(rows):
            return
        mask = torch.tensor(rows, dtype=torch.bool)
        self._labels = [label for label, kept in zip(self._labels, rows, strict=True) if kept]
        self._steps = self._steps[mask]
        self._state = tuple(part[mask.to(part.device)] for part in self._state)

    def _block(self) -> None:
        """Train all beads for as many steps as lie between two looks at their values."""
        points, mean, square = self._state
        # each bead's number of steps, (block, n, 1); what depends on it alone is found for all steps at once
        steps = (self._steps + torch.arange(self.settings.block)[:, None])[..., None].double()
        lr = torch.ones_like(steps) * dropped(self.settings.lr, steps, self.settings.drop_steps)
        first, second = (1 - decay ** (steps + 1) for decay in (0.9, 0.999))
        for rate, scale, correction in zip(*(part.to(points) for part in (lr, first / lr, second)), strict=True):
            gradient = clipped(self._gradient(points), self.settings.clip)
            self._steps += 1
            if self.settings.optimizer == "sgd":
                points = points - rate * gradient
                continue
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            points = points.addcdiv(mean, (square / correction).sqrt_().add_(1e-8).mul_(scale), value=-1)
        self._state = (points, mean, square)

    def _gradient(self, points: Tensor) -> Tensor:
        """Give the gradients, each of its bead's own step."""
        if self.landscape.period == 1:
            return self.landscape.gradient(points, 0)[1]
        steps = self._steps % self.landscape.period if self.landscape.period else self._steps
        different = steps.unique().tolist()
        if len(different) == 1:
            return self.landscape.gradient(points, different[0])[1]
        gradient = torch.empty_like(points)
        for step in different:
            rows = (steps == step).to(points.device)
            gradient[rows] = self.landscape.gradient(points[rows], step)[1]
        return gradient

    def _gathered(self) -> list[tuple[int, Tensor, float]]:
        """Collect the beads that are done from all processes, in order of their labels."""
        if rank_and_size()[1] > 1:
            parts: list[list[tuple[int, Tensor, float]]] = [[] for _ in range(rank_and_size()[1])]
            torch.distributed.all_gather_object(parts, [(label, p.cpu(), value) for label, p, value in self._done])
            self._done = [bead for part in parts for bead in part]
        return sorted(self._done, key=lambda bead: bead[0])
