"""Margins over the Lipschitz constant that the layers' norms allow."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..attacks import evaluation_mode

__all__ = ["row_norm_sum", "spectral_complexity", "spectral_norm", "spectrally_normalized_margin"]


def spectrally_normalized_margin(margin: Tensor, log_complexity: float, input_norm: float, num_samples: int) -> Tensor:
    r"""Give :math:`\frac{m}{R_A \|X\|_F / n}`, the margin of `Bartlett, Foster and Telgarsky 2017
    <https://arxiv.org/abs/1706.08498>`_, whose distribution is comparable between networks and data sets.

    Args:
        margin: Output margins, any shape.
        log_complexity: log R_A, see :func:`spectral_complexity`.
        input_norm: Frobenius norm of the inputs of all n samples.
        num_samples: n.

    Returns:
        The same shape, without unit.
    """  # noqa: D205  # the formula is the summary
    return margin * math.exp(math.log(num_samples) - log_complexity - math.log(input_norm))


def spectral_complexity(model: nn.Module, x: Tensor, reference: Mapping[str, Tensor] | None = None) -> float:
    r"""Give the logarithm of the spectral complexity of a chain of linear layers and 1-Lipschitz activations.

    .. math::
        R_A = \Big(\prod_i \|A_i\|_2\Big)
        \Big(\sum_i \big(\|A_i^\top - M_i^\top\|_{2,1} / \|A_i\|_2\big)^{2/3}\Big)^{3/2}

    with the spectral norm and, of :math:`A^\top`, the sum of the row norms of A. A convolution is the linear operator
    it is on inputs of its size, with its stride and padding. From `Bartlett, Foster and Telgarsky 2017
    <https://arxiv.org/abs/1706.08498>`_. Biases do not enter. Layers that are not one after the other (residual
    networks) give a number, but not that of the theorem.

    Args:
        model: Its only parameters are those of ``nn.Linear`` and ``nn.Conv*d`` layers, each used once.
        x: A sample or more, (N, ...); only sizes matter.
        reference: M, weights by the name of the layer's parameter, e.g. those at the start; by default zero.

    Returns:
        log R_A.

    Raises:
        ValueError: If the model has other parameters, or a layer is not used, or a layer's weights are zero.
    """
    layers = _layers(model)
    log_norms, terms = [], []
    with torch.inference_mode(False), torch.no_grad(), evaluation_mode(model):
        with _input_shapes(layers) as shapes:
            model(x[:1].clone())
        for name, layer in layers.items():
            if name not in shapes:
                msg = f"spectral_complexity: the layer {name!r} is not used by forward; give the part that is."
                raise ValueError(msg)
            shift = None if reference is None else reference[f"{name}.weight"]
            norm = spectral_norm(layer, shapes[name])
            if not norm > 0:
                msg = f"spectral_complexity: the weights of the layer {name!r} are all zero."
                raise ValueError(msg)
            log_norms.append(math.log(norm))
            terms.append((row_norm_sum(layer, shapes[name], shift) / norm) ** (2 / 3))
    return sum(log_norms) + 1.5 * math.log(sum(terms)) if sum(terms) > 0 else -math.inf


def spectral_norm(
    layer: nn.Linear | _ConvNd, shape: torch.Size, tolerance: float = 1e-5, max_steps: int = 2000
) -> float:
    """Give the largest singular value of a linear layer or convolution, as an operator on inputs of a size.

    Exact for ``nn.Linear``. For a convolution by power iteration on the operator and its transpose, until the value
    rises by less than ``tolerance`` of itself in ten steps; never above the true one.

    Args:
        layer: ``nn.Linear`` or ``nn.Conv*d``; the bias is left out.
        shape: Of one input, without the batch.
        tolerance: Relative rise at which to stop.
        max_steps: Of the iteration.
    """
    if isinstance(layer, nn.Linear):
        return float(torch.linalg.matrix_norm(layer.weight.detach().double(), 2))
    apply = _operator(layer, layer.weight.detach().double())
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *shape, generator=generator, dtype=torch.float64).to(layer.weight.device)
    value = before = 0.0
    for step in range(max_steps):
        x = x / x.norm()
        with torch.enable_grad():
            leaf = x.requires_grad_()
            y = apply(leaf)
            x = torch.autograd.grad(y, leaf, y.detach())[0]
        value = float(y.detach().norm())
        if not value > 0 or not float(x.norm()) > 0:
            return value
        if step % 10 == 9:
            if value - before <= tolerance * value:
                break
            before = value
    return value


def row_norm_sum(layer: nn.Linear | _ConvNd, shape: torch.Size, reference: Tensor | None = None) -> float:
    r"""Give :math:`\|A^\top - M^\top\|_{2,1}`, the sum of the l2 norms of the operator's rows, one an output entry.

    A row of a convolution holds the filter's taps that fall inside of the input, so the squared norms are the
    convolution of ones with the squared weights.
    """
    weight = layer.weight.detach().double()
    if reference is not None:
        weight = weight - reference.detach().to(weight)
    if isinstance(layer, nn.Linear):
        return float(weight.norm(dim=1).sum())
    squares = _operator(layer, weight.square())(torch.ones(1, *shape, dtype=weight.dtype, device=weight.device))
    return float(squares.clamp_min(0).sqrt().sum())


def _operator(layer: _ConvNd, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Give the convolution with these weights, without bias."""
    convolve = getattr(functional, f"conv{weight.ndim - 2}d")
    circular = layer.padding_mode == "circular"

    def apply(x: Tensor) -> Tensor:
        padding = layer.padding
        if circular:
            x = functional.pad(x, layer._reversed_padding_repeated_twice, mode="circular")
            padding = 0
        return convolve(x, weight, None, layer.stride, padding, layer.dilation, layer.groups)

    return apply


def _layers(model: nn.Module) -> dict[str, nn.Linear | _ConvNd]:
    """Give the linear layers and convolutions by name; refuse a model that has other parameters."""
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | _ConvNd)}
    own = {id(p) for layer in layers.values() for p in layer.parameters()}
    others = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in own]
    odd = [n for n, m in layers.items() if isinstance(m, _ConvTransposeNd) or _padding(m) not in ("zeros", "circular")]
    if others or odd or not layers:
        cause = f"it has {(others or odd)[0]!r}" if others or odd else "it has none"
        msg = (
            "spectral_complexity: the model's parameters must be those of Linear and Conv layers with zero or "
            f"circular padding, but {cause}; leave the spectral margin out for this model."
        )
        raise ValueError(msg)
    return layers


def _padding(layer: nn.Module) -> str:
    return layer.padding_mode if isinstance(layer, _ConvNd) else "zeros"


@contextmanager
def _input_shapes(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Size]]:
    """Note the shape of one input of each layer that is called."""
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del module, output
            shapes[name] = inputs[0].shape[1:]

        return hook

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()
