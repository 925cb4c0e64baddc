"""What a search may spend, and what it calls connected."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["AUTHORS", "Settings"]


@dataclass(frozen=True)
class Settings:
    """Settings of a search for a path below a level.

    Args:
        bead: Beads are trained below this share of the level, in (0, 1]; as far below a level < 0.
        accept: A segment passes when its highest tested value is at most this share of the level, >= 1; as far above a
            level < 0. Above 1 the path is certified for a higher level than it was asked for, as in the authors' code.
        grid: Points of the first grid on a segment, both ends included, >= 3.
        refine: A passing segment's grid is refined until its maximum is certain to ``tolerance``.
        tolerance: Of the certified maximum, as share of the level, > 0.
        first_bead: Train a bead in the middle before anything is tested, as the authors' code does.
        split: Where a segment that fails gets its bead: in the middle, or where it is highest.
        max_passes: Most times that all open segments are split.
        optimizer: Of beads in ``dss``: ``adam``, or plain ``sgd``; curves and bands are trained by Adam.
        lr: Its rate, > 0.
        drop_steps: Steps of a bead after which its rate falls to a tenth, > 0; infinite for a constant rate.
        clip: Gradients of beads are scaled to at most this norm, > 0.
        block: Steps between two looks at a bead's value.
        max_steps: Most steps of a bead (dynamic string), or of the whole curve or band.
        images: Points of a band, or corners of a polyline along a Bezier curve, ends included, >= 3.
        spring: Pull of the band's springs, in units of loss over squared length, > 0.

    Raises:
        ValueError: If a setting is out of range.
    """

    bead: float = 0.95
    accept: float = 1.0
    grid: int = 33
    refine: bool = True
    tolerance: float = 1e-3
    first_bead: bool = False
    split: Literal["middle", "highest"] = "middle"
    max_passes: int = 10
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    drop_steps: float = float("inf")
    clip: float = float("inf")
    block: int = 15
    max_steps: int = 20000
    images: int = 33
    spring: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "bead": (0 < self.bead <= 1, "in (0, 1]"),
            "accept": (self.accept >= 1, "at least 1"),
            "grid": (self.grid >= 3, "at least 3"),
            "tolerance": (self.tolerance > 0, "positive"),
            "split": (self.split in {"middle", "highest"}, "middle or highest"),
            "max_passes": (self.max_passes >= 0, "at least 0"),
            "optimizer": (self.optimizer in {"adam", "sgd"}, "adam or sgd"),
            "clip": (self.clip > 0, "positive"),
            "lr": (0 < self.lr < float("inf"), "positive"),
            "drop_steps": (self.drop_steps > 0, "positive"),
            "block": (self.block >= 1, "at least 1"),
            "max_steps": (self.max_steps >= 1, "at least 1"),
            "images": (self.images >= 3, "at least 3"),
            "spring": (self.spring > 0, "positive"),
        }
        for name, (fine, allowed) in ranges.items():
            if not fine:
                msg = f"Settings({name}={getattr(self, name)}): must be {allowed}."
                raise ValueError(msg)

    def target(self, level: float) -> float:
        """Give what beads are trained below at a level: ``1 - bead`` of its size less."""
        return level * (self.bead if level >= 0 else 2 - self.bead)

    def accepted(self, level: float) -> float:
        """Give what a segment must stay below at a level: ``accept - 1`` of its size more."""
        return level * (self.accept if level >= 0 else 2 - self.accept)


#: The convention of the authors' code (danielfreeman11/convex-nets, LaunchScripts) for the two regressions: a trained
#: bead in the middle to begin with, segments accepted up to 1.1 times the level on a grid of 101 points that is not
#: refined. The published figures certify 1.1 times the level they state.
AUTHORS = Settings(accept=1.1, grid=101, refine=False, first_bead=True)
