"""The degree of homogeneity of a user's module, found once a run."""

import math

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from ..modules.margins import Homogeneity, homogeneity

__all__ = ["homogeneous_degree"]


def homogeneous_degree(trainer: Trainer, pl_module: LightningModule, probe: Tensor | None, owner: str) -> Homogeneity:
    """Find the degree by trying, on rank zero's samples, and say in one line what breaks homogeneity.

    Args:
        trainer: Tells all ranks what rank zero found.
        pl_module: The module.
        probe: A few inputs; ``None`` where a rank has none.
        owner: Who asks, for the line.

    Returns:
        What was found, the same on every rank.
    """
    try:
        found = Homogeneity(None, math.inf) if probe is None else homogeneity(pl_module, probe)
        text = f"the network is {found}"
    except (RuntimeError, ValueError) as error:  # what a module does with float64 is not in our hands
        found, text = Homogeneity(None, math.inf), f"homogeneity could not be tested: {error}"
    found, text = trainer.strategy.broadcast((found, text))
    if found.degree is None:
        rank_zero_info(f"{owner}: {text}; the normalized margins are left out.")
    return found
