"""A user's own graph, to predict its communities."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from .edge_list import IntArray
from .graph_formats import Format, NamedGraph, detect_format, read_graphs
from .sampling import ShardedSampler


class _Graphs(Dataset[Data]):
    def __init__(self, graphs: list[NamedGraph]) -> None:
        self.graphs = graphs

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: int) -> Data:
        graph = self.graphs[index]
        return Data(edge_index=graph.edge_index, num_nodes=len(graph.names), sample_id=torch.tensor([index]))


class GraphFileDataModule(LightningDataModule):
    """Serve a user's graph to ``theodolite predict``.

    The formats, and what is ignored in a file (with one warning that counts it), are those of :func:`read_graphs`.
    Batches hold one graph: ``edge_index`` (both directions, sorted), ``num_nodes`` and ``sample_id`` (1,).

    Args:
        path: An edge list (.txt .csv .tsv .edges .edgelist), GML (.gml) or graph6 file (.g6 .graph6, any number of
            graphs), gzipped or not.
        num_classes: Number of communities to find: that of the trained network.
        format: The file's format; ``auto`` decides by the suffix.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument is out of range, or on reading, if the file is empty, damaged or malformed.

    Example:
        ``theodolite predict --config runs/.../config.yaml --ckpt_path best --data GraphFileDataModule --data.path
        mine.csv --data.num_classes 2 --trainer.callbacks CommunityWriter`` writes ``predictions/communities.csv``;
        without that callback nothing is written.
    """

    def __init__(self, path: str, num_classes: int, format: Format = "auto") -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        if num_classes < 2:
            msg = f"GraphFileDataModule(num_classes={num_classes}): it must be >= 2, that of the trained network."
            raise ValueError(msg)
        if format not in get_args(Format):
            msg = f"GraphFileDataModule(format={format!r}): it must be one of {', '.join(get_args(Format))}."
            raise ValueError(msg)
        if not self.path.is_file():
            msg = f"GraphFileDataModule(path={path!r}): there is no such file; check the path."
            raise FileNotFoundError(msg)
        self.num_classes = num_classes
        self.format: Format = detect_format(self.path) if format == "auto" else format
        self.graphs: list[NamedGraph] = []

    def setup(self, stage: str | None = None) -> None:
        """Read the file, once."""
        del stage
        if self.graphs:
            return
        self.graphs = read_graphs(self.path, self.format)
        ignored = [what for graph in self.graphs for what in graph.ignored]
        if ignored:
            rank_zero_warn(f"{self.path}: ignored {', '.join(ignored)}; the graph is taken as undirected and simple.")

    def node_names(self, sample_id: int) -> Sequence[str] | IntArray:
        """Give the name of each node of a graph, for the file that predictions are written to."""
        return self.graphs[sample_id].names

    def predict_dataloader(self) -> DataLoader:
        """Give this process's graphs, one a batch."""
        self.setup()
        dataset = _Graphs(self.graphs)
        return DataLoader(dataset, batch_size=1, sampler=ShardedSampler(dataset))  # pyright: ignore[reportArgumentType]
