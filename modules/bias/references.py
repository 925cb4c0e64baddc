r"""The solutions that theory predicts, computed by convex solvers; NumPy and SciPy, float64, one problem at a time."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "bregman_projection",
    "depth_map",
    "dual_of",
    "min_l1",
    "min_l2",
    "min_linf",
    "min_nuclear",
    "norm_of",
    "solved",
]


def norm_of(beta: Tensor, norm: str, p: float = 2.0) -> Tensor:
    r"""Give a norm of rules, over the last axis.

    Args:
        beta: (..., d); for ``spectral`` and ``nuclear`` a square matrix, flattened.
        norm: ``l1``, ``l2``, ``linf``, ``lp`` (with ``p``), ``dft_l1`` and ``dft_linf`` (of the unitary DFT),
            ``spectral`` or ``nuclear``.
        p: Exponent of ``lp``, >= 1.

    Returns:
        (...).
    """
    match norm:
        case "dft_l1" | "dft_linf":
            return torch.fft.fft(beta, norm="ortho").abs().norm(p=1.0 if norm == "dft_l1" else torch.inf, dim=-1)
        case "spectral" | "nuclear":
            side = round(beta.shape[-1] ** 0.5)
            values = torch.linalg.svdvals(beta.unflatten(-1, (side, side)))
            return values.amax(-1) if norm == "spectral" else values.sum(-1)
        case _:
            exponent = {"l1": 1.0, "l2": 2.0, "linf": torch.inf}.get(norm, p)
            return torch.linalg.vector_norm(beta, exponent, dim=-1)


def dual_of(norm: str, p: float = 2.0) -> tuple[str, float]:
    """Name the dual norm and its exponent, for :func:`norm_of`."""
    if norm == "lp":
        return "lp", p / (p - 1)
    return {"l1": "linf", "linf": "l1", "l2": "l2", "dft_l1": "dft_linf", "spectral": "nuclear"}[norm], 2.0


def min_l2(x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    r"""Give the point of :math:`\{w : Xw = y\}` nearest to the start, :math:`w_0 + X^+(y - X w_0)`.

    Args:
        x: (N, d).
        y: (N,).
        start: w0, (d,).
    """
    return start + torch.linalg.pinv(x) @ (y - x @ start)


def min_l1(x: Tensor, y: Tensor, *, nonnegative: bool = False) -> Tensor:
    """Solve min ||w||_1 subject to Xw = y by linear programming (HiGHS); ``nonnegative`` asks w >= 0 too.

    Raises:
        ValueError: If there is no solution.
    """
    from scipy.optimize import linprog

    d = x.shape[1]
    matrix = x.numpy() if nonnegative else np.hstack([x.numpy(), -x.numpy()])
    result = linprog(np.ones(matrix.shape[1]), A_eq=matrix, b_eq=y.numpy(), method="highs")
    solution = solved(result, "min_l1: Xw = y has no solution")
    return torch.from_numpy(solution if nonnegative else solution[:d] - solution[d:])


def min_linf(x: Tensor, y: Tensor) -> Tensor:
    """Solve min ||w||_inf subject to Xw = y by linear programming (HiGHS).

    Raises:
        ValueError: If there is no solution.
    """
    from scipy.optimize import linprog

    n, d = x.shape
    ones = np.ones((d, 1))
    bounds = np.vstack([np.hstack([np.eye(d), -ones]), np.hstack([-np.eye(d), -ones])])
    equal = np.hstack([x.numpy(), np.zeros((n, 1))])
    cost = np.zeros(d + 1)
    cost[-1] = 1
    free = [(None, None)] * d + [(0, None)]
    result = linprog(cost, A_ub=bounds, b_ub=np.zeros(2 * d), A_eq=equal, b_eq=y.numpy(), bounds=free, method="highs")
    return torch.from_numpy(solved(result, "min_linf: Xw = y has no solution")[:d])


def bregman_projection(
    x: Tensor, y: Tensor, inverse: Callable[[Tensor], Tensor], start: Tensor, iterations: int = 200
) -> Tensor:
    r"""Solve :math:`\min_{Xw = y} D_\psi(w, w_0)` by Newton's method in the dual.

    The solution is :math:`w = (\nabla\psi)^{-1}(\nabla\psi(w_0) + X^T\nu)` with the one :math:`\nu` of
    :math:`Xw = y`; a step is halved until it does not overshoot in the convex dual.

    Args:
        x: (N, d), of rank N.
        y: (N,).
        inverse: :math:`(\nabla\psi)^{-1}`, elementwise and increasing; NaN or infinite outside of its domain.
        start: The dual start :math:`\nabla\psi(w_0)`, (d,).
        iterations: Most Newton steps.

    Returns:
        w, (d,).

    Raises:
        ValueError: If the residual does not fall to 1e-9 of the targets: there may be no solution in the domain.
    """
    scale = float(y.abs().max()) or 1.0

    def residual(nu: Tensor) -> tuple[Tensor, Tensor]:
        dual = (start + nu @ x).requires_grad_()
        weights = inverse(dual)
        (slope,) = torch.autograd.grad(weights.sum(), dual)
        return x @ weights.detach() - y, slope.nan_to_num(posinf=1e12).clamp(1e-300, 1e12)

    direction = torch.linalg.solve(x @ x.T, y)
    starts = [length * direction for length in (1e-3, 1e-2, 0.1, 1.0, 10.0)]
    nu = min(starts, key=lambda nu: float(residual(nu)[0].norm().nan_to_num(torch.inf)))
    error, slope = residual(nu)
    for _ in range(iterations):
        if float(error.norm()) <= 1e-11 * scale:
            break
        matrix = (x * slope) @ x.T
        # a ridge keeps the step finite where almost all weights are still 0; it is too small to matter at the solution
        step = torch.linalg.solve(matrix + 1e-15 * matrix.diagonal().max() * torch.eye(len(y), dtype=x.dtype), error)
        nu, error, slope = _search(residual, nu, step, float(step @ error))
    size = float(error.norm())
    if not size <= 1e-9 * scale:
        msg = f"bregman_projection: the residual stays at {size:.1e}; is there a solution of Xw = y in the domain?"
        raise ValueError(msg)
    return inverse(start + nu @ x)


def _search(
    residual: Callable[[Tensor], tuple[Tensor, Tensor]], nu: Tensor, step: Tensor, descent: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Halve a Newton step while it overshoots: the slope of the convex dual rises along it from -descent."""
    length = 1.0
    tried = residual(nu - step)
    for _ in range(80):
        rise = -float(step @ tried[0])
        if rise <= 0.5 * descent:  # false for NaN: outside of the domain
            break
        length /= 2
        tried = residual(nu - length * step)
    return nu - length * step, *tried


