"""Write the communities that `theodolite predict` finds to a CSV file."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch_geometric.data import Data

from .media import run_directory


class CommunityWriter(Callback):
    """Write each node's community, and the probability given to it, to ``predictions/communities.csv``.

    The file appears in the run directory when the prediction is complete, with the columns ``node``, ``community``
    (0 .. k-1), ``probability`` (softmax of the scores), and ``graph`` (its sample number) in front if there are several
    graphs. A node is named by the datamodule's ``node_names(sample_id)`` where it has that method, else by its number.
    Communities are numbered arbitrarily.

    It works with every LightningModule whose ``predict_step`` gives scores (N, k) of the nodes of a batch of graphs
    with ``sample_id`` (B,). Each of several ranks writes its graphs to a file of its own; rank zero joins them in the
    order of ``sample_id``, each graph once. Costs no forward pass; one graph at a time is held in memory.

    Args:
        file_name: Name of the file in ``predictions/``.

    Raises:
        ValueError: If ``file_name`` is no plain name ending in ``.csv``.
    """

    def __init__(self, file_name: str = "communities.csv") -> None:
        if Path(file_name).name != file_name or not file_name.endswith(".csv"):
            msg = f"CommunityWriter(file_name={file_name!r}): give a name ending in .csv, without a folder."
            raise ValueError(msg)
        self.file_name = file_name

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make an empty folder for the parts that the ranks write."""
        del pl_module
        if stage != "predict":
            return
        path = trainer.strategy.broadcast(run_directory(trainer) / "predictions" / self.file_name)
        self._path = path
        self._parts = path.with_name(f".{self.file_name}.parts")
        if trainer.is_global_zero:
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir(parents=True)
        trainer.strategy.barrier("CommunityWriter.setup")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Data,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of each graph of the batch to a file of its own."""
        del pl_module, batch_idx, dataloader_idx
        probability, community = community_probabilities(outputs)
        ptr = getattr(batch, "ptr", None)
        bounds = [0, len(community)] if ptr is None else ptr.tolist()
        node_names = getattr(getattr(trainer, "datamodule", None), "node_names", None)
        for i, sample_id in enumerate(batch.sample_id.tolist()):
            nodes = slice(bounds[i], bounds[i + 1])
            size = bounds[i + 1] - bounds[i]
            names = range(size) if node_names is None else node_names(sample_id)
            part = self._parts / f"{sample_id}.csv"
            with part.open("w", newline="", encoding="utf-8") as file:
                values = (f"{value:.6f}" for value in probability[nodes].tolist())
                csv.writer(file).writerows(zip(names, community[nodes].tolist(), values, strict=True))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the parts of all ranks on rank zero, and print where the result is."""
        del pl_module
        if stage != "predict":
            return
        trainer.strategy.barrier("CommunityWriter.teardown")  # all parts are there
        if trainer.is_global_zero:
            num_graphs = join_parts(self._parts, self._path)
            print(f"Communities of {num_graphs} graph{'s' * (num_graphs != 1)}: {self._path}")


def community_probabilities(scores: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Give the probability of each node's most probable community, and that community.

    Args:
        scores: float (N, k); softmax over k gives probabilities.

    Returns:
        float64 (N,) and int64 (N,).
    """
    probability, community = torch.softmax(scores.detach().double(), dim=1).max(dim=1)
    return probability.cpu().numpy(), community.cpu().numpy()


def join_parts(folder: Path, path: Path) -> int:
    """Join ``<graph number>.csv`` files into one CSV with a header, in the order of the numbers, and delete them.

    Args:
        folder: Where the parts are.
        path: The file to write; it appears only when it is complete.

    Returns:
        The number of graphs.
    """
    parts = sorted(folder.glob("*.csv"), key=lambda part: int(part.stem))
    header = ["node", "community", "probability"]
    partial = folder / "joined.tmp"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header if len(parts) == 1 else ["graph", *header])
        for part in parts:
            with part.open(newline="", encoding="utf-8") as rows:
                if len(parts) == 1:
                    shutil.copyfileobj(rows, file)
                else:
                    writer.writerows([part.stem, *row] for row in csv.reader(rows))
    partial.replace(path)
    shutil.rmtree(folder)
    return len(parts)
