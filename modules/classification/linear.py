"""The simplest classifier of images."""

import math

from torch import nn

__all__ = ["LinearNetwork"]


class LinearNetwork(nn.Sequential):
    """One linear layer on all pixels, whose weights and biases start at zero: training has no random start.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(self, num_classes: int = 10, input_shape: tuple[int, int, int] = (3, 32, 32)) -> None:
        linear = nn.Linear(math.prod(input_shape), num_classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        super().__init__(nn.Flatten(), linear)
