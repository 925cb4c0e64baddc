"""Networks for small images: pixels, normalised by the task, to logits."""

from typing import Literal

from torch import Tensor, nn

__all__ = ["MadryCNN", "ResNet9", "ResNet18", "ResNet50", "SmallCNN", "TorchvisionNetwork"]

Shape = tuple[int, int, int]


class SmallCNN(nn.Sequential):
    """Four 3x3 convolutions in two stages, each ended by max-pooling, and a linear layer; no normalisation layers.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image, height and width at least 4.
        width: Channels of the first stage; the second has twice as many.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(self, num_classes: int = 10, input_shape: Shape = (3, 32, 32), width: int = 32) -> None:
        channels, height, margin = input_shape
        super().__init__(
            *_convolution(channels, width, 3),
            *_convolution(width, width, 3),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width, 3),
            *_convolution(2 * width, 2 * width, 3),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(2 * width * (height // 4) * (margin // 4), num_classes),
        )


class MadryCNN(nn.Sequential):
    """The network of `Madry et al. 2018 <https://arxiv.org/abs/1706.06083>`_ for MNIST.

    5x5 convolutions of 32 and 64 channels, each followed by 2x2 max-pooling, and a hidden layer of 1024 units.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image, height and width at least 4.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(self, num_classes: int = 10, input_shape: Shape = (1, 28, 28)) -> None:
        channels, height, width = input_shape
        super().__init__(
            *_convolution(channels, 32, 5),
            nn.MaxPool2d(2),
            *_convolution(32, 64, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), 1024),
            nn.ReLU(),
            nn.Linear(1024, num_classes),
        )


class ResNet9(nn.Sequential):
    """Eight convolutions with batch normalisation, two residual blocks among them, and a linear layer.

    David Page's network for CIFAR-10 in minutes (`How to train your ResNet
    <https://myrtle.ai/learn/how-to-train-your-resnet/>`_, 64 channels); the logits are multiplied by 1/8, as there.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image, height and width at least 8.
        width: Channels of the first convolution; the last have eight times as many.
        pooling: Of the last maps: ``max``, as there, or ``mean``, with logits as they are.

    Raises:
        ValueError: If ``pooling`` is neither.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    def __init__(
        self,
        num_classes: int = 10,
        input_shape: Shape = (3, 32, 32),
        width: int = 64,
        pooling: Literal["max", "mean"] = "max",
    ) -> None:
        if pooling not in {"max", "mean"}:
            msg = f"ResNet9(pooling={pooling!r}): must be max or mean."
            raise ValueError(msg)
        super().__init__(
            *_normalised(input_shape[0], width),
            *_normalised(width, 2 * width),
            nn.MaxPool2d(2),
            _Residual(2 * width),
            *_normalised(2 * width, 4 * width),
            nn.MaxPool2d(2),
            *_normalised(4 * width, 8 * width),
            nn.MaxPool2d(2),
            _Residual(8 * width),
            nn.AdaptiveMaxPool2d(1) if pooling == "max" else nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, num_classes, bias=False),
            _Scale(0.125 if pooling == "max" else 1.0),
        )


class _ResNet(nn.Module):
    """One of torchvision's, changed for small images."""

    name = ""

    def __init__(self, num_classes: int = 10, input_shape: Shape = (3, 32, 32)) -> None:
        super().__init__()
        from torchvision import models  # half a second that --help need not wait for

        network = models.get_model(self.name, num_classes=num_classes)
        network.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
        network.maxpool = nn.Identity()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits."""
        return self.network(x)


class ResNet18(_ResNet):
    """torchvision's ResNet-18 for small images: a first convolution of 3x3 without stride, and no pooling after it.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    name = "resnet18"


class ResNet50(_ResNet):
    """torchvision's ResNet-50 for small images, changed as :class:`ResNet18`.

    Args:
        num_classes: Number of classes C.
        input_shape: Channels, height and width of an image.

    Shapes:
        (N, channels, height, width) to (N, C).
    """

    name = "resnet50"


class TorchvisionNetwork(nn.Module):
    """Any of torchvision's classifiers, by name, as it is: most take colour images of 224 x 224.

    Args:
        name: For example ``resnet50`` or ``vit_b_16``; ``torchvision.models.list_models()`` has them all.
        num_classes: Number of classes C.

    Raises:
        ValueError: If there is no such network.

    Shapes:
        (N, 3, height, width) to (N, C).
    """

    def __init__(self, name: str, num_classes: int = 1000) -> None:
        super().__init__()
        from torchvision import models

        if name not in models.list_models(module=models):
            msg = f"TorchvisionNetwork(name={name!r}): torchvision has {', '.join(models.list_models(module=models))}."
            raise ValueError(msg)
        self.network = models.get_model(name, num_classes=num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits."""
        return self.network(x)


class _Residual(nn.Module):
    """Add what two convolutions make of the input to it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(*_normalised(width, width), *_normalised(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class _Scale(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _convolution(inputs: int, outputs: int, size: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()


def _normalised(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
