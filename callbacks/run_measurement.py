"""Measure many runs trained side by side, at every point of time and at the end."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..modules.bias import max_margin, potentials, predictors, references
from .comparison import mean_and_standard_error
from .media import log_figure, log_table
from .reference_cache import cached

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RunMeasurement"]

#: Modules that reference solutions come from.
_SOLVERS = (max_margin, potentials, predictors, references)


class RunMeasurement(Callback, ABC):
    """Log quantities of every run of an :class:`ImplicitBias` task: their mean, least and largest over runs.

    Logs ``train/<name>``, ``train/<name>_min`` and ``train/<name>_max`` after each epoch, and the same under ``test/``
    with ``test/<name>_stderr``, the standard error of the mean over runs. At the test it writes the table
    ``tables/test/<quantities>.csv``, a row a run, and the figure ``figures/test/<quantities>.png``: each quantity
    against the number of steps, mean and range over runs. The history is part of the checkpoint; solutions of convex
    programs are kept in the datamodule's ``data_dir`` too, where it has one. One process only, as the task.
    """

    #: Name of the table and the figure.
    name: str
    #: Quantities shown with a logarithmic axis.
    logarithmic: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._history: list[dict[str, Any]] = []
        #: What a subclass remembers from one point in time to the next.
        self.memory: dict[str, Tensor] = {}

    @abstractmethod
    def measure(self, pl_module: LightningModule, batch: Any, steps: int) -> dict[str, Tensor]:
        """Give the quantities after ``steps`` steps, (R,) each; the batch is all problems."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure after the steps of an epoch."""
        del outputs, batch_idx
        steps = pl_module.steps_after(trainer.current_epoch + 1)  # pyright: ignore[reportCallIssue]
        values = self._values(pl_module, batch, steps)
        row: dict[str, Any] = {"steps": steps}
        for key, value in values.items():
            row[key] = [float(value.mean()), float(value.min()), float(value.max())]
            for name, number in zip((key, f"{key}_min", f"{key}_max"), row[key], strict=True):
                pl_module.log(f"train/{name}", number, on_step=False, on_epoch=True, batch_size=1)
        self._history.append(row)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure, tabulate and draw the end of training."""
        del outputs, batch_idx, dataloader_idx
        steps = self._history[-1]["steps"] if self._history else 0
        values = self._values(pl_module, batch, steps)
        for key, value in values.items():
            mean, error = mean_and_standard_error(value)
            numbers = {key: mean, f"{key}_stderr": error, f"{key}_min": value.min(), f"{key}_max": value.max()}
            pl_module.log_dict({f"test/{name}": float(number) for name, number in numbers.items()}, batch_size=1)
        rows = [
            [run, int(problem), *(float(value[run]) for value in values.values())]
            for run, problem in enumerate(batch.problem)
        ]
        log_table(trainer, f"test/{self.name}", ["run", "problem", *values], rows)
        if len(self._history) > 1:
            log_figure(trainer, f"test/{self.name}", self._draw())

    def state_dict(self) -> dict[str, Any]:
        """Keep the history and what the subclass remembers."""
        return {"history": self._history, "memory": self.memory}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the saved history."""
        self._history, self.memory = list(state_dict["history"]), dict(state_dict["memory"])

    def largest(self, key: str, value: Tensor) -> Tensor:
        """Give the largest value so far of each run."""
        self.memory[key] = torch.maximum(self.memory[key], value) if key in self.memory else value
        return self.memory[key]

    def solution(self, name: str, pl_module: LightningModule, solve: Callable[[], Tensor], *inputs: Any) -> Tensor:
        """Give a reference solution: the run's own, that of an earlier run with these inputs, or the solver's.

        It is part of the checkpoint, and of the datamodule's folder ``data_dir`` where it has one.
        """
        if name not in self.memory:
            folder = getattr(getattr(pl_module.trainer, "datamodule", None), "data_dir", None)
            sources = [Path(inspect.getfile(source)) for source in (type(self), *_SOLVERS)]
            self.memory[name] = cached(folder, solve, sources, name, *inputs).to(pl_module.device)
        return self.memory[name]

    def _values(self, pl_module: LightningModule, batch: Any, steps: int) -> dict[str, Tensor]:
        # references and KKT residuals take gradients, which Lightning's inference mode forbids
        with torch.inference_mode(mode=False), torch.no_grad():
            batch = type(batch)(*(part.clone() for part in batch))
            return {key: value.double().cpu() for key, value in self.measure(pl_module, batch, steps).items()}

    def _draw(self) -> "Figure":
        from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

        keys = [key for key in self._history[-1] if key != "steps"]
        figure = Figure(figsize=(3.2 * min(len(keys), 4), 2.6 * -(-len(keys) // 4)), layout="constrained")
        axes = figure.subplots(-(-len(keys) // 4), min(len(keys), 4), squeeze=False).flatten()
        for axis in axes[len(keys) :]:
            axis.set_axis_off()
        steps = [row["steps"] for row in self._history]
        for axis, key in zip(axes, keys, strict=False):
            mean, low, high = zip(*(row[key] for row in self._history), strict=True)
            axis.fill_between(steps, low, high, alpha=0.25)
            axis.plot(steps, mean)
            axis.set_xscale("log")
            if key in self.logarithmic and min(low) >= 0 and max(high) > 0:
                axis.set_yscale("log")
            axis.set_title(key.replace("_", " "), fontsize="small")
            axis.set_xlabel("steps", fontsize="small")
            axis.grid(alpha=0.3)
        return figure
