"""Small homogeneous ReLU networks, for many runs at once."""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from .predictors import Predictor, check_positive

__all__ = ["ReLUConvNetwork", "ReLUNetwork"]


class ReLUNetwork(Predictor):
    r"""A fully connected ReLU network with one output and a bias in the first layer only; degree L.

    .. math:: f(x) = W_L \, \sigma(W_{L-1} \cdots \sigma(W_1 x + b_1))

    A bias in a later layer would break homogeneity (`Lyu and Li 2020 <https://arxiv.org/abs/1906.05890>`_).

    Args:
        dimension: Size of the input.
        runs: Number of runs.
        depth: L, the number of weight matrices.
        width: Size of the hidden layers.
        init_std: Standard deviation of the random start, bias included.
    """

    def __init__(self, dimension: int, runs: int = 1, depth: int = 2, width: int = 20, init_std: float = 0.1) -> None:
        super().__init__(runs)
        check_positive("ReLUNetwork", dimension=dimension, depth=depth, width=width, init_std=init_std)
        self.degree = depth
        sizes = [dimension + 1, *[width] * (depth - 1), 1]  # the bias is the weight of an input that is 1
        self.layers = nn.ParameterList(
            init_std * torch.randn(runs, columns, rows, dtype=torch.float64)
            for columns, rows in itertools.pairwise(sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (R, N) for inputs (R, N, d)."""
        hidden = torch.cat([x, torch.ones_like(x[..., :1])], -1)
        for number, layer in enumerate(self.layers):
            hidden = torch.bmm(hidden.relu() if number else hidden, layer)
        return hidden.squeeze(-1)


class ReLUConvNetwork(Predictor):
    r"""A one-dimensional convolutional ReLU network with a bias in the first layer only; degree L.

    L - 1 circular convolutions, each with the ReLU, and one linear layer over all channels and positions.

    Args:
        dimension: Positions d of the input, of one channel.
        runs: Number of runs.
        depth: L, >= 2, the last layer included.
        channels: Channels of the hidden layers.
        kernel_size: Odd width of the filters, at most ``dimension``.
        init_std: Standard deviation of the random start, bias included.
    """

    def __init__(
        self,
        dimension: int,
        runs: int = 1,
        depth: int = 2,
        channels: int = 4,
        kernel_size: Literal[1, 3, 5, 7] = 3,
        init_std: float = 0.1,
    ) -> None:
        super().__init__(runs)
        check_positive("ReLUConvNetwork", dimension=dimension, channels=channels, init_std=init_std)
        if depth < 2:
            msg = f"ReLUConvNetwork(depth={depth}): must be at least 2, a convolution and the last layer."
            raise ValueError(msg)
        if kernel_size % 2 == 0 or not 0 < kernel_size <= dimension:
            msg = f"ReLUConvNetwork(kernel_size={kernel_size}): must be odd and at most the dimension {dimension}."
            raise ValueError(msg)
        self.degree, self._channels, self._padding = depth, channels, kernel_size // 2
        sizes = [1, *[channels] * (depth - 1)]
        self.filters = nn.ParameterList(
            init_std * torch.randn(runs, rows, columns, kernel_size, dtype=torch.float64)
            for columns, rows in itertools.pairwise(sizes)
        )
        self.bias = nn.Parameter(init_std * torch.randn(runs, channels, dtype=torch.float64))
        self.last = nn.Parameter(init_std * torch.randn(runs, channels * dimension, 1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (R, N) for inputs (R, N, d)."""
        runs, samples, positions = x.shape
        hidden = x.transpose(0, 1).unsqueeze(2)  # (N, R, channels, d): the runs are groups of one convolution
        for number, layer in enumerate(self.filters):
            padded = nn.functional.pad(hidden.flatten(1, 2), (self._padding, self._padding), mode="circular")
            hidden = nn.functional.conv1d(
                padded, layer.flatten(0, 1), self.bias.flatten() if number == 0 else None, groups=runs
            )
            hidden = hidden.relu().view(samples, runs, self._channels, positions)
        return torch.bmm(hidden.transpose(0, 1).flatten(2), self.last).squeeze(-1)
