"""Small models that attacks are tried on."""

import torch
from torch import nn


def small_cnn(seed=0, channels=1, size=8, num_classes=4, dtype=torch.float32):
    """A network with everything an evaluation can move: batch normalisation and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(8 * (size // 2) ** 2, num_classes),
        ).to(dtype)  # fmt: skip


def linear(seed=0, size=6, num_classes=2, dtype=torch.float64):
    """Logits that are linear in the input."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(size, num_classes)).to(dtype)


def images(number=10, channels=1, size=8, num_classes=4, seed=0, dtype=torch.float32):
    """Uniform images, labels and sample numbers."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(number, channels, size, size, generator=generator, dtype=dtype)
    return x, torch.randint(num_classes, (number,), generator=generator), torch.arange(number)
