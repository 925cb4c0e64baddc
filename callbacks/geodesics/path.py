"""A path between two trained networks, as it was found and tested."""

from dataclasses import dataclass
from pathlib import Path as FilePath

import torch
from torch import Tensor

from .kept import read, write

__all__ = ["Path", "barrier", "segment_lengths"]


@dataclass(frozen=True, repr=False)
class Path:
    """A polyline in parameter space, and the quantity of the level along it.

    Args:
        beads: Corners of the polyline, both ends included, (K, P), K >= 2.
        position: Where the quantity was tested, (T,), as share of the path's length from 0 to 1, ascending.
        values: The tested quantity there, (T,).
        level: The level asked for.
        accepted: What a segment had to stay below to pass: ``level``, or more by the authors' convention.
        connected: The search ended with every segment passed. ``False`` means "not at this budget", never
            "disconnected".
        method: Name of the search.
        counted: Which parameters lengths count, (P,) bool; ``None`` for all.
    """

    beads: Tensor
    position: Tensor
    values: Tensor
    level: float
    accepted: float
    connected: bool
    method: str
    counted: Tensor | None = None

    def __str__(self) -> str:
        state = "connected" if self.connected else "not connected at this budget"
        return (
            f"{self.method}, level {self.level:.4g}: {state}; length {self.length:.3f}, {self.num_beads} beads, "
            f"highest {self.maximum:.4g} at {self.highest:.2f} of the way"
        )

    def __repr__(self) -> str:
        return f"<Path by {self}>"

    @property
    def num_beads(self) -> int:
        """Number of corners, both ends included."""
        return len(self.beads)

    @property
    def length(self) -> float:
        r"""Give :math:`\sum_i |\theta_{i+1}-\theta_i|_2 / |\theta_K-\theta_1|_2`: 1 for a straight line."""
        total = float(segment_lengths(self.beads, self.counted).sum())
        chord = float(segment_lengths(self.beads[[0, -1]], self.counted))
        if chord > 0:
            return max(total / chord, 1.0)  # the rounding of the sum may fall below
        return 1.0 if total == 0 else float("inf")

    @property
    def maximum(self) -> float:
        """Highest tested value; infinite if any is not a number."""
        return float(self.values.nan_to_num(nan=float("inf")).max())

    @property
    def highest(self) -> float:
        """Position of the highest tested value, in [0, 1]."""
        return float(self.position[self.values.nan_to_num(nan=float("inf")).argmax()])

    @property
    def barrier(self) -> float:
        """Highest value less that of the higher end."""
        return barrier(self.values)

    def point(self, position: float) -> Tensor:
        """Give the parameters at a position in [0, 1], (P,).

        Raises:
            ValueError: If the position is outside.
        """
        if not 0 <= position <= 1:
            msg = f"Path.point({position}): positions are shares of the path's length, from 0 to 1."
            raise ValueError(msg)
        segment, t = self.place(self.beads.new_tensor([position]))
        return torch.lerp(self.beads[segment], self.beads[segment + 1], t[:, None])[0]

    def place(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Give the segments, (n,) int64, and the places on them in [0, 1], (n,), of positions (n,)."""
        lengths = segment_lengths(self.beads)
        ends = lengths.cumsum(0)
        target = position * ends[-1]
        segment = torch.searchsorted(ends, target).clamp(max=len(lengths) - 1)
        length = lengths[segment]
        t = (target - (ends[segment] - length)) / length.clamp_min(torch.finfo(length.dtype).tiny)
        return segment, t.clamp(0, 1)

    def summary(self) -> dict[str, float]:
        """Give the numbers of the path by name."""
        return {
            "length": self.length,
            "beads": float(self.num_beads),
            "maximum": self.maximum,
            "barrier": self.barrier,
            "connected": float(self.connected),
        }

    def save(self, path: str | FilePath) -> None:
        """Write the path to a file that :meth:`load` reads; a killed process leaves no half file."""
        write(FilePath(path), {**vars(self)})

    @classmethod
    def load(cls, path: str | FilePath) -> "Path":
        """Read a path that :meth:`save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds something else.
        """
        if not FilePath(path).is_file():
            msg = f"no path at {path}; `theodolite connect` and the callbacks write them as paths/*.pt."
            raise FileNotFoundError(msg)
        content = read(path)
        if not isinstance(content, dict) or set(content) != set(cls.__dataclass_fields__):
            msg = f"{path} is no saved path; give a file that Path.save wrote."
            raise ValueError(msg)
        return cls(**content)


def barrier(values: Tensor) -> float:
    """Give the highest of the values along a path, (T,), less that of the higher end; infinite if any is no number."""
    return float(values.nan_to_num(nan=float("inf")).max()) - float(torch.maximum(values[0], values[-1]))


def segment_lengths(beads: Tensor, counted: Tensor | None = None) -> Tensor:
    """Give the Euclidean length of each segment of a polyline, (K - 1,); beads (K, P), counted (P,) bool."""
    steps = beads.diff(dim=0)
    return torch.linalg.vector_norm(steps if counted is None else steps[:, counted.to(steps.device)], dim=1)
