"""Margins of linear rules in the norms of their weights."""

from typing import Literal

import torch
from torch import Tensor

from .output import check_classes, output_margin

__all__ = ["linear_margin", "parse_norm", "rule_margin", "weight_norm"]

Basis = Literal["standard", "fourier"]


def linear_margin(x: Tensor, y: Tensor, weight: Tensor, p: float = 2.0, basis: Basis = "standard") -> Tensor:
    r"""Give :math:`y_n \langle w, x_n \rangle / \|w\|_p`, the margin of a linear rule without intercept.

    In units of the input: the distance to the boundary in the **dual** norm, 1/p + 1/q = 1. A bound on the l1 norm of
    the weights is a distance in linf, l2 one in l2, linf one in l1. In the Fourier basis the weights' norm is that of
    their unitary discrete transform (`Gunasekar et al. 2018 <https://arxiv.org/abs/1806.00468>`_).

    Args:
        x: Samples (N, ...).
        y: Labels, -1 or 1, (N,).
        weight: w, of the shape of a sample.
        p: Of the norm, > 0; below 1 no norm, but what deep diagonal and convolutional networks minimise. ``inf`` for
            the largest entry.
        basis: ``standard``, or ``fourier`` over the last axis.

    Returns:
        Margins (N,).

    Raises:
        ValueError: If p is not positive, the weights are zero, a label is neither -1 nor 1, or the shapes do not fit.

    Example:
        >>> import torch
        >>> from theodolite.modules.margins import linear_margin
        >>> linear_margin(torch.tensor([[1.0, 2.0]]), torch.tensor([1]), torch.tensor([3.0, 4.0]))
        tensor([2.2000])
    """
    if x.shape[1:] != weight.shape or y.shape != x.shape[:1]:
        msg = (
            f"linear_margin: x {tuple(x.shape)}, y {tuple(y.shape)}, weight {tuple(weight.shape)}; needs (N, ...), "
            "(N,) and (...)."
        )
        raise ValueError(msg)
    if not bool((y.abs() == 1).all()):
        msg = f"linear_margin: labels are in {float(y.min()):g} .. {float(y.max()):g}; give -1 or 1."
        raise ValueError(msg)
    norm = weight_norm(weight, p, basis)
    if not float(norm) > 0:
        msg = "linear_margin: the weights are all zero, so there is no boundary."
        raise ValueError(msg)
    return y * (x.flatten(1) @ weight.flatten()) / norm


def rule_margin(scores: Tensor, labels: Tensor, rule: Tensor, p: float = 2.0, basis: Basis = "standard") -> Tensor:
    r"""Give the margins of a linear classifier of several classes, in the norm of the differences of its weights.

    .. math:: \min_{j \ne y_n} \frac{f_{y_n}(x_n) - f_j(x_n)}{\|w_{y_n} - w_j\|_p}, \qquad
        f_c(x) = \langle w_c, x \rangle

    In units of the input: the distance to the nearest boundary in the **dual** norm, as :func:`linear_margin`, which it
    is for a single output.

    Args:
        scores: f, (N, C), or (N,) or (N, 1) of two classes.
        labels: Classes, int (N,).
        rule: w, (C, d), see :func:`~theodolite.modules.margins.linear_rule`; (1, d) for a single output.
        p: Of the norm, > 0, see :func:`linear_margin`.
        basis: ``standard``, or ``fourier`` of the d entries.

    Returns:
        Margins (N,).

    Raises:
        ValueError: If a norm is zero: no boundary is between two classes; or as :func:`weight_norm`.
    """
    if len(rule) == 1:
        sizes = weight_norm(rule[0], p, basis)
    else:
        sizes = torch.stack([torch.stack([weight_norm(a - b, p, basis) for b in rule]) for a in rule])
        sizes = sizes.masked_fill(torch.eye(len(rule), dtype=torch.bool, device=rule.device), torch.inf)
    if not bool((sizes > 0).all()):
        msg = "rule_margin: the weights are zero, or those of two classes equal, so there is no boundary."
        raise ValueError(msg)
    if len(rule) == 1:
        return output_margin(scores, labels) / sizes
    check_classes(scores, labels)
    leads = (scores.gather(1, labels[:, None]) - scores) / sizes[labels]
    return leads.scatter(1, labels[:, None], torch.inf).amin(1)


def parse_norm(name: str) -> tuple[float, Basis]:
    """Read the name of a weight norm: ``l1``, ``l1.5``, ``linf``, or with ``dft_`` in front that of the spectrum.

    Raises:
        ValueError: If it is no such name, or the exponent not positive.
    """
    text = name.removeprefix("dft_")
    try:
        p = float(text.removeprefix("l")) if text.startswith("l") else 0.0
    except ValueError:
        p = 0.0
    if not p > 0:
        msg = f"{name!r} is no norm of weights; give e.g. l1, l1.5, linf, or dft_l1 for the Fourier transform's."
        raise ValueError(msg)
    return p, "fourier" if text != name else "standard"


def weight_norm(weight: Tensor, p: float = 2.0, basis: Basis = "standard") -> Tensor:
    r"""Give :math:`\|w\|_p = (\sum_i |w_i|^p)^{1/p}` over all entries, or that of the unitary Fourier transform, ().

    Raises:
        ValueError: If p is not positive or the basis unknown.
    """
    if not p > 0:
        msg = f"weight_norm(p={p:g}): must be > 0, e.g. 1, 2 or inf."
        raise ValueError(msg)
    if basis not in ("standard", "fourier"):
        msg = f"weight_norm(basis={basis!r}): must be 'standard' or 'fourier'."
        raise ValueError(msg)
    entries = torch.fft.fft(weight, norm="ortho").abs() if basis == "fourier" else weight.abs()
    return torch.linalg.vector_norm(entries, ord=p)
