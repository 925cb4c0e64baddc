"""Write the matchings that `theodolite predict` finds, and compare their objectives with the best known."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from ..modules.matching import assign, objective
from ..modules.matching.base import GraphPairs
from .media import log_table
from .prediction_writer import PredictionWriter

_COLUMNS = ("instance", "n", "objective", "best known", "gap %")


class MatchingWriter(PredictionWriter):
    r"""Write the match of every node to ``predictions/matching.csv``, and the objectives to ``tables/predict/``.

    The file has the columns ``instance``, ``first`` and ``second`` (names of two nodes that are matched; for a
    quadratic assignment problem, row p(i) of the second matrix for row i of the first). The table
    ``predict/objectives``, which is printed too, has the objective :math:`\sum_{ij} A_{ij} B_{p(i) p(j)}` of each
    instance: a cost where the data say so, else twice the number of common edges, of which the table shows the number;
    and the gap to the best known one in per cent of it where there is one.

    It works with every LightningModule whose ``predict_step`` gives scores (B, N1, N2) for a batch of
    :class:`GraphPairs`. Names come from the datamodule's ``instance(sample_id)`` where it has that method, else nodes
    and pairs are numbered. Costs one linear assignment a pair; how ranks share the work: see
    :class:`PredictionWriter`.

    Args:
        file_name: Name of the file in ``predictions/``.

    Raises:
        ValueError: If ``file_name`` is no plain name ending in ``.csv``.
    """

    header = ("instance", "first", "second")

    def __init__(self, file_name: str = "matching.csv") -> None:
        super().__init__(file_name)
        self._objectives: dict[int, list[Any]] = {}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the objectives of an earlier prediction."""
        del trainer, pl_module
        self._objectives = {}

    def rows(self, trainer: Trainer, outputs: Any, batch: GraphPairs) -> Iterator[tuple[int, Iterable[Sequence[Any]]]]:
        """Give one row a node of the first graph, and note the objective."""
        matching = assign(outputs, batch)
        values = objective(matching, batch)
        if not batch.minimize:
            values = values / 2
        instance = getattr(getattr(trainer, "datamodule", None), "instance", None)
        for i, sample_id in enumerate(batch.sample_id.tolist()):
            size = int(batch.first.sizes[i])
            places = matching[i, :size].tolist()
            if instance is None:
                name, firsts, seconds, known = str(sample_id), range(size), range(batch.second.max_size), None
            else:
                about = instance(sample_id)
                name, firsts, seconds = about.name, about.first_names, about.second_names
                known = about.best_known
            value = float(values[i])
            gap = None if known is None else 100 * (value - known) / known if known else 100 * (value - known)
            self._objectives[sample_id] = [name, size, value, known, gap]
            matched = (seconds[place] for place in places)
            yield sample_id, ([name, first, second] for first, second in zip(firsts, matched, strict=True))

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect the objectives of all ranks, print and store them."""
        del pl_module
        parts: list[Any] = [self._objectives]
        if dist.is_available() and dist.is_initialized():
            parts = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self._objectives)
        collected = {number: row for part in parts for number, row in part.items()}
        self._show(trainer, [collected[number] for number in sorted(collected)])

    @rank_zero_only
    def _show(self, trainer: Trainer, rows: list[list[Any]]) -> None:
        table = Table(*_COLUMNS, title="predict: objective of each instance")
        for name, size, value, known, gap in rows:
            shown = "" if known is None else f"{known:g}"
            table.add_row(name, str(size), f"{value:.10g}", shown, "" if gap is None else f"{gap:.2f}")
        gaps = torch.tensor([row[4] for row in rows if row[4] is not None], dtype=torch.float64)
        if len(gaps) > 1:
            table.caption = f"gap of {len(gaps)} instances: mean {gaps.mean():.3f} %, median {gaps.median():.3f} %"
        log_table(trainer, "predict/objectives", _COLUMNS, rows)
        Console().print(table)

    def report(self, num_samples: int, path: Path) -> str:
        """Say where the matchings are."""
        return f"Matching of {num_samples} pair{'s' * (num_samples != 1)}: {path}"
