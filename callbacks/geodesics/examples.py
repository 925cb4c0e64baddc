"""Loss surfaces whose answers are known."""

import math

import torch
from torch import Tensor

from .landscape import Surface

__all__ = ["curvy_valley", "two_unit_relu"]


def curvy_valley() -> tuple[Surface, Tensor, Tensor]:
    r"""Give a surface with a curved valley between two minima, whose saddle is exactly 1.

    .. math:: E = (y - \sin x)^2 + 4b (b x^4 - x^2) + 1, \quad b = \frac{1}{2 x_0^2}, \quad x_0 = \frac{5 \pi}{2}

    of `AutoNEB's repository <https://github.com/fdraxler/PyTorch-AutoNEB>`_: the minima, of value 0, are at
    (x0, 1) and its negative; every path between them crosses x = 0, where E >= 1. The chord is 15.8348 long, the floor
    of the valley 1.2063 times that.

    Returns:
        The surface over the plane, and the two minima, each (1, 2), double.
    """
    far = 2.5 * math.pi
    b = 1 / (2 * far**2)

    def energy(points: Tensor) -> Tensor:
        x, y = points.unbind(1)
        return (y - x.sin()) ** 2 + 4 * b * (b * x**4 - x**2) + 1

    end = torch.tensor([[far, 1.0]], dtype=torch.float64)
    return Surface(energy), -end, end


def two_unit_relu(spread: float, num_samples: int, seed: int, units: int = 2) -> tuple[Surface, Tensor, Tensor]:
    r"""Give the loss of two ReLU units on two classes, and two networks that no low path joins.

    x is (1, 0) with the target 1 or (0, 1) with the target -1, in equal numbers, plus ``spread`` times a standard
    normal; :math:`f(x) = \sum_j v_j \max(w_j \cdot x, 0)`, mean squared error. A has w = (e1, e2), v = (1, -1); B the
    same units exchanged. On every path v_1 changes its sign; where it is zero the output has one sign everywhere, so
    each sample of one class has an error of at least 1: every path rises to 1/2. With a third unit of no weight there
    is a path at constant loss. After `Freeman & Bruna 2017 <https://arxiv.org/abs/1611.01540>`_, section 2.3.1.

    Args:
        spread: Standard deviation of the inputs around their class, >= 0.
        num_samples: Number of samples, even.
        seed: Of the inputs.
        units: Hidden units; those beyond two have no weight at the ends.

    Returns:
        The surface over (w_1, ..., w_M, v_1, ..., v_M), and the two networks, each (1, 3 M), double.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.ones(num_samples, dtype=torch.float64)
    target[num_samples // 2 :] = -1
    centers = torch.stack([(target > 0), (target < 0)], dim=1).double()
    x = centers + spread * torch.randn(num_samples, 2, dtype=torch.float64, generator=generator)

    def loss(points: Tensor) -> Tensor:
        w, v = points[:, : 2 * units].view(-1, units, 2), points[:, 2 * units :]
        hidden = torch.einsum("ld,nud->nlu", x, w).relu()
        return (torch.einsum("nlu,nu->nl", hidden, v) - target).square().mean(1)

    ends = torch.zeros(2, 3 * units, dtype=torch.float64)
    ends[:, 2 * units : 2 * units + 2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    ends[0, :4] = torch.tensor([1.0, 0.0, 0.0, 1.0])
    ends[1, :4] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    return Surface(loss), ends[:1], ends[1:]