def depth_map(depth: int, alpha: float) -> Callable[[Tensor], Tensor]:
    r"""Give the inverse gradient of :math:`Q_\alpha`, the potential that :math:`u^k - v^k` from alpha minimises.

    .. math:: k = 2:\ 2\alpha^2 \sinh z, \qquad
        k > 2:\ \alpha^k \left[(1-z)^{-k/(k-2)} - (1+z)^{-k/(k-2)}\right],\ |z| < 1

    From `Woodworth et al. 2020 <https://arxiv.org/abs/2002.09277>`_; used with :func:`bregman_projection` from 0.

    Args:
        depth: k, >= 2.
        alpha: Scale of the start, > 0.
    """
    if depth == 2:
        return lambda z: 2 * alpha**2 * z.sinh()
    power = -depth / (depth - 2)

    def inverse(z: Tensor) -> Tensor:
        # a power of a negative base is NaN, or finite for an integer one: outside of the domain both must be refused
        inside = torch.where(z.abs() < 1, z, torch.nan)
        return alpha**depth * ((1 - inside).pow(power) - (1 + inside).pow(power))

    return inverse


def min_nuclear(x: Tensor, y: Tensor, iterations: int = 20_000) -> Tensor:
    r"""Solve :math:`\min \operatorname{tr} W` subject to :math:`\langle A_i, W \rangle = y_i`, W positive semidefinite.

    By Douglas-Rachford splitting; the trace is the nuclear norm there.

    Args:
        x: Measurements :math:`A_i`, symmetric, flattened, (m, n n).
        y: (m,).
        iterations: Most iterations.

    Returns:
        W, flattened, (n n,).

    Raises:
        ValueError: If the iteration does not settle to 1e-11.
    """
    side = round(x.shape[1] ** 0.5)
    pseudo = torch.linalg.pinv(x)
    state = torch.zeros(x.shape[1], dtype=x.dtype)
    # the step of the splitting: any value is right, this share of the solution's size was the fastest of those tried
    shift = 0.05 * float((pseudo @ y).norm()) or 1.0
    for _ in range(iterations):
        affine = state - pseudo @ (x @ state - y)
        values, vectors = torch.linalg.eigh((2 * affine - state).view(side, side))
        shrunk = ((vectors * (values - shift).clamp_min(0)) @ vectors.T).flatten()
        state = state + shrunk - affine
        if float((shrunk - affine).norm()) <= 1e-11 * (1 + float(affine.norm())):
            return affine
    msg = f"min_nuclear: not settled after {iterations} iterations; are the constraints feasible?"
    raise ValueError(msg)


def solved(result: object, message: str) -> np.ndarray:
    """Give the solution of a linear program, or raise ValueError."""
    if not result.success:  # pyright: ignore[reportAttributeAccessIssue]  # SciPy's results are untyped
        msg = f"{message} ({result.message})."  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(msg)
    return result.x  # pyright: ignore[reportAttributeAccessIssue]
