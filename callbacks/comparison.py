"""Measure a module beside other methods, sample by sample, and average over groups of samples."""

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor

from .held_out import HeldOutMeasurement
from .media import log_figure, log_table, run_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(HeldOutMeasurement):
    r"""Measure each held-out sample by the module and by other methods, and average over groups of samples.

    The mean over the B samples of a group comes with its standard error :math:`s/\sqrt{B}`. When it measures, and how
    it is exact on any number of ranks: see :class:`HeldOutMeasurement`.

    Logs ``<stage>/<metric>/<group>`` and ``<stage>/<metric>_<method>/<group>``, each also with ``_stderr``; without
    groups ``<stage>/<metric>_stderr`` and ``<stage>/<metric>_<method>``. For each metric it writes a table to
    ``tables/<stage>/`` and, for several groups, a figure to ``figures/<stage>/``; it prints the tables and the paths.

    Args:
        metrics: Names of the quantities.
        group_by: Name of what samples are grouped by, ``None`` for one group.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.

    Raises:
        ValueError: If ``every_n_epochs`` is negative.
    """

    #: Quantities whose mean over all samples the module logs itself.
    logged_by_module: Collection[str] = ()

    def __init__(self, metrics: Sequence[str], group_by: str | None, every_n_epochs: int) -> None:
        super().__init__(every_n_epochs)
        self.metrics = list(metrics)
        self.group_by = group_by

    @abstractmethod
    def methods(self, pl_module: LightningModule) -> dict[str, str]:
        """Give the methods, the module first: what their keys end in (``""`` for the module), and their names."""

    @abstractmethod
    def measure(self, pl_module: LightningModule, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Measure the samples of a batch.

        Returns:
            The number of each sample, (B,), NaN where it has none; its group, (B,); and its values, (B, methods,
            metrics).
        """

    def group_name(self, group: float) -> str:
        """Write a group's number, for keys and tables."""
        return f"{group:g}"

    @property
    def axis(self) -> str:
        """Name of what samples are grouped by, for tables and figures."""
        return self.group_by or ""

    def file_name(self, metric: str) -> str:
        """Name the table and the figure of a metric."""
        return metric

    def published(self, metric: str) -> Mapping[str, Mapping[float, float]]:
        """Give published values to stand beside the measured: by source, then by group."""
        del metric
        return {}

    def decorate(self, axes: Any) -> None:
        """Add to a figure what belongs to the quantity on its axis."""

    def measure_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> Tensor:
        """Give one row a sample: its number, its group, and all values."""
        del trainer, dataloader_idx
        numbers, groups, values = (part.double().cpu() for part in self.measure(pl_module, batch))
        return torch.cat([numbers[:, None], groups[:, None], values.flatten(1)], dim=1)

    def report(self, trainer: Trainer, pl_module: LightningModule, stage: str, rows: Tensor) -> None:
        """Log, print and draw the mean of each method over the samples of each group."""
        methods = self.methods(pl_module)
        values = rows[:, 2:].view(len(rows), len(methods), len(self.metrics))
        numbers = self._order(rows[:, 1].unique().tolist())
        groups = [(group, values[rows[:, 1] == group]) for group in numbers]
        for group, samples in groups:
            detail = "" if self.group_by is None else f"/{self.group_by}_{self.group_name(group)}"
            means, errors = mean_and_standard_error(samples)
            for row, method in enumerate(methods):
                for column, metric in enumerate(self.metrics):
                    key = f"{stage}/{metric}" + (f"_{method}" if method else "")
                    if detail or method or metric not in self.logged_by_module:
                        pl_module.log(f"{key}{detail}", float(means[row, column]), sync_dist=True, batch_size=1)
                    error = float(errors[row, column])
                    pl_module.log(f"{key}{detail}_stderr", error, sync_dist=True, batch_size=1)
        self._show(trainer, list(methods.values()), stage, groups)

    def _order(self, groups: list[float]) -> list[float]:
        """Order the groups as tables list them."""
        return sorted(groups)

    @rank_zero_only
    def _show(self, trainer: Trainer, methods: list[str], stage: str, groups: list[tuple[float, Tensor]]) -> None:
        # a pipe counts as 80 columns, which breaks the numbers
        console = Console(width=max(Console().width, 100, 40 + 16 * len(methods)))
        figures = []
        for column, metric in enumerate(self.metrics):
            values = [(group, samples[:, :, column]) for group, samples in groups]
            published = self.published(metric)
            console.print(self._table(trainer, methods, stage, metric, values))
            if self.group_by is not None and len(groups) > 1:
                figure = draw_comparison(values, methods, self.axis, metric.replace("_", " "), published)
                self.decorate(figure.axes[0])
                if len(methods) + len(published) > 5:  # beside the curves, which it would hide
                    figure.axes[0].legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), fontsize="small")
                else:
                    figure.axes[0].legend()
                figures.append(log_figure(trainer, f"{stage}/{self.file_name(metric)}", figure))
        console.print(f"Run directory: {run_directory(trainer)}", soft_wrap=True)
        for path in figures:
            console.print(f"Figure: {path}", soft_wrap=True)

    def _table(
        self, trainer: Trainer, methods: list[str], stage: str, metric: str, groups: list[tuple[float, Tensor]]
    ) -> Table:
        """Store the table of a metric, and give it for printing."""
        published = self.published(metric)
        label = [self.axis] if self.group_by is not None else []
        name = metric.replace("_", " ")
        table = Table(*label, "samples", *methods, *published, title=f"{stage}: {name}, mean ± standard error")
        records: list[list[Any]] = []
        for group, samples in groups:
            means, errors = mean_and_standard_error(samples)
            cells = zip(means.tolist(), errors.tolist(), strict=True)
            first = [self.group_name(group)] if label else []
            others = [
                next((value for place, value in values.items() if abs(place - group) < 1e-6), None)
                for values in published.values()
            ]
            shown = ["" if value is None else f"{value:g}" for value in others]
            table.add_row(*first, str(len(samples)), *(f"{m:.3f} ± {e:.3f}" for m, e in cells), *shown)
            records.append([*first, len(samples), *means.tolist(), *errors.tolist(), *others])
        columns = [*label, "samples", *methods, *(f"{method} standard error" for method in methods), *published]
        log_table(trainer, f"{stage}/{self.file_name(metric)}", columns, records)
        return table


