"""Training of many small problems at once, to see which solution the optimizer picks."""

from typing import Any, NamedTuple

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor

from ..base import Task
from ..margins import smoothed_margin
from .losses import Objective, log_loss, objective_slopes, objective_value
from .optimizers import ProblemOptimizer
from .predictors import LinearPredictor, Predictor

__all__ = ["ImplicitBias", "Problems"]


class Problems(NamedTuple):
    """R problems of N samples each, one for every run of the predictor.

    Attributes:
        x: Inputs, (R, N, d), float64.
        y: Targets of a regression, or labels -1 and 1, (R, N).
        problem: The problem's number, (R,); runs of one problem have the same.
    """

    x: Tensor
    y: Tensor
    problem: Tensor


class ImplicitBias(Task):
    r"""Minimise the loss of R independent problems, many optimizer steps a training step.

    The problems are in the batch's first axis and the parameters' first axis. There is nothing to generalise to: the
    solution of the training set is what is measured, so all splits are the same problems. All runs share one call of
    the optimizer, which must treat them as independent: torch's elementwise optimizers do, ours with ``batch_dims=1``.

    One epoch is one point of the logarithmic time axis: after epoch e of E, :math:`\max(e, T^{e/E})` of the T steps are
    done. Lightning's own cost is one training step an epoch. Logs ``train/loss``, the mean over runs of the objective
    before the last step, and ``train/steps``.

    Objectives, summed over samples, of the margins :math:`m_n = y_n f(x_n)`: ``squared`` 1/2 (f - y)^2; ``exponential``
    and ``logistic``; ``log_exponential`` and ``log_logistic`` their logarithm, on which a constant step is a step
    divided by the loss, and which holds where the loss is below 10^-300.

    Args:
        predictor: The map from parameters to outputs, with as many runs as the data have.
        objective: What is minimised.
        steps: T, the optimizer's steps, at least as many as epochs.
        instancewise: Step t sees only sample t mod N (stochastic gradient descent without replacement).
        track_margin: Compare the smoothed normalized margin of every step with the largest before, once it is positive,
            see :func:`~theodolite.modules.margins.smoothed_margin`: ``largest_decrease``, (R,), is the largest relative
            decrease.
        optimizer: As in :class:`Task`.

    Raises:
        ValueError: If ``steps`` is not positive, or the margin of a regression is to be tracked.
    """

    largest_decrease: Tensor
    _best_margin: Tensor

    def __init__(
        self,
        predictor: Predictor,
        objective: Objective = "squared",
        steps: int = 10_000,
        instancewise: bool = False,
        track_margin: bool = False,
        optimizer: OptimizerCallable = torch.optim.SGD,
    ) -> None:
        super().__init__(optimizer)
        self.save_init_arguments()
        if steps < 1:
            msg = f"ImplicitBias(steps={steps}): must be at least 1."
            raise ValueError(msg)
        if track_margin and objective == "squared":
            msg = "ImplicitBias(track_margin=True): a squared loss has no margin; take an exponential or logistic one."
            raise ValueError(msg)
        self.predictor = predictor
        self.objective: Objective = objective
        self.steps = steps
        self.instancewise = instancewise
        self.track_margin = track_margin
        self.automatic_optimization = False
        zeros = torch.zeros(predictor.runs, dtype=torch.float64)
        self.register_buffer("largest_decrease", zeros)
        self.register_buffer("_best_margin", zeros - torch.inf)
        if isinstance(predictor, LinearPredictor):
            self.register_buffer("start", predictor.beta().detach().clone())

    def configure_optimizers(self) -> Any:
        """Build the injected optimizer.

        Raises:
            ValueError: If it would take the runs for one problem.
        """
        optimizer = super().configure_optimizers()
        if (
            isinstance(optimizer, ProblemOptimizer)
            and optimizer.defaults["batch_dims"] == 0
            and self.predictor.runs > 1
        ):
            msg = (
                f"{type(optimizer).__name__}(batch_dims=0): the {self.predictor.runs} runs of ImplicitBias would share "
                "norms and steps; give --model.optimizer.batch_dims 1."
            )
            raise ValueError(msg)
        return optimizer

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (R, N) for inputs (R, N, d)."""
        return self.predictor(x)

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        """Give the objective of each run, (R,).

        Raises:
            ValueError: If the data have another number of runs than the predictor.
        """
        if len(x) != self.predictor.runs:
            msg = (
                f"ImplicitBias: the data have {len(x)} runs (problems x repeats), the predictor has "
                f"{self.predictor.runs}; give --model.predictor.runs {len(x)}."
            )
            raise ValueError(msg)
        return objective_value(self(x), y, self.objective)

    def loss(self, batch: Problems) -> Tensor:
        """Give the sum over runs, whose gradient is that of each run."""
        return self.losses(batch.x, batch.y).sum()

    def num_samples(self, batch: Problems) -> int:
        """Count the runs."""
        return len(batch.x)

    def on_fit_start(self) -> None:
        """Refuse a Trainer that cannot do the steps asked for.

        Raises:
            MisconfigurationException: Without a number of epochs, with more epochs than steps, or with several devices.
        """
        epochs = self.trainer.max_epochs
        if epochs is None or not 1 <= epochs <= self.steps:
            msg = f"ImplicitBias: max_epochs is {epochs}; give the number of points in time, 1 to steps={self.steps}."
            raise MisconfigurationException(msg)
        if self.trainer.world_size > 1:
            msg = (
                f"ImplicitBias: {self.trainer.world_size} processes; all runs are trained side by side on one device, "
                "give --trainer.devices 1."
            )
            raise MisconfigurationException(msg)

    def steps_after(self, epoch: int) -> int:
        """Give the number of optimizer steps done after so many epochs."""
        assert self.trainer.max_epochs is not None
        return max(epoch, round(self.steps ** (epoch / self.trainer.max_epochs))) if epoch else 0

    def training_step(self, batch: Problems, batch_idx: int) -> Tensor:
        """Take the optimizer steps up to the next point in time."""
        del batch_idx
        wrapped = self.optimizers()
        optimizer = wrapped.optimizer  # pyright: ignore[reportAttributeAccessIssue]  # one, and Lightning's wrapper
        first, last = self.steps_after(self.current_epoch), self.steps_after(self.current_epoch + 1)
        x, y = batch.x, batch.y
        losses = torch.zeros(())
        for step in range(first, last):
            if self.instancewise:
                sample = step % batch.x.shape[1]
                x, y = batch.x[:, sample : sample + 1], batch.y[:, sample : sample + 1]
            optimizer.zero_grad()
            if step < last - 1:
                self._backward(x, y)
                optimizer.step()
            else:  # once an epoch through Lightning, which counts steps and lets callbacks look at the loss
                losses = self.losses(x, y)
                self.manual_backward(losses.sum())
                wrapped.step()  # pyright: ignore[reportAttributeAccessIssue]
        loss = losses.detach().mean()
        self.log_dict({"train/loss": loss, "train/steps": float(last)}, on_step=False, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch: Problems, batch_idx: int) -> None:
        """Log the objective after the steps of an epoch as ``val/loss``."""
        del batch_idx
        self.log("val/loss", self.losses(batch.x, batch.y).mean(), batch_size=1)

    def test_step(self, batch: Problems, batch_idx: int) -> None:
        """Log the objective of the solution as ``test/loss``."""
        del batch_idx
        self.log("test/loss", self.losses(batch.x, batch.y).mean(), batch_size=1)

    def parameter_norm(self) -> Tensor:
        """Give the l2 norm of all parameters of each run, (R,)."""
        return torch.stack([p.detach().flatten(1).square().sum(1) for p in self.predictor.parameters()]).sum(0).sqrt()

    def _backward(self, x: Tensor, y: Tensor) -> None:
        """Accumulate the gradient of the objective, through as little of a graph as there must be."""
        if isinstance(self.predictor, LinearPredictor):
            rule = self.predictor.beta()
            outputs = torch.bmm(x, rule.detach().unsqueeze(-1)).squeeze(-1)
            slopes = objective_slopes(outputs, y, self.objective)
            rule.backward(torch.bmm(slopes.unsqueeze(1), x).squeeze(1))
        else:
            outputs = self.predictor(x)
            outputs.backward(objective_slopes(outputs.detach(), y, self.objective))
        if self.track_margin:
            self._track(outputs.detach() * y)

    def _track(self, margins: Tensor) -> None:
        """Update the largest decrease of the smoothed margin."""
        tail = "logistic" if self.objective.endswith("logistic") else "exponential"
        margin = smoothed_margin(log_loss(margins, tail), self.parameter_norm(), self.predictor.degree, tail)
        counts = (margin > 0) & self._best_margin.isfinite()
        decrease = torch.where(counts, (self._best_margin - margin) / self._best_margin.abs(), 0.0)
        self.largest_decrease.copy_(torch.maximum(self.largest_decrease, decrease))
        best = torch.where(margin > 0, torch.maximum(self._best_margin, margin), self._best_margin)
        self._best_margin.copy_(best)
