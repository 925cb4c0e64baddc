"""Small problems with many solutions: separable classification, underdetermined regression, matrix sensing."""

from abc import abstractmethod
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from ..modules.bias import Problems
from .base import SplitDataModule
from .sampling import Split, sample_seed

__all__ = ["MatrixSensingDataModule", "SeparableDataModule", "UnderdeterminedDataModule"]

#: GLSS18 (arXiv:1802.08246), figure 1: two equations, whose printed second label stands for its input.
_GLSS18 = (np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]]), np.array([1.0, 10.0]))
#: Razin and Cohen 2020 (arXiv:2005.06398): W12 = W21 = 1 and W22 = 0 are seen, W11 is free.
_COMPLETION = (np.eye(4)[[1, 2, 3]], np.array([1.0, 1.0, 0.0]))


class ProblemDataModule(SplitDataModule):
    """Serve all problems as one batch: the training set is the object, so every split has the same problems.

    Problem i is a pure function of (seed, i). ``repeats`` copies of the problems follow one another, for as many step
    sizes or scales: run r is problem ``r % problems``.

    Args:
        problems: Number of different problems.
        repeats: How often each is served.
        seed: Seed of the problems.
        data_dir: Folder in which measurements keep the solutions of these problems that they compare with, for later
            runs; ``None`` to solve in every run.

    Raises:
        ValueError: If an argument is out of range.
    """

    num_classes = 2

    def __init__(self, problems: int, repeats: int, seed: int, data_dir: str | None) -> None:
        self.check_least(1, problems=problems, repeats=repeats)
        super().__init__(problems * repeats, seed, collate_fn=_stack)
        self.problems = problems
        self.repeats = repeats
        self.data_dir = data_dir

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw one problem: inputs (N, d) and targets (N,)."""

    def dataset(self, split: Split) -> Dataset[Any]:
        """Give the problems, the same for every split."""
        del split
        return _ProblemSet(self)


class _ProblemSet(Dataset[Any]):
    def __init__(self, module: ProblemDataModule) -> None:
        self._module = module

    def __len__(self) -> int:
        return self._module.problems * self._module.repeats

    def __getitem__(self, run: int) -> tuple[int, int, np.ndarray, np.ndarray]:
        problem = run % self._module.problems
        rng = np.random.default_rng(sample_seed(self._module.seed, "train", problem))
        return run, problem, *self._module.draw(rng)


def _stack(samples: list[tuple[int, int, np.ndarray, np.ndarray]]) -> Problems:
    """Put the runs in their order, that of the parameters, whatever order the sampler has."""
    _, problems, x, y = zip(*sorted(samples, key=lambda sample: sample[0]), strict=True)
    return Problems(torch.from_numpy(np.stack(x)), torch.from_numpy(np.stack(y)), torch.tensor(problems))


class SeparableDataModule(ProblemDataModule):
    r"""Points that a linear rule without intercept separates, by construction.

    A teacher w; Gaussian x; labels sign(<w, x>); then every point is moved by ``shift`` away from the teacher's
    boundary. ``waves`` takes as teacher a cosine of a low frequency with a random phase, sparse in the Fourier domain.

    Args:
        num_samples: N.
        dimension: d.
        shift: Added margin, in the unit of the inputs.
        teacher: ``gaussian`` or ``waves`` (two periods).
        normalize: Divide the inputs of each problem by the largest dual norm of a sample (``l2``; ``linf`` for the
            largest entry; ``l1``; ``nuclear`` of square matrices), or by the ``spectral`` norm of the whole data
            matrix, so that a step size of 1 (4 for the logistic loss and ``spectral``) is that of theory.
        problems: Number of different problems.
        repeats: How often each is served.
        seed: Seed of the problems.
        data_dir: Folder in which measurements keep the solutions of these problems that they compare with, for later
            runs; ``None`` to solve in every run.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> batch = next(iter(SeparableDataModule(problems=3).train_dataloader()))
        >>> batch.x.shape, bool((batch.y.abs() == 1).all())
        (torch.Size([3, 20, 8]), True)
    """

    def __init__(
        self,
        num_samples: int = 20,
        dimension: int = 8,
        shift: float = 0.3,
        teacher: Literal["gaussian", "waves"] = "gaussian",
        normalize: Literal["none", "l1", "l2", "linf", "nuclear", "spectral"] = "none",
        problems: int = 5,
        repeats: int = 1,
        seed: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__(problems, repeats, seed, data_dir)
        self.check_least(1, num_samples=num_samples, dimension=dimension)
        if not shift > 0:
            msg = f"SeparableDataModule(shift={shift}): must be > 0, else points may lie on the boundary."
            raise ValueError(msg)
        if normalize == "nuclear" and round(dimension**0.5) ** 2 != dimension:
            msg = f"SeparableDataModule(normalize='nuclear'): inputs of dimension {dimension} are no square matrices."
            raise ValueError(msg)
        self.num_samples = num_samples
        self.dimension = dimension
        self.shift = shift
        self.teacher = teacher
        self.normalize = normalize

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw one problem: inputs (N, d) and labels -1 and 1, (N,)."""
        d = self.dimension
        if self.teacher == "gaussian":
            w = rng.standard_normal(d)
        else:
            w = np.cos(2 * np.pi * (2 * np.arange(d) / d + rng.random()))
        w /= np.linalg.norm(w)
        x = rng.standard_normal((self.num_samples, d))
        y = np.where(x @ w >= 0, 1.0, -1.0)
        x += self.shift * np.outer(y, w)
        return x / self._size(x), y

    def _size(self, x: np.ndarray) -> float:
        match self.normalize:
            case "none":
                return 1.0
            case "spectral":
                return float(np.linalg.norm(x, 2))
            case "nuclear":
                side = round(x.shape[1] ** 0.5)
                return float(np.linalg.norm(x.reshape(-1, side, side), "nuc", axis=(1, 2)).max())
            case norm:
                order = {"l1": 1, "l2": 2, "linf": np.inf}[norm]
                return float(np.linalg.norm(x, order, axis=1).max())


