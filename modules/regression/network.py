"""Fully connected networks of any widths."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

__all__ = ["Activation", "FeedForward"]

Activation = Literal["sigmoid", "relu", "square", "linear"]
Initial = Literal["uniform", "torch"]


class FeedForward(nn.Module):
    r"""A fully connected network :math:`x \mapsto \rho_{out}(W_K\,\rho(W_{K-1} \cdots \rho(W_1 x)))`.

    The two networks of `Freeman & Bruna 2017 <https://arxiv.org/abs/1611.01540>`_, figure 1, as their code has them:
    ``widths=[1, 4, 4, 1], initial="uniform"`` with ``output="sigmoid", bias=False`` for the quadratic and
    ``output="linear", bias=True`` for the cubic.

    Args:
        widths: Inputs, hidden units of each layer, outputs; at least two numbers >= 1.
        activation: After every layer but the last; ``square`` is z^2.
        output: After the last layer.
        bias: Layers have biases.
        initial: ``uniform``: weights uniform on (-1, 1), biases standard normal, as in the paper's code; or that of
            ``torch``.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        widths: Sequence[int] = (1, 4, 4, 1),
        activation: Activation = "sigmoid",
        output: Activation = "linear",
        bias: bool = True,
        initial: Initial = "torch",
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            msg = (
                f"FeedForward(widths={list(widths)}): give inputs, hidden units, outputs, each >= 1, e.g. [1, 4, 4, 1]."
            )
            raise ValueError(msg)
        for name, value, allowed in (
            ("activation", activation, get_args(Activation)),
            ("output", output, get_args(Activation)),
            ("initial", initial, get_args(Initial)),
        ):
            if value not in allowed:
                msg = f"FeedForward({name}={value!r}): choose from {', '.join(allowed)}."
                raise ValueError(msg)
        self.activation: Activation = activation
        self.output: Activation = output
        self.initial: Initial = initial
        self.layers = nn.ModuleList(_OnColumns(inputs, outputs, bias=bias) for inputs, outputs in pairwise(widths))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new initial parameters from torch's generator."""
        for layer in self.layers:
            if self.initial == "torch":
                assert isinstance(layer, nn.Linear)
                layer.reset_parameters()
                continue
            for parameter in layer.parameters():
                parameter.uniform_(-1, 1) if parameter.ndim > 1 else parameter.normal_()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (N, inputs) to outputs (N, outputs)."""
        x = x.T
        for layer in self.layers[:-1]:
            x = _apply(self.activation, layer(x))
        return _apply(self.output, self.layers[-1](x)).T


class _OnColumns(nn.Linear):
    """A linear layer on samples in columns, (inputs, N) to (outputs, N).

    Few units on many samples are multiplied several times faster so, above all for many networks at once by
    ``torch.func.vmap``: the long axis is innermost.
    """

    def forward(self, input: Tensor) -> Tensor:
        product = self.weight @ input
        return product if self.bias is None else product + self.bias[:, None]


def _apply(activation: Activation, x: Tensor) -> Tensor:
    match activation:
        case "sigmoid":
            return x.sigmoid()
        case "relu":
            return x.relu()
        case "square":
            return x.square()
        case "linear":
            return x
