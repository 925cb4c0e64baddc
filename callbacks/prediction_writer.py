"""Write predictions to one CSV file, from any number of ranks."""

import csv
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from .media import run_directory


class PredictionWriter(Callback):
    """Write rows for every predicted sample to ``predictions/<file_name>`` of the run directory.

    Each rank writes every sample to a file of its own; when the prediction is complete, rank zero joins them in the
    order of their numbers, each once. One sample at a time is held in memory.

    Args:
        file_name: Name of the file in ``predictions/``.

    Raises:
        ValueError: If ``file_name`` is no plain name ending in ``.csv``.
    """

    #: Columns of the file.
    header: Sequence[str] = ()
    #: Column of the sample's number, in front where there are several; ``None`` for none.
    number_column: str | None = None

    def __init__(self, file_name: str) -> None:
        if Path(file_name).name != file_name or not file_name.endswith(".csv"):
            msg = f"{type(self).__name__}(file_name={file_name!r}): give a name ending in .csv, without a folder."
            raise ValueError(msg)
        self.file_name = file_name

    @abstractmethod
    def rows(self, trainer: Trainer, outputs: Any, batch: Any) -> Iterator[tuple[int, Iterable[Sequence[Any]]]]:
        """Give the number and the rows of every sample of a batch."""

    @abstractmethod
    def report(self, num_samples: int, path: Path) -> str:
        """Say what was written."""

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
        trainer.strategy.barrier("PredictionWriter.setup")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the rows of each sample of the batch to a file of its own."""
        del pl_module, batch_idx, dataloader_idx
        for sample_id, rows in self.rows(trainer, outputs, batch):
            with (self._parts / f"{sample_id}.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the parts of all ranks on rank zero, and print where the result is."""
        del pl_module
        if stage != "predict":
            return
        trainer.strategy.barrier("PredictionWriter.teardown")  # all parts are there
        if trainer.is_global_zero:
            num_samples = join_parts(self._parts, self._path, self.header, self.number_column)
            print(self.report(num_samples, self._path))


def join_parts(folder: Path, path: Path, header: Sequence[str], number_column: str | None = None) -> int:
    """Join ``<sample number>.csv`` files into one CSV with a header, in the order of the numbers, and delete them.

    Args:
        folder: Where the parts are.
        path: The file to write; it appears only when it is complete.
        header: Columns of the parts.
        number_column: Column of the sample's number, in front where there are several parts; ``None`` for none.

    Returns:
        The number of samples.
    """
    parts = sorted(folder.glob("*.csv"), key=lambda part: int(part.stem))
    numbered = number_column is not None and len(parts) > 1
    partial = folder / "joined.tmp"
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([number_column, *header] if numbered else header)
        for part in parts:
            with part.open(newline="", encoding="utf-8") as rows:
                if numbered:
                    writer.writerows([part.stem, *row] for row in csv.reader(rows))
                else:
                    shutil.copyfileobj(rows, file)
    partial.replace(path)
    shutil.rmtree(folder)
    return len(parts)
