"""Which separating rule was found: its margin beside the largest, in a norm."""

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..modules.bias.max_margin import MarginNorm, max_margin
from ..modules.bias.references import dual_of, norm_of
from .run_measurement import RunMeasurement

__all__ = ["MarginBias"]


class MarginBias(RunMeasurement):
    r"""Compare the margin of the rule beta with the largest margin in a norm, computed by a convex solver.

    Quantities of each run, under ``train/`` and ``test/`` (see :class:`RunMeasurement`), with Z = diag(y) X:

    - ``margin_ratio``: :math:`\min_n \langle z_n, \beta \rangle / (\|\beta\| \gamma^*)`, at most 1;
    - ``certificate``: the same with :math:`\|Z^T p\|_* \ge \gamma^*` for p the softmax of the negative margins, the
      least over the points in time, in place of the reference: a lower bound of the ratio that needs no solver;
    - ``l2_ratio``: the ratio in the l2 norm, and ``l2_angle``, the angle to the l2 maximum-margin rule in radians;
    - ``svm_ratio``: the ratio that this l2 rule has in the norm, and ``lead``, ``margin_ratio`` less this;
    - ``ratio_drop``: the largest fall so far of ``margin_ratio`` below its highest, from 10 steps on;
    - ``gap_times_log_steps``: (1 - ratio) log t, bounded where the gap closes like 1 / log t, and ``gap_exponent``, the
      power of log t by which it closes, -1 there: fitted by least squares to the points in time from 100 steps on;
    - ``log_loss``: logarithm of the exponential loss;
    - ``path_length``: of beta, the polygon through the points in time, in units of the weights; ``path_slope``, its
      growth per unit of log t since the point before.

    Args:
        norm: The norm; ``dft_l1`` is the l1 norm of the unitary discrete Fourier transform.
        p: Exponent of ``lp``, > 1.
    """

    name = "margin_bias"

    def __init__(self, norm: MarginNorm = "l2", p: float = 2.0) -> None:
        super().__init__()
        if norm == "lp" and not 1 < p < math.inf:
            msg = f"MarginBias(p={p}): p must be above 1 and finite; for 1 and infinity take norm l1 or linf."
            raise ValueError(msg)
        self.norm: MarginNorm = norm
        self.p = p

    def measure(self, pl_module: LightningModule, batch: Any, steps: int) -> dict[str, Tensor]:
        """Give the quantities of the class.

        Raises:
            ValueError: If a rule is zero.
        """
        beta: Tensor = pl_module.predictor.beta()  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        start: Tensor = pl_module.start  # pyright: ignore[reportAssignmentType]
        z = batch.x * batch.y.unsqueeze(-1)
        gamma = self.solution("gamma", pl_module, lambda: self._largest_margins(z), z, self.norm, self.p)
        svm = self.solution("svm", pl_module, lambda: _l2_rules(z), z)
        memory = self.memory
        margins = torch.einsum("rnd,rd->rn", z, beta)
        least, size = margins.amin(1), norm_of(beta, self.norm, self.p)
        if not bool((size > 0).all()):
            msg = f"MarginBias: the rule of a run is zero after {steps} steps, so it has no margin; start it elsewhere."
            raise ValueError(msg)
        mixture = torch.einsum("rn,rnd->rd", (-margins).softmax(1), z)
        bound = norm_of(mixture, *dual_of(self.norm, self.p))
        memory["bound"] = torch.minimum(memory.get("bound", bound), bound)
        ratio = least / size / gamma
        svm_ratio = torch.einsum("rnd,rd->rn", z, svm).amin(1) / norm_of(svm, self.norm, self.p) / gamma
        cosine = (beta * svm).sum(1) / (beta.norm(dim=1) * svm.norm(dim=1))
        best = self.largest("best", ratio) if steps >= 10 else torch.full_like(ratio, -torch.inf)
        length, slope = self._path(beta, start, steps)
        return {
            "margin_ratio": ratio,
            "certificate": least / size / memory["bound"],
            "l2_ratio": least / beta.norm(dim=1) / svm.norm(dim=1),
            "l2_angle": cosine.clamp(-1, 1).acos(),
            "svm_ratio": svm_ratio,
            "lead": ratio - svm_ratio,
            "ratio_drop": self.largest("drop", (best - ratio).clamp_min(0)),
            "gap_times_log_steps": (1 - ratio) * math.log(max(steps, 1)),
            "gap_exponent": self._gap_exponent(1 - ratio, steps),
            "log_loss": torch.logsumexp(-margins, 1),
            "path_length": length,
            "path_slope": slope,
        }

    def _largest_margins(self, z: Tensor) -> Tensor:
        """Give the largest margin of every run's problem in the norm, (R,)."""
        with torch.enable_grad():
            return torch.stack([max_margin(rows, self.norm, self.p)[0] for rows in z.cpu()])

    def _gap_exponent(self, gap: Tensor, steps: int) -> Tensor:
        """Give the slope of log gap over log log t, (R,), from sums over the points in time; 0 before there are two."""
        sums = self.memory.get("gap_sums", gap.new_zeros(len(gap), 5))
        if steps >= 100 and steps > int(self.memory.get("gap_steps", torch.tensor(0))):
            x, y = torch.full_like(gap, math.log(math.log(steps))), gap.clamp_min(torch.finfo(gap.dtype).tiny).log()
            sums = sums + torch.stack([torch.ones_like(x), x, y, x * x, x * y], 1)
            self.memory |= {"gap_sums": sums, "gap_steps": torch.tensor(steps)}
        n, sx, sy, sxx, sxy = sums.T
        return torch.where(n > 1, (n * sxy - sx * sy) / (n * sxx - sx * sx), 0.0)

    def _path(self, beta: Tensor, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Give the length of the path so far and its growth per unit of log t."""
        before = self.memory.get("beta", start)
        zero = torch.zeros_like(self.memory["gamma"])
        length, then = self.memory.get("length", zero), int(self.memory.get("steps", torch.tensor(0)))
        if steps > then:
            change = (beta - before).norm(dim=1)
            length = length + change
            self.memory["slope"] = change / math.log(steps / max(then, 1)) if steps > 1 else change
            self.memory |= {"beta": beta.clone(), "length": length, "steps": torch.tensor(steps)}
        return length, self.memory.get("slope", zero)


def _l2_rules(z: Tensor) -> Tensor:
    """Give the l2 maximum-margin rule of every run's problem, as long as its margin, (R, d)."""
    return torch.stack([max_margin(rows)[1] @ rows for rows in z.cpu()])
