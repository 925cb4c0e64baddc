"""A user's own problems: quadratic assignment problems, or two graphs to match."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data

from ..modules.matching.base import GraphPairs, Graphs
from .edge_list import IntArray, read_bytes
from .graph_formats import Format, NamedGraph, detect_format, read_graphs
from .qaplib import QAPInstance, Text, parse_instance
from .sampling import ShardedSampler

__all__ = ["Instance", "InstanceDataModule", "PairFileDataModule"]


@dataclass(frozen=True)
class Instance:
    """One problem: two graphs or matrices to match, and what its result is called and compared with.

    Attributes:
        name: Name of the problem, that of its file.
        first: The first graph.
        second: The second graph, not smaller.
        first_names: Name of each node of the first graph.
        second_names: Name of each node of the second graph.
        minimize: Whether the objective is a cost (quadratic assignment), not a number of common edges (matching).
        best_known: The best objective known; ``None`` if none is.
    """

    name: str
    first: Graphs
    second: Graphs
    first_names: Sequence[str] | IntArray
    second_names: Sequence[str] | IntArray
    minimize: bool
    best_known: float | None = None


class _Instances(Dataset[GraphPairs]):
    def __init__(self, instances: list[Instance]) -> None:
        self.instances = instances

    def __len__(self) -> int:
        return len(self.instances)

    def __getitem__(self, index: int) -> GraphPairs:
        instance = self.instances[index]
        known = None if instance.best_known is None else torch.tensor([instance.best_known], dtype=torch.float64)
        return GraphPairs(
            instance.first,
            instance.second,
            sample_id=torch.tensor([index]),
            minimize=instance.minimize,
            best_known=known,
        )


class InstanceDataModule(LightningDataModule, ABC):
    """Serve given problems, one a batch, to ``theodolite test`` and ``theodolite predict``.

    Subclasses implement :meth:`read`. Batches are :class:`GraphPairs` of one pair with ``sample_id`` (1,) and
    ``minimize``; :meth:`instance` tells the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.instances: list[Instance] = []

    @abstractmethod
    def read(self) -> list[Instance]:
        """Read the problems; there is at least one."""

    def setup(self, stage: str | None = None) -> None:
        """Read the problems, once."""
        del stage
        if not self.instances:
            self.instances = self.read()

    def instance(self, sample_id: int) -> Instance:
        """Give name, direction, best known objective and node names of a problem."""
        self.setup()
        return self.instances[sample_id]

    def test_dataloader(self) -> DataLoader[GraphPairs]:
        """Give this process's problems, one a batch."""
        self.setup()
        dataset = _Instances(self.instances)
        return DataLoader(dataset, batch_size=None, sampler=ShardedSampler(dataset))

    def predict_dataloader(self) -> DataLoader[GraphPairs]:
        """Give this process's problems, one a batch."""
        return self.test_dataloader()


