"""The one place that writes pictures and tables: the run directory and Weights & Biases alike."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def run_directory(trainer: Trainer) -> Path:
    """Give the directory of this run: that of the CSV logger, else the Trainer's ``default_root_dir``.

    No collective is involved, so it may be called on one rank alone; only the path on rank zero is meaningful.
    """
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            return Path(logger.log_dir)
    return Path(trainer.default_root_dir)


@rank_zero_only
def log_figure(trainer: Trainer, key: str, figure: "Figure") -> Path | None:
    """Save a figure as ``figures/<key>.png`` in the run directory and send it to every W&B logger.

    Args:
        trainer: Its loggers decide where the picture goes.
        key: Metric key, e.g. ``test/overlap_curve``; a slash becomes a folder of the file's path.
        figure: The picture; one made by pyplot is closed by the caller.

    Returns:
        The file written, or ``None`` on other ranks, or where it could not be written (a warning says so: a full disk
        does not end a run).
    """
    path = run_directory(trainer) / "figures" / f"{key}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp.png")
        figure.savefig(partial, dpi=150, bbox_inches="tight")
        os.replace(partial, path)  # noqa: PTH105  # atomic: a killed run never leaves half a picture
    except OSError as error:
        rank_zero_warn(f"The figure {path} could not be written ({error}); the run goes on without it.")
        return None
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)])
    return path


@rank_zero_only
def log_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path | None:
    """Save a table as ``tables/<key>.csv`` in the run directory and send it to every W&B logger.

    Args:
        trainer: Its loggers decide where the table goes.
        key: Metric key, e.g. ``test/overlap_table``.
        columns: Names of the columns.
        rows: One sequence a row, as long as ``columns``.

    Returns:
        The file written, or ``None`` as in :func:`log_figure`.
    """
    path = run_directory(trainer) / "tables" / f"{key}.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".tmp")
        with partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
        os.replace(partial, path)  # noqa: PTH105
    except OSError as error:
        rank_zero_warn(f"The table {path} could not be written ({error}); the run goes on without it.")
        return None
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
    return path


@rank_zero_only
def log_histogram(trainer: Trainer, key: str, counts: Sequence[int], edges: Sequence[float]) -> None:
    """Send a histogram to every W&B logger, which draws them over the steps; nothing is written to the run directory.

    Args:
        trainer: Its loggers decide where the histogram goes.
        key: Metric key, e.g. ``val/margin_histogram``.
        counts: Samples of each bin; none is no histogram.
        edges: Of the bins, one more than there are bins.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]
    if not loggers or not counts:
        return
    import numpy as np
    import wandb  # only where it is in use: the import takes a second

    picture = wandb.Histogram(np_histogram=(np.array(counts), np.array(edges)))
    for logger in loggers:
        logger.log_metrics({key: picture}, trainer.global_step)  # pyright: ignore[reportArgumentType]


def shows_progress(trainer: Trainer) -> bool:
    """Tell whether this process shows progress on the terminal."""
    return trainer.is_global_zero and trainer.progress_bar_callback is not None