def mean_and_standard_error(values: Tensor) -> tuple[Tensor, Tensor]:
    r"""Give the mean and its standard error :math:`s / \sqrt{n}` over the n values of the first axis; 0 for n = 1."""
    mean = values.mean(0)
    if len(values) < 2:
        return mean, torch.zeros_like(mean)
    return mean, values.std(0, unbiased=True) / len(values) ** 0.5


def draw_comparison(
    groups: Sequence[tuple[float, Tensor]],
    methods: Sequence[str],
    label: str,
    metric: str,
    published: Mapping[str, Mapping[float, float]],
) -> "Figure":
    """Draw one curve a method with standard errors, and dashed ones of published values.

    Args:
        groups: Position on the axis and values of each sample, (samples, methods), of every group.
        methods: Name of each column.
        label: Name of the axis.
        metric: Name of the values.
        published: Values by source, then by position.

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
    for number, (source, values) in enumerate(published.items()):
        grey, marker = str(0.6 * number / len(published)), "xs^v"[number % 4]
        axes.plot(list(values), list(values.values()), linestyle=":", marker=marker, color=grey, label=source)
    axes.set_xlabel(label)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    return figure


def snake_case(name: str) -> str:
    """Turn a method's name into the end of a key: ``BetheHessian`` to ``bethe_hessian``."""
    return re.sub(r"[^a-z0-9]+", "_", words(name).lower()).strip("_")


def words(name: str) -> str:
    """Turn a class's name into words: ``BetheHessian`` to ``Bethe Hessian``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