class PairFileDataModule(InstanceDataModule):
    """Serve a user's problems to ``theodolite predict``.

    With ``path`` alone they are quadratic assignment problems in QAPLIB's format (see :func:`parse_instance`), as
    float64 matrices; a ``.sln`` file of the same name beside a ``.dat`` gives the best cost known. With ``second`` two
    graphs are matched; the formats, and what is ignored in a file (with one warning that counts it), are those of
    :func:`read_graphs`.

    Args:
        path: A QAPLIB file or a folder of ``.dat`` files; with ``second``, the file of the first graph.
        second: The file of the second graph, with at least as many nodes. Files of several graphs (graph6) are matched
            one by one.
        format: The format of both graph files; ``auto`` decides by the suffixes.

    Raises:
        FileNotFoundError: If there is no such file, or no ``.dat`` file in the folder.
        ValueError: If an argument is wrong or, on reading, if a file is malformed.
    """

    def __init__(self, path: str, second: str | None = None, format: Format = "auto") -> None:
        super().__init__()
        self.path = Path(path).expanduser()
        self.second = None if second is None else Path(second).expanduser()
        if format not in get_args(Format):
            msg = f"PairFileDataModule(format={format!r}): it must be one of {', '.join(get_args(Format))}."
            raise ValueError(msg)
        self.format: Format = format
        for name, file in (("path", self.path), ("second", self.second)):
            if file is not None and not (file.is_file() or (file.is_dir() and self.second is None)):
                msg = f"PairFileDataModule({name}={str(file)!r}): there is no such file; check the path."
                raise FileNotFoundError(msg)
        if self.path.is_dir() and not list(self.path.glob("*.dat")):
            msg = f"PairFileDataModule(path={path!r}): there is no .dat file in this folder; give another."
            raise FileNotFoundError(msg)
        if self.second is None and self.path.suffix.lower() in (".gml", ".g6", ".graph6"):
            msg = f"PairFileDataModule(path={path!r}): this is a graph; give the graph to match it with as second."
            raise ValueError(msg)

    def read(self) -> list[Instance]:
        """Read the files."""
        if self.second is not None:
            return read_pairs(self.path, self.second, self.format)
        paths = sorted(self.path.glob("*.dat")) if self.path.is_dir() else [self.path]
        return [read_problem(path) for path in paths]


def read_problem(path: Path) -> Instance:
    """Read a QAPLIB file, and the ``.sln`` file of its name if there is one."""
    solution = path.with_suffix(".sln")
    known = Text(read_bytes(solution), str(solution)) if solution.is_file() and solution != path else None
    return to_instance(path.stem, parse_instance(Text(read_bytes(path), str(path)), known))


def to_instance(name: str, problem: QAPInstance, best_known: float | None = None) -> Instance:
    """Make a problem with places 1, ..., n of its matrices; ``best_known`` where there is no solution."""
    size = torch.tensor([len(problem.first)])
    first, second = (Graphs(size, dense=torch.from_numpy(matrix)[None]) for matrix in (problem.first, problem.second))
    names = [str(place) for place in range(1, len(problem.first) + 1)]
    best = best_known if problem.best_known is None else problem.best_known
    return Instance(name, first, second, names, names, minimize=True, best_known=best)


def read_pairs(first: Path, second: Path, file_format: Format = "auto") -> list[Instance]:
    """Read two files with as many graphs each, to match graph k of the first with graph k of the second.

    Raises:
        ValueError: If the numbers of graphs differ, or a first graph has more nodes than its partner.
    """
    sides = [
        read_graphs(path, detect_format(path) if file_format == "auto" else file_format) for path in (first, second)
    ]
    for path, graphs in zip((first, second), sides, strict=True):
        ignored = [what for graph in graphs for what in graph.ignored]
        if ignored:
            rank_zero_warn(f"{path}: ignored {', '.join(ignored)}; the graph is taken as undirected and simple.")
    if len(sides[0]) != len(sides[1]):
        msg = f"{first} has {len(sides[0])} graphs, {second} has {len(sides[1])}; give files with as many each."
        raise ValueError(msg)
    instances = []
    for number, (a, b) in enumerate(zip(*sides, strict=True), start=1):
        name = f"{first.stem}-{second.stem}" + f"-{number}" * (len(sides[0]) > 1)
        if len(a.names) > len(b.names):
            msg = (
                f"{name}: the first graph has {len(a.names)} nodes, the second {len(b.names)}; the smaller one is "
                f"matched into the larger: exchange path and second."
            )
            raise ValueError(msg)
        instances.append(Instance(name, _to_graphs(a), _to_graphs(b), a.names, b.names, minimize=False))
    return instances


def _to_graphs(graph: NamedGraph) -> Graphs:
    n = len(graph.names)
    sparse = Data(edge_index=graph.edge_index, batch=torch.zeros(n, dtype=torch.int64), num_nodes=n, num_graphs=1)
    return Graphs(torch.tensor([n]), sparse)
