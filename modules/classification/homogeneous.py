"""Networks that are homogeneous in their weights, and the loss that takes them to large margins."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..bias.losses import log_logistic_loss, soft_margins
from .objectives import Forward, Objective

__all__ = ["HomogeneousMLP", "TailCrossEntropy"]


class HomogeneousMLP(nn.Sequential):
    r"""A fully connected ReLU network with a bias in the first layer only: :math:`f(c\theta) = c^L f(\theta)`, c > 0.

    L is the number of layers. Weights start as He et al.'s normal ones, the bias at zero, as in `Lyu and Li 2020
    <https://arxiv.org/abs/1906.05890>`_.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image.
        widths: Units of each hidden layer, one layer or more; by default [512].
        init_scale: Factor on all weights at the start, > 0.

    Shapes:
        (N, channels, height, width) to (N, C).

    Raises:
        ValueError: If there is no hidden layer, or a width or the scale is not positive.
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        widths: list[int] | None = None,
        init_scale: float = 1.0,
    ) -> None:
        widths = [512] if widths is None else widths
        if not widths or min(widths) < 1 or not init_scale > 0:
            msg = (
                f"HomogeneousMLP(widths={widths}, init_scale={init_scale:g}): needs one hidden layer or more of "
                "one unit or more, and a scale > 0, e.g. [512] and 1."
            )
            raise ValueError(msg)
        sizes = [torch.Size(input_shape).numel(), *widths, num_classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for number, (inputs, outputs) in enumerate(pairwise(sizes)):
            linear = nn.Linear(inputs, outputs, bias=number == 0)
            nn.init.kaiming_normal_(linear.weight)
            with torch.no_grad():
                linear.weight.mul_(init_scale)
            if number == 0:
                nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        super().__init__(*layers[:-1])


class TailCrossEntropy(Objective):
    r"""Cross-entropy in float64 by its logarithm: right where the plain form loses the gradient.

    Plain cross-entropy rounds the true class's gradient p - 1 to zero at margins above 17 in float32. Here
    :math:`\log \frac1N \sum_n \log(1 + e^{-m_n})`, with the soft margins m, is computed first and then exponentiated,
    in float64, whatever the network computes in: loss and gradient are right down to 1e-30, below which float32
    gradients underflow (``--trainer.precision 64-true``: 1e-300). No label smoothing: its minimum is no large margin.
    """

    def __init__(self) -> None:
        super().__init__(label_smoothing=0.0)

    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the mean loss of the batch, float64, in nats."""
        del sample_id
        return log_logistic_loss(soft_margins(forward(x).double(), y)).exp() / len(y)
