r"""The largest margin that a linear rule can have in a norm, by convex programming on the dual; float64."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .references import dual_of, norm_of, solved

__all__ = ["MarginNorm", "max_margin"]

MarginNorm = Literal["l1", "l2", "linf", "lp", "dft_l1", "spectral"]
#: A margin below this share of the largest entry counts as none.
_TOLERANCE = 1e-7


def max_margin(z: Tensor, norm: MarginNorm = "l2", p: float = 2.0) -> tuple[Tensor, Tensor]:
    r"""Give the largest margin of signed data in a norm, and weights that show it.

    .. math:: \gamma^* = \max_{\|w\| \le 1} \min_n \langle z_n, w \rangle = \min_{p \in \Delta} \|Z^T p\|_*

    l1 and linf by linear programming, l2 by non-negative least squares (no intercept), the others by the dual. The
    margin given is the value of the dual at the weights given, which no rule exceeds.

    Args:
        z: Rows :math:`y_n x_n`, (N, d).
        norm: Of the rule.
        p: Exponent of ``lp``, > 1.

    Returns:
        gamma, a scalar in the unit of the data; and the dual weights, (N,), on the simplex.

    Raises:
        ValueError: If the data are not separable by a rule without intercept.
    """
    weights = {"l1": _dual_lp, "linf": _dual_lp, "l2": _dual_nnls}.get(norm, _dual_slsqp)(z, norm, p)
    gamma = norm_of(weights @ z, *dual_of(norm, p))
    if not float(gamma) > _TOLERANCE * float(z.abs().max()):
        msg = "max_margin: the data are not separable by a linear rule without intercept (the largest margin is 0)."
        raise ValueError(msg)
    return gamma, weights


def _dual_lp(z: Tensor, norm: str, p: float) -> Tensor:
    """Minimise max |Z^T p| or sum |Z^T p| over the simplex."""
    from scipy.optimize import linprog

    del p
    n, d = z.shape
    bounds = 1 if norm == "l1" else d
    slack = np.ones((d, 1)) if norm == "l1" else np.eye(d)
    rows = np.vstack([np.hstack([z.T.numpy(), -slack]), np.hstack([-z.T.numpy(), -slack])])
    cost, equal = np.r_[np.zeros(n), np.ones(bounds)], np.r_[np.ones(n), np.zeros(bounds)]
    result = linprog(cost, A_ub=rows, b_ub=np.zeros(2 * d), A_eq=equal[None], b_eq=[1.0], method="highs")
    return _to_simplex(solved(result, "max_margin: the linear program failed")[:n])


def _dual_nnls(z: Tensor, norm: str, p: float) -> Tensor:
    """Minimise |Z^T p|_2 over the simplex, by Lawson and Hanson's distance program."""
    from scipy.optimize import nnls

    del norm, p
    n, d = z.shape
    solution, _ = nnls(np.vstack([z.T.numpy(), np.ones((1, n))]), np.r_[np.zeros(d), 1.0], maxiter=100 * n)
    return _to_simplex(solution)


def _dual_slsqp(z: Tensor, norm: str, p: float) -> Tensor:
    """Minimise a dual norm of Z^T p over the simplex; the largest frequency by a bound of its own."""
    from scipy.optimize import minimize

    n = len(z)
    spectrum = torch.fft.rfft(z, norm="ortho").numpy()
    scale = float(norm_of(z.mean(0), *dual_of(norm, p)))

    def value(q: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(q).requires_grad_()
        dual = norm_of(weights @ z, *dual_of(norm, p)) / scale
        (slope,) = torch.autograd.grad(dual, weights)
        return float(dual.detach()), slope.numpy()

    simplex = {"type": "eq", "fun": lambda q: q[:n].sum() - 1, "jac": lambda q: np.r_[np.ones(n), np.zeros(len(q) - n)]}
    start, options = np.full(n, 1 / n), {"maxiter": 2000, "ftol": 1e-15}
    if norm != "dft_l1":
        result = minimize(value, start, jac=True, bounds=[(0, 1)] * n, constraints=[simplex], options=options)
        return _to_simplex(result.x)

    def room(q: np.ndarray) -> np.ndarray:
        return q[n] ** 2 - np.abs(q[:n] @ spectrum / scale) ** 2

    def slope(q: np.ndarray) -> np.ndarray:
        mean = q[:n] @ spectrum / scale**2
        return np.hstack([-2 * (mean.conj()[:, None] * spectrum.T).real, np.full((len(mean), 1), 2 * q[n])])

    below = {"type": "ineq", "fun": room, "jac": slope}
    result = minimize(
        lambda q: q[n], np.r_[start, 1.0], jac=lambda _: np.r_[np.zeros(n), 1.0], options=options,
        bounds=[(0, 1)] * n + [(0, None)], constraints=[simplex, below],
    )  # fmt: skip
    return _to_simplex(result.x[:n])


def _to_simplex(weights: np.ndarray) -> Tensor:
    positive = np.clip(weights, 0, None)
    return torch.from_numpy(positive / positive.sum())
