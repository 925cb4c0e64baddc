"""A path between linear networks of two layers on which the sum of squared weights never rises either."""

import torch
from torch import Tensor

from .detours import bent, middle

__all__ = ["balanced_path"]

#: Singular values below this share of the largest count as zero.
_RANK = 1e-8

#: Weights of both layers along a part of the path: (T, h, n_in) and (T, n_out, h).
_Pair = tuple[Tensor, Tensor]


def balanced_path(first: _Pair, second: _Pair, points: int, generator: torch.Generator) -> list[Tensor]:
    r"""Join two networks :math:`x \mapsto W_2 W_1 x` of :math:`n_{out} \le n_{in}` and more hidden units than outputs.

    Where :math:`W_2 W_1 = P`, the squared norms are at least :math:`2 |P|_*`, twice the nuclear norm, with equality for
    balanced pairs, :math:`W_1 W_1^T = W_2^T W_2`. So: drop what does not reach the product (two lines); balance; turn
    the hidden space to that of the other network (norms and product are constant); move P on a straight line, along
    which a convex loss plus the nuclear norm is convex; and the same of the other network backwards. Freeman & Bruna,
    `proposition 2.2 <https://arxiv.org/abs/1611.01540>`_.

    Args:
        first: Weights (h, n_in) and (n_out, h) of one network.
        second: Those of the other.
        points: Points of each curved part, >= 2.
        generator: Of random directions.

    Returns:
        The weights of both layers along the path, (T, h, n_in) and (T, n_out, h); the ends are exact.
    """
    t = torch.linspace(0, 1, points).to(first[0])
    starts, frame_a, product_a = _balanced(first, t, generator)
    ends, frame_b, product_b = _balanced(second, t, generator)
    line = bent([frame_a], middle([frame_a], [frame_b], generator), [frame_b], t)[0]
    left, _, right = torch.linalg.svd(line, full_matrices=False)
    turn = _pair(product_a, left @ right)
    move = _pair(torch.lerp(product_a, product_b, t[:, None, None]), frame_b)
    return [
        torch.cat([start, turned, moved, end.flip(0)])
        for start, turned, moved, end in zip(starts, turn, move, ends, strict=True)
    ]


def _balanced(weights: _Pair, t: Tensor, generator: torch.Generator) -> tuple[_Pair, Tensor, Tensor]:
    """Give the path to a balanced pair, the orthonormal frame (h, n_out) of its hidden space, and the product."""
    lower, upper = weights
    seen = _projection(upper.T) @ lower
    used = upper @ _projection(seen)
    basis = _basis(seen)
    a, b = used @ basis, basis.T @ seen
    root, inverse = _power(b @ b.T, 0.5), _power(b @ b.T, -0.5)
    balance = inverse @ _power(root @ (a.T @ a) @ root, 0.5) @ inverse
    moved = [_power(balance, sign * float(s) / 2) for s in t for sign in (1, -1)]
    lowers = [basis @ power @ b for power in moved[::2]]
    uppers = [a @ power @ basis.T for power in moved[1::2]]
    product = upper @ lower
    left, sizes, _ = torch.linalg.svd(product, full_matrices=False)
    rank = basis.shape[1]
    frame = uppers[-1].T @ left[:, :rank] / sizes[:rank].sqrt()
    frame = _completed(frame, left.shape[1], generator) @ left.T
    return (torch.stack([lower, seen, *lowers]), torch.stack([upper, upper, *uppers])), frame, product


def _pair(product: Tensor, frame: Tensor) -> _Pair:
    r"""Give the balanced pair :math:`R (P P^T)^{-1/4} P` and :math:`(P P^T)^{1/4} R^T` of a product and a frame."""
    left, sizes, right = torch.linalg.svd(product, full_matrices=False)
    half = left * sizes.sqrt()[..., None, :]
    lower, upper = frame @ (half @ right), half @ left.mT @ frame.mT
    shape = torch.broadcast_shapes(lower.shape[:-2], upper.shape[:-2])
    return lower.expand(*shape, *lower.shape[-2:]), upper.expand(*shape, *upper.shape[-2:])


def _basis(matrix: Tensor) -> Tensor:
    """Give an orthonormal basis of a matrix's range, as columns."""
    left, sizes, _ = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, sizes > _RANK * sizes[0]]


def _projection(matrix: Tensor) -> Tensor:
    basis = _basis(matrix)
    return basis @ basis.T


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """Raise a symmetric positive definite matrix to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T


def _completed(frame: Tensor, columns: int, generator: torch.Generator) -> Tensor:
    """Add orthonormal columns to orthonormal ones, until there are as many as asked for."""
    more = torch.randn(len(frame), columns - frame.shape[1], generator=generator).to(frame)
    full = torch.linalg.qr(torch.cat([frame, more], dim=1)).Q
    return torch.cat([frame, full[:, frame.shape[1] :]], dim=1)
