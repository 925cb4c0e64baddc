"""Functions of few variables to fit: the two polynomials of the level-set experiments, and teacher networks."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .base import SplitDataModule
from .sampling import Split, sample_seed

__all__ = ["RegressionDataModule", "RegressionDataset"]

Function = Literal["quadratic", "cubic", "teacher"]
Sampling = Literal["midpoints", "uniform"]


class RegressionDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    r"""Samples (x, y, index) of a function.

    ``quadratic``: :math:`x^2/2 + x/4 + 1/10` and ``cubic``: :math:`8x^3 - 10x^2 + 3x`, both on [0, 1]
    (`Freeman & Bruna 2017 <https://arxiv.org/abs/1611.01540>`_); their best constants have mean absolute errors .187500
    and .158203. ``teacher``: :math:`\sum_j v_j \max(w_j \cdot x, 0)` with standard normal x, w_j and v_j / sqrt(units).

    Args:
        function: Which function.
        num_samples: Number of samples N, >= 1.
        split: The split; part of the seed of each sample.
        sampling: ``midpoints``: x_i = (i + 1/2) / N, the same in every split, so that a mean over samples is the
            midpoint rule of the integral; ``uniform``: x_i drawn on [0, 1] by (seed, split, i). A teacher's inputs are
            always drawn.
        inputs: Inputs of a teacher, >= 1.
        teacher_units: Hidden units of a teacher, >= 1.
        seed: Seed of samples and teacher.
    """

    def __init__(
        self,
        function: Function,
        num_samples: int,
        split: Split = "train",
        sampling: Sampling = "midpoints",
        inputs: int = 2,
        teacher_units: int = 4,
        seed: int = 0,
    ) -> None:
        self.function: Function = function
        self.num_samples = num_samples
        self.split: Split = split
        self.sampling: Sampling = sampling
        self.inputs = inputs if function == "teacher" else 1
        self.seed = seed
        rng = np.random.default_rng([seed, 1])
        self.hidden = rng.standard_normal((inputs, teacher_units))
        self.outer = rng.standard_normal((teacher_units, 1)) / teacher_units**0.5

    def __len__(self) -> int:
        return self.num_samples

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Make a batch: x (n, inputs) and y (n, 1) of torch's default type, and the samples' numbers (n,)."""
        x = self._inputs(indices)
        y = self._outputs(x)
        dtype = torch.get_default_dtype()
        return torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype), torch.tensor(indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Make one sample: x (inputs,), y (1,) and its number."""
        x, y, number = self.__getitems__([index])
        return x[0], y[0], number[0]

    def _inputs(self, indices: list[int]) -> np.ndarray:
        if self.function != "teacher" and self.sampling == "midpoints":
            return (np.array(indices)[:, None] + 0.5) / self.num_samples
        generators = [np.random.default_rng(sample_seed(self.seed, self.split, i)) for i in indices]
        if self.function == "teacher":
            return np.stack([generator.standard_normal(self.inputs) for generator in generators])
        return np.stack([generator.random(1) for generator in generators])

    def _outputs(self, x: np.ndarray) -> np.ndarray:
        match self.function:
            case "quadratic":
                return 0.5 * x**2 + 0.25 * x + 0.1
            case "cubic":
                return 8 * x**3 - 10 * x**2 + 3 * x
            case "teacher":
                return np.maximum(x @ self.hidden, 0) @ self.outer


class RegressionDataModule(SplitDataModule):
    """Serve samples of a function: batches (x, y, index), of any number of ranks exactly once in evaluation.

    Args:
        function: As in :class:`RegressionDataset`.
        num_samples: Samples of each split.
        sampling: As in :class:`RegressionDataset`.
        inputs: As in :class:`RegressionDataset`.
        teacher_units: As in :class:`RegressionDataset`.
        batch_size: Samples in a batch, of each process; 0 for all.
        seed: Seed of the samples, the teacher, and the training order.
        num_workers: Loader workers of each process.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        function: Function = "quadratic",
        num_samples: int = 200,
        sampling: Sampling = "midpoints",
        inputs: int = 2,
        teacher_units: int = 4,
        batch_size: int = 0,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.check_least(1, num_samples=num_samples, inputs=inputs, teacher_units=teacher_units)
        self.check_least(0, batch_size=batch_size)
        for name, value, allowed in (("function", function, Function), ("sampling", sampling, Sampling)):
            if value not in get_args(allowed):
                msg = f"RegressionDataModule({name}={value!r}): choose from {', '.join(get_args(allowed))}."
                raise ValueError(msg)
        super().__init__(batch_size or num_samples, seed, num_workers, collate_fn=_as_is)
        self.function: Function = function
        self.num_samples = num_samples
        self.sampling: Sampling = sampling
        self.inputs = inputs
        self.teacher_units = teacher_units

    def dataset(self, split: Split) -> RegressionDataset:
        """Give the samples of a split."""
        return RegressionDataset(
            self.function, self.num_samples, split, self.sampling, self.inputs, self.teacher_units, self.seed
        )


def _as_is(batch: Any) -> Any:
    """Pass on what the dataset has already put together."""
    return batch
