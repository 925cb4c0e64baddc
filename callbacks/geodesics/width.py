"""How high the best path between two trained two-layer networks is, by their width."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from .descent import descend
from .landscape import Surface
from .search import Method, find_paths, higher_end
from .settings import Settings
from .two_layer import wide_path

__all__ = [
    "Activation",
    "constructed",
    "energy_gap",
    "power_law",
    "random_problem",
    "trained_networks",
    "two_layer_loss",
]

Activation = Literal["relu", "square"]

_FUNCTIONS = {"relu": torch.relu, "square": torch.square}

#: Methods whose lowest path counts.
_METHODS: tuple[Method, ...] = ("linear", "bezier", "neb")


def random_problem(
    inputs: int, num_samples: int, activation: Activation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw inputs uniform on the unit sphere, and as targets the outputs of a random network of as many units again.

    Args:
        inputs: n.
        num_samples: L.
        activation: Of the network that gives the targets.
        generator: Of all that is random.

    Returns:
        Inputs (L, n) and targets (L,), of variance 1, double.
    """
    x = torch.nn.functional.normalize(torch.randn(num_samples, inputs, generator=generator, dtype=torch.float64), dim=1)
    w = torch.randn(2 * inputs, inputs, generator=generator, dtype=torch.float64)
    v = torch.randn(2 * inputs, generator=generator, dtype=torch.float64)
    y = _FUNCTIONS[activation](x @ w.T) @ v
    return x, y / y.std()


def two_layer_loss(x: Tensor, y: Tensor, units: int, activation: Activation, penalty: float) -> Surface:
    r"""Give the loss of two-layer networks over their weights (w_1, ..., w_m, v_1, ..., v_m).

    .. math:: \frac1L \sum_l \Big(\sum_j v_j\,\rho(\langle \bar w_j, x_l \rangle) - y_l\Big)^2 + \kappa |v|_1, \qquad
        \bar w_j = w_j / \max(1, |w_j|)

    Args:
        x: Inputs, (L, n).
        y: Targets, (L,).
        units: m.
        activation: rho.
        penalty: kappa, >= 0. Without a penalty the input weights are not limited either, and :math:`\bar w_j = w_j`.
    """
    inputs = x.shape[1]

    def loss(points: Tensor) -> Tensor:
        w, v = points[:, : inputs * units].view(-1, units, inputs), points[:, inputs * units :]
        if penalty:
            w = w / torch.linalg.vector_norm(w, dim=2, keepdim=True).clamp_min(1)
        hidden = _FUNCTIONS[activation](w @ x.T)
        return ((v[:, None] @ hidden)[:, 0] - y).square().mean(1) + penalty * v.abs().sum(1)

    return Surface(loss)


def trained_networks(
    surface: Surface, inputs: int, units: int, number: int, steps: int, generator: torch.Generator
) -> Tensor:
    """Train networks from random weights by Adam (rate .01), (number, units (inputs + 1))."""
    starts = torch.randn(number, units * (inputs + 1), generator=generator, dtype=torch.float64)
    starts[:, : inputs * units] /= inputs**0.5
    starts[:, inputs * units :] /= units**0.5
    points, _ = descend(surface, starts, 0.0, lr=0.01, block=steps, max_steps=steps)
    return points


def energy_gap(
    surface: Surface, first: Tensor, second: Tensor, settings: Settings, corners: Tensor | None = None
) -> float:
    r"""Give :math:`\min_\gamma \max_t E(\gamma(t)) - \max(E(A), E(B))` over the paths that are found.

    Those are the straight line, a Bezier curve, an elastic band, and a given polyline; the true gap may be smaller.

    Args:
        surface: E.
        first: A, (P,).
        second: B, (P,).
        settings: Budget of curve and band, and the grid that the maxima are taken on.
        corners: Corners of a further path from A to B, (K, P).
    """
    ends = torch.stack([first, second])
    level = higher_end(surface, ends)
    paths = [find_paths(surface, first[None], second[None], level, method, settings)[0] for method in _METHODS]
    maxima = [path.maximum for path in paths]
    if corners is not None:
        t = torch.linspace(0, 1, settings.grid).to(corners)[:, None]
        legs = torch.cat([torch.lerp(a, b, t) for a, b in pairwise(corners)])
        maxima.append(float(surface.values(legs).max()))
    return max(min(maxima) - float(surface.values(ends).max()), 0.0)


def constructed(x: Tensor, units: int, activation: Activation, first: Tensor, second: Tensor) -> Tensor | None:
    """Give the corners of the explicit path of wide networks, (8, P), or ``None`` where they are not wide enough."""
    ends = [(point[:-units].view(units, -1), point[-units:, None]) for point in (first, second)]
    try:
        path = wide_path(x, _FUNCTIONS[activation], ends[0], ends[1])
    except ValueError:
        return None
    return torch.stack([torch.cat([w.flatten(), v.flatten()]) for w, v in path])


def power_law(widths: Tensor, means: Tensor, errors: Tensor) -> tuple[float, float]:
    r"""Fit :math:`\log y = a + s \log m` by least squares weighted by the errors of :math:`\log y`.

    Args:
        widths: m, (k,).
        means: y, (k,), > 0.
        errors: Standard errors of y, (k,), > 0.

    Returns:
        The slope s and its standard error, from the errors of the points and, where these are too small for the
        scatter, scaled up by the root of the reduced chi square.
    """
    x, y, weight = widths.double().log(), means.log(), (means / errors).square()
    x = x - (weight * x).sum() / weight.sum()
    y = y - (weight * y).sum() / weight.sum()
    spread = (weight * x.square()).sum()
    slope = float((weight * x * y).sum() / spread)
    scatter = float((weight * (y - slope * x).square()).sum() / max(len(x) - 2, 1))
    return slope, float(spread**-0.5) * max(scatter, 1.0) ** 0.5
