"""Checkpoints that survive a kill, a full disk and a move of the run directory."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.utilities import rank_zero_warn

__all__ = ["AtomicCheckpointIO", "RunCheckpoint", "check_checkpoint", "default_checkpoints"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint to a temporary file beside its place, flush it to the disk, then rename it.

    A kill at any moment leaves either the old or the new file, never a part of one. A disk that is full leaves the old
    file and warns once; training goes on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failing = False

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint atomically; see the class."""
        del storage_options
        target = Path(path)
        partial = target.with_name(f".{target.name}.tmp")  # one name only: a leftover of a kill is written over
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            if not isinstance(error, OSError) and not _disk_failed(partial, error):
                raise
            partial.unlink(missing_ok=True)
            if not self._failing:
                rank_zero_warn(
                    f"The checkpoint {target} could not be written ({error}). Training goes on and tries again at the "
                    "next one; make room on the disk. Checkpoints written before are kept."
                )
            self._failing = True
        else:
            self._failing = False

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint with ``weights_only=True``: tensors and plain values, never code.

        Raises:
            ValueError: If the file is damaged or is not a checkpoint; names the others beside it.
        """
        del weights_only
        check_checkpoint(Path(path))
        try:
            checkpoint = super().load_checkpoint(path, map_location=map_location, weights_only=True)
        except Exception as error:
            raise _damaged(Path(path), f"{type(error).__name__}: {error}") from error
        if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
            raise _damaged(Path(path), "no state_dict in it")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove an old checkpoint, unless the one that replaces it could not be written."""
        if not self._failing:
            super().remove_checkpoint(path)


def check_checkpoint(path: Path) -> None:
    """Find at once whether a checkpoint is there and complete: its last bytes are the table of its contents.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is truncated; names the others beside it.
    """
    if not path.is_file():
        msg = (
            f"--ckpt_path {path}: there is no such file; give a checkpoint, or last or best for those of the last run."
        )
        raise FileNotFoundError(msg)
    if not zipfile.is_zipfile(path):
        raise _damaged(path, "its end is missing")


def _damaged(path: Path, reason: str) -> ValueError:
    others = sorted(other for other in path.parent.glob("*.ckpt") if other != path and zipfile.is_zipfile(other))
    remedy = f"use --ckpt_path {' or '.join(map(str, others))}" if others else "there is no other in its folder"
    return ValueError(f"the checkpoint {path} cannot be read ({' '.join(reason.split())[:200]}); {remedy}.")


def _disk_failed(partial: Path, error: RuntimeError) -> bool:
    """Tell torch's own report of a failed write from an error in what was to be written."""
    return "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error) or not partial.parent.is_dir()


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint with one file of a fixed name, that can be resumed after the run directory was moved."""

    def __init__(self, filename: str, monitor: str | None = None, mode: str = "min") -> None:
        super().__init__(
            filename=filename,
            monitor=monitor,
            mode=mode,
            save_top_k=1,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the record of the best checkpoint, whose file is looked for in this run's folder.

        Without that file (a new run that starts from another's checkpoint) the record starts afresh.
        """
        if not state_dict.get("best_model_path") or self.dirpath is None:
            return
        path = Path(self.dirpath) / Path(state_dict["best_model_path"]).name
        if path.is_file():
            moved = {**state_dict, "dirpath": self.dirpath, "best_model_path": str(path)}
            moved["kth_best_model_path"] = str(path) if state_dict["kth_best_model_path"] else ""
            moved["best_k_models"] = {str(path): score for score in state_dict["best_k_models"].values()}
            super().load_state_dict(moved)


def default_checkpoints(model: LightningModule, configured: list[Callback], *, validates: bool) -> list[Callback]:
    """Give the checkpoint callbacks a run adds to its configured ones.

    ``best.ckpt`` comes before ``last.ckpt``, so that the last always knows of the best: a run killed between the two
    writes repeats the epoch. Lightning's ``save_last`` is not used: it writes only when the best improves.

    Args:
        model: Names the quantity of its best checkpoint by ``monitor`` and ``mode``, if it has them.
        configured: Callbacks of the configuration; its own ModelCheckpoints take the place of ``best.ckpt``.
        validates: Whether there will be a validation loop to measure that quantity.
    """
    own = [callback for callback in configured if isinstance(callback, ModelCheckpoint)]
    added: list[Callback] = []
    monitor = getattr(model, "monitor", None)
    if monitor and validates and not own:
        added.append(RunCheckpoint("best", monitor, getattr(model, "mode", "min")))
    return [*added, RunCheckpoint("last")]
