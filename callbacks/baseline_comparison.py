"""The overlap of a trained network beside that of untrained baselines on the same graphs."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch_geometric.data import Data

from ..modules.community.base import NodeNetwork
from ..modules.community.metrics import node_accuracy, overlap
from ..modules.graph_operators import graph_ids
from .media import log_figure, log_table, run_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The Kesten-Stigum threshold: no polynomial algorithm is known to detect communities below this SNR.
_THRESHOLD = 1.0


class BaselineComparison(Callback):
    r"""Measure how well communities are recovered, by the module and by baselines, on the same held-out graphs.

    For every graph the module and each baseline label the nodes; the accuracy under the best relabeling, or the
    overlap (acc - 1/k) / (1 - 1/k), is averaged over the graphs of a group (all graphs of one signal-to-noise ratio,
    say) with its standard error :math:`s/\sqrt{B}` over the B graphs of the group.

    Cost: one more forward pass of the module a batch, and one of every baseline. Rows of single graphs are gathered
    from all ranks and repeats of a sample dropped, so the numbers are those of one process, whatever a sampler pads.

    Logs ``<stage>/<metric>/<group>`` and ``<stage>/<metric>_<baseline>/<group>`` (for example
    ``test/overlap_belief_propagation/snr_2.08``), each also with ``_stderr``; without groups
    ``<stage>/<metric>_stderr`` and ``<stage>/<metric>_<baseline>``. Writes ``tables/<stage>/comparison.csv`` and, for
    several groups, ``figures/<stage>/comparison.png``; prints the table and the paths.

    Args:
        baselines: Networks that need no training; any module that maps a batch to scores (N, k).
        metric: ``overlap`` or ``accuracy``.
        group_by: Attribute of the batch, one number a graph, by which graphs are grouped; ``None`` for one group.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.

    Raises:
        ValueError: If ``metric`` is another, or ``every_n_epochs`` negative.
    """

    def __init__(
        self,
        baselines: list[NodeNetwork] | None = None,
        metric: Literal["overlap", "accuracy"] = "overlap",
        group_by: str | None = "snr",
        every_n_epochs: int = 0,
    ) -> None:
        if metric not in ("overlap", "accuracy"):
            msg = f"BaselineComparison(metric={metric!r}): metric must be 'overlap' or 'accuracy'."
            raise ValueError(msg)
        if every_n_epochs < 0:
            msg = f"BaselineComparison(every_n_epochs={every_n_epochs}): give 0 (never within fit) or more."
            raise ValueError(msg)
        self.baselines = baselines or []
        self.metric = metric
        self.group_by = group_by
        self.every_n_epochs = every_n_epochs
        self._rows: list[Tensor] = []

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the rows of the epoch before."""
        del trainer, pl_module
        self._rows = []

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the rows of the epoch before."""
        del trainer, pl_module
        self._rows = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Data,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the graphs of a validation batch."""
        del outputs, batch_idx, dataloader_idx
        if self._measures_validation(trainer):
            self._rows.append(self._score(pl_module, batch))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Data,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the graphs of a test batch."""
        del trainer, outputs, batch_idx, dataloader_idx
        self._rows.append(self._score(pl_module, batch))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and draw the comparison on the validation graphs."""
        if self._measures_validation(trainer):
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, draw and print the comparison on the test graphs."""
        self._report(trainer, pl_module, "test")

    def _measures_validation(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        if trainer.state.fn == "validate":
            return True
        return self.every_n_epochs > 0 and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    @torch.no_grad()
    def _score(self, pl_module: LightningModule, batch: Data) -> Tensor:
        """Give one row a graph, (B, 3 + baselines) float64: sample number, group, accuracy of each method."""
        graph, num_graphs = graph_ids(batch)
        if self.group_by is not None and self.group_by not in batch:
            msg = (
                f"BaselineComparison(group_by={self.group_by!r}): the batch has no such attribute, only "
                f"{sorted(batch.keys())}; name one of them or give group_by=null."
            )
            raise ValueError(msg)
        columns = [
            # Without sample numbers nothing can be recognised as a repeat: NaN is never equal.
            batch.sample_id.double() if "sample_id" in batch else torch.full((num_graphs,), torch.nan),
            batch[self.group_by].double() if self.group_by is not None else torch.zeros(num_graphs),
        ]
        relabelings = getattr(pl_module, "label_permutations", None)
        for method in (pl_module, *self.baselines):
            scores = method(batch)
            accuracy = node_accuracy(scores.argmax(1), batch.y, graph, num_graphs, scores.shape[1], relabelings)  # pyright: ignore[reportArgumentType]
            columns.append(accuracy if self.metric == "accuracy" else overlap(accuracy, scores.shape[1]))
        return torch.stack([column.double().cpu() for column in columns], dim=1)

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        rows = gather_rows(torch.cat(self._rows) if self._rows else torch.zeros(0, 3 + len(self.baselines)).double())
        groups = [(float(group), rows[rows[:, 1] == group, 2:]) for group in rows[:, 1].unique().flip(0)]
        names = ["", *("_" + _snake_case(type(baseline).__name__) for baseline in self.baselines)]
        for group, values in groups:
            detail = "" if self.group_by is None else f"/{self.group_by}_{group:.2f}"
            means, errors = mean_and_standard_error(values)
            for name, mean, error in zip(names, means.tolist(), errors.tolist(), strict=True):
                key = f"{stage}/{self.metric}{name}"
                if detail or name:  # the module's own mean over all graphs is already logged by the module
                    pl_module.log(f"{key}{detail}", mean, sync_dist=True, batch_size=1)
                pl_module.log(f"{key}{detail}_stderr", error, sync_dist=True, batch_size=1)
        self._show(trainer, pl_module, stage, groups)

    @rank_zero_only
    def _show(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, groups: list[tuple[float, Tensor]]
    ) -> None:
        methods = [type(getattr(pl_module, "network", pl_module)).__name__]
        methods += [_words(type(baseline).__name__) for baseline in self.baselines]
        label = "" if self.group_by is None else ("SNR" if self.group_by == "snr" else self.group_by)
        header = [*([label] if label else []), "graphs", *methods]
        table = Table(*header, title=f"{stage}: {self.metric}, mean ± standard error over graphs")
        records: list[list[Any]] = []
        for group, values in groups:
            means, errors = mean_and_standard_error(values)
            cells = zip(means.tolist(), errors.tolist(), strict=True)
            first = [f"{group:.2f}"] if label else []
            table.add_row(*first, str(len(values)), *(f"{mean:.3f} ± {error:.3f}" for mean, error in cells))
            records.append([*first, len(values), *means.tolist(), *errors.tolist()])
        columns = [*header, *(f"{method} standard error" for method in methods)]
        log_table(trainer, f"{stage}/comparison", columns, records)
        console = Console(width=max(Console().width, 100))  # a pipe counts as 80 columns, which breaks the numbers
        console.print(table)
        console.print(f"Run directory: {run_directory(trainer)}", soft_wrap=True)
        if label and len(groups) > 1:
            path = log_figure(trainer, f"{stage}/comparison", draw_comparison(groups, methods, label, self.metric))
            console.print(f"Figure: {path}", soft_wrap=True)


def mean_and_standard_error(values: Tensor) -> tuple[Tensor, Tensor]:
    r"""Give the mean and its standard error :math:`s / \sqrt{n}` over the rows of values, (n, m); 0 for one row."""
    mean = values.mean(0)
    if len(values) < 2:
        return mean, torch.zeros_like(mean)
    return mean, values.std(0, unbiased=True) / len(values) ** 0.5


def gather_rows(rows: Tensor) -> Tensor:
    """Collect rows from all processes, in order of their first column, dropping repeats of it.

    Args:
        rows: (n, m), n may differ between processes; the first column numbers the samples, NaN where they have none.

    Returns:
        The rows of all processes, the same on each; the rows themselves without a process group.
    """
    if dist.is_available() and dist.is_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, rows)
        rows = torch.cat(parts)
    rows = rows[rows[:, 0].argsort(stable=True)]
    repeated = torch.zeros(len(rows), dtype=torch.bool)
    repeated[1:] = rows[1:, 0] == rows[:-1, 0]
    return rows[~repeated]


def draw_comparison(
    groups: Sequence[tuple[float, Tensor]], methods: Sequence[str], label: str, metric: str
) -> "Figure":
    """Draw one curve a method with standard errors, and the detectability threshold where the axis is the SNR.

    Args:
        groups: Position on the axis and values of each graph, (graphs, methods), of every group.
        methods: Name of each column.
        label: Name of the axis.
        metric: Name of the values.

    Returns:
        The figure, which no global state of matplotlib knows.
    """
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    positions = [group for group, _ in groups]
    statistics = [mean_and_standard_error(values) for _, values in groups]
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    for column, method in enumerate(methods):
        means = [float(mean[column]) for mean, _ in statistics]
        errors = [float(error[column]) for _, error in statistics]
        style = {"linewidth": 2.5, "marker": "o"} if column == 0 else {"linewidth": 1, "marker": ".", "alpha": 0.8}
        axes.errorbar(positions, means, yerr=errors, label=method, capsize=2, **style)
    if label == "SNR":
        axes.axvline(_THRESHOLD, color="black", linestyle="--", linewidth=1, label="detectability threshold")
    axes.set_xlabel(label)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