class UnderdeterminedDataModule(ProblemDataModule):
    r"""Linear equations Xw = y with fewer equations than unknowns.

    Args:
        num_samples: N, below the dimension.
        dimension: d.
        target: ``sparse``: y = X(e1 + e2); ``positive`` and ``simplex``: y = Xw of a random w that is positive, or on
            the simplex too; ``glss18``: the two equations of `GLSS18 <https://arxiv.org/abs/1802.08246>`_, figure 1,
            with d = 3.
        normalize: ``spectral`` divides X by its spectral norm, before y is computed, so that steps up to 2 converge.
        problems: Number of different problems.
        repeats: How often each is served.
        seed: Seed of the problems.
        data_dir: Folder in which measurements keep the solutions of these problems that they compare with, for later
            runs; ``None`` to solve in every run.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_samples: int = 6,
        dimension: int = 20,
        target: Literal["sparse", "positive", "simplex", "glss18"] = "sparse",
        normalize: Literal["none", "spectral"] = "none",
        problems: int = 5,
        repeats: int = 1,
        seed: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__(problems, repeats, seed, data_dir)
        self.check_least(1, num_samples=num_samples)
        if num_samples >= dimension:
            msg = f"UnderdeterminedDataModule(dimension={dimension}): must be above num_samples={num_samples}."
            raise ValueError(msg)
        self.num_samples = num_samples
        self.dimension = dimension
        self.target = target
        self.normalize = normalize

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw one problem: X (N, d) and y (N,)."""
        if self.target == "glss18":
            return _GLSS18
        x = rng.standard_normal((self.num_samples, self.dimension))
        if self.normalize == "spectral":
            x /= np.linalg.norm(x, 2)
        w = rng.exponential(size=self.dimension)
        if self.target == "simplex":
            w /= w.sum()
        elif self.target == "sparse":
            w = (np.arange(self.dimension) < 2).astype(float)
        return x, x @ w


class MatrixSensingDataModule(ProblemDataModule):
    r"""Linear measurements :math:`y_i = \langle A_i, W^* \rangle` of a positive semidefinite matrix of low rank.

    Args:
        num_samples: m.
        size: Rows and columns n.
        rank: Of W*, which is scaled to the spectral norm 1.
        measurements: ``gaussian``: symmetric Gaussian; ``completion``: the entries W12 = W21 = 1 and W22 = 0 of a 2 x 2
            matrix, where no norm is minimised (`Razin and Cohen 2020 <https://arxiv.org/abs/2005.06398>`_).
        problems: Number of different problems.
        repeats: How often each is served.
        seed: Seed of the problems.
        data_dir: Folder in which measurements keep the solutions of these problems that they compare with, for later
            runs; ``None`` to solve in every run.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        num_samples: int = 14,
        size: int = 8,
        rank: int = 1,
        measurements: Literal["gaussian", "completion"] = "gaussian",
        problems: int = 5,
        repeats: int = 1,
        seed: int = 0,
        data_dir: str | None = None,
    ) -> None:
        super().__init__(problems, repeats, seed, data_dir)
        self.check_least(1, num_samples=num_samples, size=size, rank=rank)
        self.num_samples = num_samples
        self.size = size
        self.rank = rank
        self.measurements = measurements

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw one problem: the A_i flattened, (m, n n), and y (m,)."""
        if self.measurements == "completion":
            return _COMPLETION
        a = rng.standard_normal((self.num_samples, self.size, self.size))
        a = (a + a.transpose(0, 2, 1)) / 2
        factor = rng.standard_normal((self.size, self.rank))
        target = factor @ factor.T / np.linalg.norm(factor, 2) ** 2
        return a.reshape(self.num_samples, -1), (a * target).sum((1, 2))
