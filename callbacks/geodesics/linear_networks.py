"""The explicit path between two deep linear networks, on which a loss that is convex in the product never rises."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .balanced import balanced_path
from .detours import bent, middle, product

__all__ = ["linear_path"]


def linear_path(
    first: Sequence[Tensor], second: Sequence[Tensor], points: int = 101, seed: int = 0, ridge: bool = False
) -> list[Tensor]:
    r"""Join two deep linear networks :math:`x \mapsto W_K \cdots W_1 x` with the product on a straight line.

    The proof of `"Topology and Geometry of Half-Rectified Network Optimization" <https://arxiv.org/abs/1611.01540>`_,
    proposition 2.2, made explicit. With n_out <= n_in (otherwise on the transposed network):

    .. math:: P(t) = (1-t) P_A + t P_B, \quad W_1(t) = S^+ P(t) + (I - S^+ S)\,((1-t) W_1^A + t W_1^B)

    where :math:`S(t) = W_K(t) \cdots W_2(t)` and the layers from the second on move on straight lines, or by a random
    point in the middle where the line would come close to a deficient rank: the product would still be right there, but
    W_1 large and the path long. Ends whose own S is deficient are first made regular, by moves on straight lines that
    leave the product unchanged. A loss convex in the product is at most that of the higher end at every point given;
    between two points of the curve the excess vanishes as the square of their distance.

    With ``ridge`` the loss may have any multiple of the sum of squared weights added to it: for two layers, see
    :func:`balanced_path`. For three or more the origin is then a strict local minimum at every width, so there is no
    such path.

    Args:
        first: Weights of one network, each (n_k, n_{k-1}), the first layer first; at least two layers.
        second: Weights of the other, of the same shapes.
        points: Points of the curve, of each of its three curved parts with ``ridge``, >= 2.
        seed: Of the random directions.
        ridge: The sum of squared weights may count too.

    Returns:
        The weights along the path, each (T, n_k, n_{k-1}); the ends are exact.

    Raises:
        ValueError: If shapes differ, if there are more than two layers with ``ridge``, or if a hidden layer is not
            wider than the smaller of input and output: then there may be no such path (for 1-1-1 networks there is none
            between (1, 1) and (-1, -1) below the loss of zero).
    """
    _check(first, second)
    if first[-1].shape[0] > first[0].shape[1]:
        flipped = linear_path([w.T for w in reversed(first)], [w.T for w in reversed(second)], points, seed, ridge)
        return [weight.transpose(1, 2) for weight in reversed(flipped)]
    generator = torch.Generator().manual_seed(seed)
    if ridge:
        if len(first) > 2:
            msg = f"linear_path(ridge=True): {len(first)} layers; only networks of two are known to have such a path."
            raise ValueError(msg)
        return balanced_path((first[0], first[1]), (second[0], second[1]), points, generator)
    corners_a, corners_b = _regular(list(first), generator), _regular(list(second), generator)
    t = torch.linspace(0, 1, points).to(first[0])
    curve = _curve(corners_a[-1], corners_b[-1], t, generator)
    path = []
    for layer, weight in enumerate(curve):
        before = torch.stack([corner[layer] for corner in corners_a])
        after = torch.stack([corner[layer] for corner in reversed(corners_b)])
        path.append(torch.cat([before, weight[1:-1], after]))
    return path


def _curve(first: Sequence[Tensor], second: Sequence[Tensor], t: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Give the weights at places t of the curve between two networks with a regular suffix."""
    via = middle(first[1:], second[1:], generator)
    upper = bent(first[1:], via, second[1:], t)
    suffix = product(upper)
    inverse = torch.linalg.pinv(suffix)
    start, end = product([w[None] for w in first])[0], product([w[None] for w in second])[0]
    lifted = torch.lerp(start, end, t[:, None, None])
    line = torch.lerp(first[0], second[0], t[:, None, None])
    return [inverse @ (lifted - suffix @ line) + line, *upper]


def _regular(weights: list[Tensor], generator: torch.Generator) -> list[list[Tensor]]:
    """Give corners of a path of constant product to a network whose suffix has full rank; the first is the network."""
    corners = [list(weights)]
    for k in range(len(weights) - 1, 0, -1):
        suffix = product([w[None] for w in weights[k:]])[0]
        values = torch.linalg.svdvals(suffix)
        if values[-1] > 1e-6 * values[0]:
            continue
        kept = torch.linalg.pinv(suffix, rtol=1e-6) @ suffix
        weights[k - 1] = kept @ weights[k - 1]
        corners.append(list(weights))
        noise = torch.randn(weights[k].shape, generator=generator).to(weights[k])
        weights[k] = weights[k] + (noise - noise @ kept) / weights[k].shape[1] ** 0.5
        corners.append(list(weights))
    return corners


def _check(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    shapes = [[tuple(weight.shape) for weight in weights] for weights in (first, second)]
    if shapes[0] != shapes[1] or len(shapes[0]) < 2:
        msg = f"linear_path: shapes {shapes[0]} and {shapes[1]} must be the same, of at least two layers."
        raise ValueError(msg)
    least = min(first[0].shape[1], first[-1].shape[0])
    narrow = [weight.shape[0] for weight in first[:-1] if weight.shape[0] <= least]
    if narrow:
        msg = f"linear_path: a hidden layer has {narrow[0]} units; each must have more than {least}, the smaller of "
        msg += "input and output, or there may be no path."
        raise ValueError(msg)
