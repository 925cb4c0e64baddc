"""Whether a network is homogeneous in its parameters, found by trying."""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase

from ..attacks import evaluation_mode

__all__ = ["Homogeneity", "homogeneity"]

_SCALES = (0.5, 0.8, 1.5, 3.0)


@dataclass(frozen=True)
class Homogeneity:
    """The result of :func:`homogeneity`.

    Args:
        degree: L, or ``None`` if the network is not homogeneous.
        error: Largest relative deviation from f(c theta) = c^L f(theta) over the scales tried.
        broken_by: Parameters or modules that break it, one of which is enough; empty if it holds, or if no single
            one is to blame (a softmax within, a saturating activation).
    """

    degree: float | None
    error: float
    broken_by: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.degree is not None:
            return f"homogeneous of degree {self.degree:g}"
        cause = ", ".join(self.broken_by) or "its activations or a normalisation, no parameter alone"
        return f"not homogeneous (off by {self.error:.2g}): broken by {cause}"


def homogeneity(model: nn.Module, x: Any, tolerance: float = 1e-6) -> Homogeneity:
    r"""Test :math:`f(c\theta) = c^L f(\theta)` at several scales c > 0, and find L.

    All parameters that require gradients are scaled together; L comes from the outputs' norms at the two outer scales.
    The computation is in evaluation mode and float64, on a copy of parameters and buffers: the model is left as it
    is. A BatchNorm with running statistics breaks it always: those belong to the weights that were not scaled. If it
    fails, parameters of one axis (biases, factors) are set to zero, all and then all but one, to name those that
    break it. Cost: 5 forward passes, and one set of 5 for each such parameter if it fails.

    Args:
        model: The network; ``model(x)`` gives a tensor.
        x: A few samples.
        tolerance: Relative deviation allowed, > 0; float64 rounds to about 1e-14.

    Returns:
        The degree, or what breaks it.

    Raises:
        ValueError: If no parameter requires gradients, or the output is zero or not finite.
    """
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not names:
        msg = "homogeneity: the model has no parameter that requires gradients, so there is nothing to scale."
        raise ValueError(msg)
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng(devices=[]), evaluation_mode(model):
        network = _Scaled(model, names, x.double() if isinstance(x, Tensor) and x.is_floating_point() else x)
        if not 0 < float(network(1.0, ()).norm()) < math.inf:
            msg = "homogeneity: the output is zero or not finite on these samples; give others, or train first."
            raise ValueError(msg)
        degree, error = _scaling(network, ())
        statistics = [name for name, module in model.named_modules() if _has_statistics(module)]
        if error <= tolerance and not statistics:
            return Homogeneity(degree, error)
        if statistics:
            return Homogeneity(None, error, tuple(statistics))
        vectors = [name for name in names if model.get_parameter(name).ndim <= 1]
        broken = []
        if _scaling(network, vectors)[1] <= tolerance:
            broken = [name for name in vectors if _scaling(network, set(vectors) - {name})[1] > tolerance]
        return Homogeneity(None, error, tuple(broken))


class _Scaled:
    """The network in float64 as a function of the scale of its parameters, some of them set to zero."""

    def __init__(self, model: nn.Module, names: Collection[str], x: Any) -> None:
        self.model = model
        self.names = names
        self.x = x
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.state = {name: t.double() if t.is_floating_point() else t.clone() for name, t in tensors.items()}

    def __call__(self, scale: float, zeroed: Collection[str]) -> Tensor:
        scaled = {name: self.state[name] * (0.0 if name in zeroed else scale) for name in self.names}
        return functional_call(self.model, {**self.state, **scaled}, (self.x,))


def _scaling(network: _Scaled, zeroed: Collection[str]) -> tuple[float, float]:
    """Give the degree and the largest relative deviation from it, with some parameters set to zero."""
    base = network(1.0, zeroed)
    scaled = [network(scale, zeroed) for scale in _SCALES]
    low, high = float(scaled[0].norm()), float(scaled[-1].norm())
    if not (0 < low < math.inf and 0 < high < math.inf):
        return 0.0, math.inf
    degree = math.log(high / low) / math.log(_SCALES[-1] / _SCALES[0])
    if abs(degree - round(degree)) < 1e-6:
        degree = float(round(degree))
    expected = [base * scale**degree for scale in _SCALES]
    errors = [float((s - e).norm() / e.norm()) for s, e in zip(scaled, expected, strict=True)]
    return degree, max(error if math.isfinite(error) else math.inf for error in errors)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.running_mean is not None
