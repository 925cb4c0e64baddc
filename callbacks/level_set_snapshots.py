"""Keep a network as it was when it first fell below each of several levels."""

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from .geodesics.kept import write
from .media import run_directory

__all__ = ["LevelSetSnapshots"]


class LevelSetSnapshots(Callback):
    """Save the weights the first time a logged quantity falls below each level: one training run serves all levels.

    Looks at the quantity at the end of every training epoch, after the last validation in it. Writes
    ``snapshots/<monitor>_<level>.ckpt`` in the run directory (``state_dict``, ``level``, ``value``, ``epoch``,
    ``global_step``; a / in the key becomes _), which :class:`GeodesicPath` takes as ``reference``. Costs nothing else.
    On several ranks log the quantity with ``sync_dist=True``, so that all of them see the same; rank zero writes.

    Args:
        levels: The levels, in units of the quantity.
        monitor: Key of the quantity, e.g. ``val/loss``. A ``train/`` loss is the epoch's mean, not that of the weights
            saved.
        stop: End training when all levels are reached.

    Raises:
        ValueError: If there is no level.
    """

    def __init__(self, levels: Sequence[float], monitor: str = "val/loss", stop: bool = False) -> None:
        if not levels:
            msg = "LevelSetSnapshots(levels=[]): give at least one level, e.g. [0.1, 0.05]."
            raise ValueError(msg)
        self.levels = sorted((float(level) for level in levels), reverse=True)
        self.monitor = monitor
        self.stop = stop
        #: Levels that were reached.
        self.reached: list[float] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the quantity with the levels that were not reached yet.

        Raises:
            ValueError: If the quantity is not there after an epoch with a validation.
        """
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            every = trainer.check_val_every_n_epoch  # None: validations are counted in batches
            if getattr(trainer, "fast_dev_run", False) or every is None or (trainer.current_epoch + 1) % every:
                return
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            msg = f"LevelSetSnapshots(monitor={self.monitor!r}): no such quantity was logged; there are {known}."
            raise ValueError(msg)
        for level in self.levels:
            if float(value) < level and level not in self.reached:
                self.reached.append(level)
                self._save(trainer, pl_module, level, float(value))
        if self.stop and len(self.reached) == len(self.levels):
            trainer.should_stop = True

    @property
    def state_key(self) -> str:
        """Keep the levels of each quantity apart in a checkpoint."""
        return self._generate_state_key(monitor=self.monitor)

    def state_dict(self) -> dict[str, Any]:
        """Give the levels that were reached, so that a resumed run does not save them again."""
        return {"reached": list(self.reached)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the levels that were reached."""
        self.reached = list(state_dict["reached"])

    def _save(self, trainer: Trainer, pl_module: LightningModule, level: float, value: float) -> None:
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        path = run_directory(trainer) / "snapshots" / f"{self.monitor.replace('/', '_')}_{level:g}.ckpt"
        place = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
        write(path, {"state_dict": pl_module.state_dict(), "level": level, "value": value, **place})
