"""Which solution of underdetermined equations was found: distance to the one that theory predicts."""

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..modules.bias import Entropy, Hypentropy, LpPotential, Potential
from ..modules.bias.predictors import spread
from ..modules.bias.references import (
    bregman_projection,
    depth_map,
    min_l1,
    min_l2,
    min_linf,
    min_nuclear,
    norm_of,
)
from .run_measurement import RunMeasurement

__all__ = ["InterpolationBias"]

Reference = Literal["none", "l2", "l1", "linf", "lp", "entropy", "simplex", "hypentropy", "depth", "nuclear"]
#: The norm in which a solution is compared with the reference; of the potentials, that which small scales minimise.
_NORMS = {"l2": "l2", "linf": "linf", "lp": "lp", "nuclear": "nuclear"}


class InterpolationBias(RunMeasurement):
    r"""Compare the rule beta that solves X beta = y with the predicted solution, computed by a convex solver.

    Quantities of each run, under ``train/`` and ``test/`` (see :class:`RunMeasurement`):

    - ``residual``: :math:`\|X\beta - y\|_\infty / \|y\|_\infty`; a solution it must be before anything else counts;
    - ``distance``: :math:`\|\beta - \beta^*\|_2 / \|\beta^*\|_2`, and ``distance_linf``, :math:`\|\beta -
      \beta^*\|_\infty`, in the unit of the weights;
    - ``norm_excess``: norm of beta over that of the reference, less 1;
    - ``l1_excess`` (``depth`` and ``hypentropy``): l1 norm of beta over the least, by linear programming, less 1;
    - ``span_residual``: the largest part so far of :math:`\nabla\psi(\beta) - \nabla\psi(\beta_0)` outside of the row
      space of X, relative to 1 + its norm: 0 along the whole path of mirror descent, and the KKT residual at its end;
    - ``step_spread``: relative distance between the solutions of one problem at different step sizes (``repeats``);
    - ``distance_ratio``: the distance at the first step size over that at the last: 10 for two steps of ratio 10
      where the error is of first order in the step;
    - ``norm`` and ``norm_exponent``: :math:`\|\beta\|_2`, and its slope over the loss in double logarithmic scale since
      the point in time before: -1/2 where the norm diverges like the inverse root of the loss.

    Args:
        reference: What is predicted: a least norm, or the Bregman projection of the start with a potential:
            ``entropy``, ``simplex``, ``hypentropy`` or ``depth`` (of :math:`u^k - v^k`). ``l2`` and the potentials
            start at the predictor's start, ``lp`` and ``depth`` at 0.
        p: Exponent of ``lp``.
        depth: k of ``depth``.
        scale: b of ``hypentropy`` or alpha of ``depth``, or a list for equal groups of runs.

    Raises:
        ValueError: If an argument is out of range.
    """

    name = "interpolation_bias"
    logarithmic = frozenset({"residual", "distance", "distance_linf", "span_residual", "step_spread", "norm"})

    def __init__(
        self, reference: Reference = "l2", p: float = 2.0, depth: int = 2, scale: float | list[float] = 1.0
    ) -> None:
        super().__init__()
        if depth < 2:
            msg = f"InterpolationBias(depth={depth}): must be at least 2."
            raise ValueError(msg)
        LpPotential(p)  # refuses p
        self.reference = reference
        self.p = p
        self.depth = depth
        self.scale = scale

    def measure(self, pl_module: LightningModule, batch: Any, steps: int) -> dict[str, Tensor]:
        """Give the quantities of the class."""
        del steps
        beta: Tensor = pl_module.predictor.beta()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        start: Tensor = pl_module.start  # pyright: ignore[reportAssignmentType]
        error = torch.einsum("rnd,rd->rn", batch.x, beta) - batch.y
        values = {"residual": error.abs().amax(1) / batch.y.abs().amax(1)}
        if self.reference != "none":
            options = (batch.x, batch.y, start, self.reference, self.p, self.depth, self.scale)
            solution = self.solution("solution", pl_module, lambda: self._solve(batch, start), *options)
            norm = _NORMS.get(self.reference, "l1")
            values["distance"] = (beta - solution).norm(dim=1) / solution.norm(dim=1)
            values["distance_linf"] = (beta - solution).abs().amax(1)
            values["norm_excess"] = norm_of(beta, norm, self.p) / norm_of(solution, norm, self.p) - 1
        if self.reference in {"depth", "hypentropy"}:
            least = self.solution("l1", pl_module, lambda: _least_l1(batch), batch.x, batch.y)
            values["l1_excess"] = beta.abs().sum(1) / least - 1
        if self.reference in {"l2", "lp", "entropy", "simplex", "hypentropy"}:
            values["span_residual"] = self.largest("span", self._span(batch.x, beta, start))
        repeats = len(batch.problem) // len(batch.problem.unique())
        if repeats > 1:
            groups = beta.unflatten(0, (repeats, -1))
            values["step_spread"] = ((groups - groups.roll(1, 0)).norm(dim=2) / groups.norm(dim=2)).flatten()
            if "distance" in values:
                distances = values["distance"].unflatten(0, (repeats, -1))
                values["distance_ratio"] = (distances[0] / distances[-1]).repeat(repeats)
        loss = error.square().sum(1) / 2
        values["norm"] = beta.norm(dim=1)
        values["norm_exponent"] = self._exponent(values["norm"], loss)
        return values

    def _potential(self, run: int, runs: int) -> Potential:
        if self.reference == "hypentropy":
            return Hypentropy(float(spread(self.scale, runs, type(self).__name__, "scale")[run]))
        return Entropy() if self.reference in {"entropy", "simplex"} else LpPotential(self.p)

    def _rows(self, x: Tensor) -> Tensor:
        """Give the constraints of a problem: on the simplex the sum too."""
        return torch.cat([x, torch.ones_like(x[:1])]) if self.reference == "simplex" else x

    def _solve(self, batch: Any, start: Tensor) -> Tensor:
        """Solve every run's problem."""
        scales = spread(self.scale, len(start), type(self).__name__, "scale").tolist()
        solutions = []
        for run, (x, y) in enumerate(zip(batch.x.cpu(), batch.y.cpu(), strict=True)):
            match self.reference:
                case "l2":
                    solution = min_l2(x, y, start[run].cpu())
                case "l1":
                    solution = min_l1(x, y)
                case "linf":
                    solution = min_linf(x, y)
                case "nuclear":
                    solution = min_nuclear(x, y)
                case "depth":
                    with torch.enable_grad():
                        inverse = depth_map(self.depth, scales[run])
                        solution = bregman_projection(x, y, inverse, torch.zeros_like(x[0]))
                case _:
                    potential, rows = self._potential(run, len(start)), self._rows(x)
                    targets = torch.cat([y, torch.ones_like(y[:1])]) if len(rows) > len(x) else y
                    with torch.enable_grad():
                        dual = potential.gradient(start[run].cpu())
                        solution = bregman_projection(rows, targets, potential.inverse, dual)
            solutions.append(solution.detach())
        return torch.stack(solutions)

    def _span(self, x: Tensor, beta: Tensor, start: Tensor) -> Tensor:
        """Give the part of the dual's change outside of the row space, relative to 1 + its norm."""
        parts = []
        for run, rows in enumerate(x):
            potential = self._potential(run, len(x))
            change = potential.gradient(beta[run]) - potential.gradient(start[run])
            basis = torch.linalg.qr(self._rows(rows).T).Q
            parts.append((change - basis @ (basis.T @ change)).norm() / (1 + change.norm()))
        return torch.stack(parts)

    def _exponent(self, norm: Tensor, loss: Tensor) -> Tensor:
        """Give the slope of log norm over log loss since the last point where the loss was another."""
        if "loss" in self.memory and not torch.equal(self.memory["loss"], loss):
            ratio = (self.memory["loss"] / loss).log()
            self.memory["exponent"] = (self.memory["norm"] / norm).log() / ratio.where(ratio != 0, torch.inf)
        self.memory |= {"loss": loss, "norm": norm}
        return self.memory.get("exponent", torch.zeros_like(loss))


def _least_l1(batch: Any) -> Tensor:
    """Give the least l1 norm of a solution of every run's problem, (R,)."""
    return torch.stack([min_l1(x, y).abs().sum() for x, y in zip(batch.x.cpu(), batch.y.cpu(), strict=True)])
