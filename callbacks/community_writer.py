"""Write the communities that `theodolite predict` finds to a CSV file."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch_geometric.data import Data

from .prediction_writer import PredictionWriter


class CommunityWriter(PredictionWriter):
    """Write each node's community, and the probability given to it, to ``predictions/communities.csv``.

    The file appears in the run directory when the prediction is complete, with the columns ``node``, ``community``
    (0 .. k-1), ``probability`` (softmax of the scores), and ``graph`` (its sample number) in front if there are several
    graphs. A node is named by the datamodule's ``node_names(sample_id)`` where it has that method, else by its number.
    Communities are numbered arbitrarily.

    It works with every LightningModule whose ``predict_step`` gives scores (N, k) of the nodes of a batch of graphs
    with ``sample_id`` (B,). Costs no forward pass; how ranks share the work: see :class:`PredictionWriter`.

    Args:
        file_name: Name of the file in ``predictions/``.

    Raises:
        ValueError: If ``file_name`` is no plain name ending in ``.csv``.
    """

    header = ("node", "community", "probability")
    number_column = "graph"

    def __init__(self, file_name: str = "communities.csv") -> None:
        super().__init__(file_name)

    def rows(self, trainer: Trainer, outputs: Any, batch: Data) -> Iterator[tuple[int, Iterable[Sequence[Any]]]]:
        """Give one row a node."""
        probability, community = community_probabilities(outputs)
        ptr = getattr(batch, "ptr", None)
        bounds = [0, len(community)] if ptr is None else ptr.tolist()
        node_names = getattr(getattr(trainer, "datamodule", None), "node_names", None)
        for i, sample_id in enumerate(batch.sample_id.tolist()):
            nodes = slice(bounds[i], bounds[i + 1])
            size = bounds[i + 1] - bounds[i]
            names = range(size) if node_names is None else node_names(sample_id)
            values = (f"{value:.6f}" for value in probability[nodes].tolist())
            yield sample_id, zip(names, community[nodes].tolist(), values, strict=True)

    def report(self, num_samples: int, path: Path) -> str:
        """Say where the communities are."""
        return f"Communities of {num_samples} graph{'s' * (num_samples != 1)}: {path}"


def community_probabilities(scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give the probability of each node's most probable community, and that community.

    Args:
        scores: float (N, k); softmax over k gives probabilities.

    Returns:
        float64 (N,) and int64 (N,).
    """
    probability, community = torch.softmax(scores.detach().double(), dim=1).max(dim=1)
    return probability.cpu().numpy(), community.cpu().numpy()
