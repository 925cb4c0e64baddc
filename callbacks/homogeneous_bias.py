"""Whether a homogeneous predictor approaches a stationary point of its margin problem, in parameter space."""

import itertools
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from ..modules.bias import FullyConnected
from ..modules.bias.losses import log_exponential_loss
from ..modules.bias.stationarity import kkt_residual
from ..modules.margins import normalized_margin, sandwich_violation, smoothed_margin
from .run_measurement import RunMeasurement

__all__ = ["HomogeneousBias"]


class HomogeneousBias(RunMeasurement):
    r"""Measure the parameters of a homogeneous predictor on data it separates.

    Quantities of each run, under ``train/`` and ``test/`` (see :class:`RunMeasurement`):

    - ``kkt_residual``: distance from the KKT points of the margin problem, see
      :func:`~theodolite.modules.bias.stationarity.kkt_residual`; N backward passes at each point in time, through 257
      copies of the predictor if a radius is given;
    - ``normalized_margin`` and ``smoothed_margin``, in units of the output per weight^L;
    - ``sandwich``: violation of their inequalities, relative; 0 in exact arithmetic;
    - ``margin_decrease``: the largest relative decrease of the smoothed margin over single steps, where the task has
      ``track_margin``;
    - ``parameter_norm`` and ``log_loss``, the logarithm of the exponential loss;
    - of :class:`FullyConnected` with hidden layers: ``rank_ratio``, the second singular value of the first layer over
      the first, and ``alignment``, the least cosine between the leading singular vectors of neighbouring layers.

    Args:
        near: A sample counts as of the least margin up to this multiple of it.
        radius: For ReLU networks, whose units come to rest at kinks: the KKT residual may take gradients from within
            this distance, relative to the norm of the parameters.

    Raises:
        ValueError: If ``near`` is below 1, or ``radius`` negative.
    """

    name = "homogeneous_bias"
    logarithmic = frozenset({"kkt_residual", "rank_ratio", "parameter_norm"})

    def __init__(self, near: float = 1.05, radius: float = 0.0) -> None:
        super().__init__()
        if not near >= 1:
            msg = f"HomogeneousBias(near={near}): must be at least 1, e.g. 1.05."
            raise ValueError(msg)
        if not radius >= 0:
            msg = f"HomogeneousBias(radius={radius}): must be 0 or more, e.g. 1e-4."
            raise ValueError(msg)
        self.near = near
        self.radius = radius

    def measure(self, pl_module: LightningModule, batch: Any, steps: int) -> dict[str, Tensor]:
        """Give the quantities of the class."""
        del steps
        predictor: Any = pl_module.predictor
        margins, norm = predictor(batch.x) * batch.y, pl_module.parameter_norm()  # pyright: ignore[reportCallIssue]
        log_loss = log_exponential_loss(margins)
        values = {
            "kkt_residual": kkt_residual(predictor, batch.x, batch.y, self.near, self.radius),
            "normalized_margin": normalized_margin(margins.amin(1), norm, predictor.degree),
            "smoothed_margin": smoothed_margin(log_loss, norm, predictor.degree, "exponential"),
            "sandwich": sandwich_violation(margins, norm, predictor.degree),
            "parameter_norm": norm,
            "log_loss": log_loss,
        }
        if pl_module.track_margin:
            values["margin_decrease"] = pl_module.largest_decrease.clone()  # pyright: ignore[reportCallIssue]
        if isinstance(predictor, FullyConnected) and predictor.degree > 1:
            values["rank_ratio"], values["alignment"] = _layers(list(predictor.layers))
        return values


def _layers(layers: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Give s2 / s1 of the first layer, and the least alignment of the leading singular vectors, (R,) each."""
    factors = [torch.linalg.svd(layer, full_matrices=False) for layer in layers]
    values = factors[0].S
    cosines = [(later.Vh[:, 0] * earlier.U[:, :, 0]).sum(1).abs() for earlier, later in itertools.pairwise(factors)]
    return values[:, 1] / values[:, 0], torch.stack(cosines).amin(0)
