"""The two convolutional networks of TensorFlow's first tutorials, as the level-set experiments train them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .networks import MadryCNN, Shape

__all__ = ["CIFAR10TutorialCNN", "MNISTTutorialCNN"]


class MNISTTutorialCNN(MadryCNN):
    """:class:`MadryCNN` with dropout before the last layer, as in TensorFlow's tutorial "Deep MNIST for experts".

    Weights begin truncated normal of deviation 0.1, biases at 0.1. One of the networks of `Freeman & Bruna 2017
    <https://arxiv.org/abs/1611.01540>`_.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image, height and width at least 4.
        dropout: Share of the 1024 hidden units that training drops, in [0, 1).

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(self, num_classes: int = 10, input_shape: Shape = (1, 28, 28), dropout: float = 0.5) -> None:
        super().__init__(num_classes, input_shape)
        self.insert(len(self) - 1, nn.Dropout(dropout))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial parameters from torch's generator."""
        for layer in _weighted(self):
            _draw(layer, deviation=0.1, bias=0.1)


class CIFAR10TutorialCNN(nn.Sequential):
    """TensorFlow's tutorial network for CIFAR-10: two convolutions with local response normalisation, three layers.

    Images are cropped to their central 24x24 and standardised one by one. Trained on images shifted by up to 4 pixels
    (``crop_padding: 4``), these are exactly the tutorial's random crops. One of the networks of `Freeman & Bruna 2017
    <https://arxiv.org/abs/1611.01540>`_.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image, height and width at least ``crop``.
        crop: Height and width of what is looked at, in pixels, a multiple of 4.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(self, num_classes: int = 10, input_shape: Shape = (3, 32, 32), crop: int = 24) -> None:
        super().__init__(
            _Standardized(crop),
            nn.Conv2d(input_shape[0], 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            _ResponseNorm(),
            nn.Conv2d(64, 64, 5, padding=2),
            nn.ReLU(),
            _ResponseNorm(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Flatten(),
            nn.Linear(64 * (crop // 4) ** 2, 384),
            nn.ReLU(),
            nn.Linear(384, 192),
            nn.ReLU(),
            nn.Linear(192, num_classes),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial parameters from torch's generator: the tutorial's deviations and biases."""
        initial = ((0.05, 0.0), (0.05, 0.1), (0.04, 0.1), (0.04, 0.1), (1 / 192, 0.0))
        for layer, (deviation, bias) in zip(_weighted(self), initial, strict=True):
            _draw(layer, deviation, bias)


class _Standardized(nn.Module):
    """Crop the centre and give each image mean 0 and deviation 1, as ``tf.image.per_image_standardization`` does."""

    def __init__(self, crop: int) -> None:
        super().__init__()
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        top, left = ((size - self.crop) // 2 for size in x.shape[2:])
        x = x[:, :, top : top + self.crop, left : left + self.crop]
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        deviation = (x - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return (x - mean) / deviation.clamp_min(x[0].numel() ** -0.5)


class _ResponseNorm(nn.Module):
    """TensorFlow's ``lrn(4, bias=1, alpha=0.001 / 9, beta=0.75)``, x / (1 + alpha * sum of x^2 over 9 channels)^beta.

    The sum is a 1x1 convolution with a band of ones: a multiple faster than the pooling of torch's LocalResponseNorm.
    """

    def forward(self, x: Tensor) -> Tensor:
        channel = torch.arange(x.shape[1], device=x.device)
        near = (channel - channel[:, None]).abs() <= 4
        square_sum = functional.conv2d(x.square(), near.to(x.dtype)[:, :, None, None])
        base = 1 + 0.001 / 9 * square_sum
        return x * (base * base.sqrt()).rsqrt()


def _weighted(network: nn.Sequential) -> Sequence[nn.Conv2d | nn.Linear]:
    return [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]


@torch.no_grad()
def _draw(layer: nn.Conv2d | nn.Linear, deviation: float, bias: float) -> None:
    """Draw weights from a normal distribution cut off at two deviations, and set the biases."""
    nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
    assert layer.bias is not None
    layer.bias.fill_(bias)
