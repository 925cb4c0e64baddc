r"""Homogeneous predictors that are linear in their input: maps from parameters to a rule beta, for many runs."""

import itertools
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = [
    "CircularConvolution",
    "Dense",
    "DiagonalProduct",
    "FullyConnected",
    "LinearPredictor",
    "MatrixFactorization",
    "PowerDifference",
    "Predictor",
    "check_positive",
    "spread",
]


class Predictor(nn.Module, ABC):
    r"""A predictor that is homogeneous in its parameters: :math:`f(c\theta; x) = c^L f(\theta; x)` for c > 0.

    Every parameter is (R, ...): R independent runs (seeds, step sizes, scales), trained side by side in float64.

    Attributes:
        degree: The L of the definition.
        runs: The number of runs R.
    """

    degree: int

    def __init__(self, runs: int) -> None:
        super().__init__()
        check_positive(type(self).__name__, runs=runs)
        self.runs = runs

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (R, N) for inputs (R, N, d)."""


class LinearPredictor(Predictor):
    r"""A predictor that is linear in its input: :math:`f(\theta; x) = \langle \beta(\theta), x \rangle`."""

    @abstractmethod
    def beta(self) -> Tensor:
        """Give the linear rule of each run, (R, d)."""

    def forward(self, x: Tensor) -> Tensor:
        """Give the outputs (R, N) for inputs (R, N, d)."""
        return torch.bmm(x, self.beta().unsqueeze(-1)).squeeze(-1)


class Dense(LinearPredictor):
    r"""The parameters are the rule, :math:`\beta = w`; degree 1.

    Args:
        dimension: Size of the input; that of the flattened matrix where ``columns`` is given.
        runs: Number of runs.
        init: Value of every weight at the start (0, or e.g. 1 / dimension on the simplex).
        init_std: Standard deviation of a random start around ``init``.
        columns: Give w as a matrix with so many columns (for the spectral norm); ``None`` for a vector.
    """

    degree = 1

    def __init__(
        self, dimension: int, runs: int = 1, init: float = 0.0, init_std: float = 0.0, columns: int | None = None
    ) -> None:
        super().__init__(runs)
        check_positive("Dense", dimension=dimension, columns=columns or 1)
        if columns is not None and dimension % columns:
            msg = f"Dense(columns={columns}): must divide the dimension {dimension}, rows times columns."
            raise ValueError(msg)
        shape = (runs, dimension) if columns is None else (runs, dimension // columns, columns)
        self.weight = nn.Parameter(init + init_std * torch.randn(shape, dtype=torch.float64))

    def beta(self) -> Tensor:
        """Give the weights, (R, d)."""
        return self.weight.flatten(1)


class PowerDifference(LinearPredictor):
    r"""A two-sided diagonal network, :math:`\beta = u^k - v^k` from :math:`u = v = \alpha`; degree k.

    From `"Kernel and Rich Regimes in Overparametrized Models" <https://arxiv.org/abs/2002.09277>`_: alpha interpolates
    between the l1 norm (0) and the l2 norm (infinity).

    Args:
        dimension: Size of the input.
        runs: Number of runs.
        depth: k, >= 1.
        alpha: Scale of the start, > 0, or a list of them for equal groups of consecutive runs.
    """

    def __init__(self, dimension: int, runs: int = 1, depth: int = 2, alpha: float | list[float] = 0.01) -> None:
        super().__init__(runs)
        check_positive("PowerDifference", dimension=dimension, depth=depth)
        self.degree = depth
        start = spread(alpha, runs, "PowerDifference", "alpha").view(-1, 1, 1).expand(-1, 2, dimension)
        self.weight = nn.Parameter(start.clone())

    def beta(self) -> Tensor:
        """Give the rule, (R, d)."""
        powers = self.weight.pow(self.degree)
        return powers[:, 0] - powers[:, 1]


class DiagonalProduct(LinearPredictor):
    r"""A diagonal linear network, :math:`\beta = w_1 \odot \cdots \odot w_L`; degree L.

    Args:
        dimension: Size of the input.
        runs: Number of runs.
        depth: L, >= 1.
        init_std: Standard deviation of a random start; ``None`` for :math:`w_1 = \alpha, w_2 = \dots = 0` (depth 2:
            signs stay free, which equal starts would fix).
        alpha: The scale of that start, > 0.
    """

    def __init__(
        self, dimension: int, runs: int = 1, depth: int = 2, init_std: float | None = 0.5, alpha: float = 1e-3
    ) -> None:
        super().__init__(runs)
        check_positive("DiagonalProduct", dimension=dimension, depth=depth, alpha=alpha)
        if init_std is not None:
            check_positive("DiagonalProduct", init_std=init_std)
        if init_std is None and depth > 2:
            msg = f"DiagonalProduct(depth={depth}, init_std=None): with two layers at 0 nothing moves; give init_std."
            raise ValueError(msg)
        self.degree = depth
        weight = torch.zeros(runs, depth, dimension, dtype=torch.float64)
        if init_std is None:
            weight[:, 0] = alpha
        else:
            weight.normal_(std=init_std)
        self.weight = nn.Parameter(weight)

    def beta(self) -> Tensor:
        """Give the rule, (R, d)."""
        rule = self.weight[:, 0]
        for layer in range(1, self.degree):
            rule = rule * self.weight[:, layer]
        return rule


class FullyConnected(LinearPredictor):
    r"""A deep linear network, :math:`\beta = (W_L \cdots W_1)^T` with one output; degree L.

    Args:
        dimension: Size of the input, and of the hidden layers where ``width`` is not given.
        runs: Number of runs.
        depth: L, the number of weight matrices.
        width: Size of the hidden layers.
        init_std: Standard deviation of the random start.
    """

    def __init__(
        self, dimension: int, runs: int = 1, depth: int = 2, width: int | None = None, init_std: float = 0.3
    ) -> None:
        super().__init__(runs)
        width = width or dimension
        check_positive("FullyConnected", dimension=dimension, depth=depth, width=width, init_std=init_std)
        self.degree = depth
        sizes = [dimension, *[width] * (depth - 1), 1]
        self.layers = nn.ParameterList(
            init_std * torch.randn(runs, rows, columns, dtype=torch.float64)
            for columns, rows in itertools.pairwise(sizes)
        )

    def beta(self) -> Tensor:
        """Give the rule, (R, d)."""
        product = self.layers[-1]
        for layer in reversed(list(self.layers)[:-1]):
            product = torch.bmm(product, layer)
        return product.squeeze(1)


class CircularConvolution(LinearPredictor):
    r"""A linear network of full-width circular convolutions and one linear layer; degree L.

    .. math:: \beta = d^{-(L-1)/2} \, w_1 \star \cdots \star w_L, \qquad
        \hat\beta = \hat w_1 \odot \cdots \odot \hat w_L

    with the unitary DFT, from `"Implicit Bias of Gradient Descent on Linear Convolutional Networks"
    <https://arxiv.org/abs/1806.00468>`_. There the layers correlate, which conjugates factors: a renaming of weights
    that leaves their norms, hence the bias, alone.

    Args:
        dimension: Size of the input.
        runs: Number of runs.
        depth: L, the last layer included.
        init_std: Standard deviation of the random start.
    """

    def __init__(self, dimension: int, runs: int = 1, depth: int = 2, init_std: float = 0.1) -> None:
        super().__init__(runs)
        check_positive("CircularConvolution", dimension=dimension, depth=depth, init_std=init_std)
        self.degree = depth
        self.weight = nn.Parameter(init_std * torch.randn(runs, depth, dimension, dtype=torch.float64))

    def beta(self) -> Tensor:
        """Give the rule, (R, d)."""
        spectra = torch.fft.rfft(self.weight, norm="ortho")
        product = spectra[:, 0]
        for layer in range(1, self.degree):
            product = product * spectra[:, layer]
        return torch.fft.irfft(product, n=self.weight.shape[-1], norm="ortho")


class MatrixFactorization(LinearPredictor):
    r"""A factored matrix, :math:`W = U U^T` or :math:`W = U V^T`, as the rule; degree 2.

    The rule is W flattened. The start is a times the identity (padded with zeros), as in `"Implicit Regularization in
    Matrix Factorization" <https://arxiv.org/abs/1705.09280>`_, or Gaussian.

    Args:
        size: Rows and columns n of W.
        runs: Number of runs.
        rank: Columns of the factors; by default n, no constraint.
        symmetric: Whether V is U.
        scale: a > 0, of the start.
        random_start: Draw the factors' entries from N(0, a^2) instead.
    """

    degree = 2

    def __init__(
        self,
        size: int,
        runs: int = 1,
        rank: int | None = None,
        symmetric: bool = True,
        scale: float = 1e-3,
        random_start: bool = False,
    ) -> None:
        super().__init__(runs)
        rank = rank or size
        check_positive("MatrixFactorization", size=size, rank=rank, scale=scale)
        shape = (runs, 1 if symmetric else 2, size, rank)
        start = torch.randn(shape, dtype=torch.float64) if random_start else torch.eye(size, rank, dtype=torch.float64)
        self.factors = nn.Parameter(scale * start.expand(shape).clone())

    def beta(self) -> Tensor:
        """Give W flattened by rows, (R, n n)."""
        return torch.bmm(self.factors[:, 0], self.factors[:, -1].transpose(1, 2)).flatten(1)


def spread(values: float | list[float], runs: int, name: str, argument: str) -> Tensor:
    """Deal one or several values to equal groups of consecutive runs, (R,) float64.

    Raises:
        ValueError: If a value is not positive, or their number does not divide ``runs``.
    """
    given = [values] if isinstance(values, (int, float)) else list(values)
    if not given or runs % len(given) or not all(value > 0 for value in given):
        msg = f"{name}({argument}={values}): give one positive value, or a list whose length divides the {runs} runs."
        raise ValueError(msg)
    return torch.tensor(given, dtype=torch.float64).repeat_interleave(runs // len(given))


def check_positive(name: str, **arguments: float) -> None:
    """Refuse arguments that are not positive, by name."""
    for argument, value in arguments.items():
        if not value > 0:
            msg = f"{name}({argument}={value}): must be positive."
            raise ValueError(msg)
