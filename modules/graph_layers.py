"""The layers that the graph networks of community detection and of graph matching share."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .graph_operators import Segments, half_relu_normalize


class HalfLinear(nn.Module):
    """Two-halves activation and per-graph normalisation: ReLU on the first half of the columns, nothing on the rest.

    The linear half lets a stack of layers do exact power iteration; the normalisation removes the constant vector and
    keeps the scale.

    Args:
        width: Number of features d, even.
        linear: Leave out the ReLU of the first half too (the paper's "LGNN linear").
    """

    def __init__(self, width: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, z: Tensor, segments: Segments) -> Tensor:
        """Activate and normalise features (M, d) within each segment."""
        rectified = 0 if self.linear else z.shape[1] // 2
        return half_relu_normalize(z, self.weight, self.bias, segments, rectified)


def mix_terms(terms: list[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``cat(terms) @ weight.t() + bias``; in inference without the copy, the slowest part on a large graph."""
    if torch.is_grad_enabled():
        return F.linear(torch.cat(terms, dim=1), weight, bias)
    first, *others = zip(terms, weight.split([term.shape[1] for term in terms], dim=1), strict=True)
    result = F.linear(*first, bias)
    for term, part in others:
        result.addmm_(term.to(result.dtype), part.t().to(result.dtype))  # autocast leaves methods in place alone
    return result


class NodeOperators(Protocol):
    """The operators of a batch of graphs with N nodes in all that a layer sums over."""

    degree: Tensor
    """Degree of every node, (N, 1)."""

    def adjacency_powers(self, x: Tensor) -> list[Tensor]:
        """Compute A_0 x .. A_{J-1} x for node features x, (N, d) each."""
        ...


class NodeLayer(nn.Module):
    """One sum over the node operators I, D, A_0 .. A_{J-1}, and over further terms that the caller computed.

    Args:
        in_features: Node features d.
        out_features: Features d' of the result.
        power: J.
        extra_features: Columns of the further terms together.
    """

    def __init__(self, in_features: int, out_features: int, power: int, extra_features: int = 0) -> None:
        super().__init__()
        self.mix = nn.Linear((2 + power) * in_features + extra_features, out_features)

    def forward(self, operators: NodeOperators, x: Tensor, *extra: Tensor) -> Tensor:
        """Mix the terms. x: (N, d); each further term (N, any). Gives (N, d')."""
        terms = [x, operators.degree * x, *operators.adjacency_powers(x), *extra]
        return mix_terms(terms, self.mix.weight, self.mix.bias)
