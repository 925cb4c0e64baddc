"""Random changes of whole batches, a pure function of (seed, epoch, sample)."""

import math

import numpy as np
import torch
from torch import Tensor

__all__ = ["counter_uniforms", "crop_and_flip", "swap_low_frequencies"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def counter_uniforms(seed: int, counters: Tensor, draws: int) -> np.ndarray:
    """Give uniform numbers that are a pure function of (seed, counter): no state, in any order, whole arrays at once.

    The finalizer of SplitMix64 (`Steele, Lea, Flood 2014 <https://doi.org/10.1145/2660193.2660195>`_), applied to the
    seed and to the counters in turn.

    Args:
        seed: Any integer >= 0.
        counters: Numbers >= 0, int64 (B,).
        draws: Numbers for each counter.

    Returns:
        float64 (B, draws) in [0, 1).
    """
    places = counters.numpy().astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(draws, dtype=np.uint64)
    key = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN)
    return (_mix(_mix(places * _GOLDEN + key)) >> np.uint64(11)) * 2.0**-53


def crop_and_flip(images: Tensor, uniforms: np.ndarray, padding: int, flip: bool) -> Tensor:
    """Shift every image by up to ``padding`` pixels each way, filling with zeros, and mirror half of them.

    Args:
        images: (B, C, H, W), of any dtype.
        uniforms: (B, 3) in [0, 1): vertical shift, horizontal shift, whether to mirror.
        padding: Largest shift in pixels, >= 0.
        flip: Whether to mirror left and right.

    Returns:
        New images, of the same shape and dtype.
    """
    count, channels, height, width = images.shape
    shifts = torch.from_numpy((uniforms[:, :2] * (2 * padding + 1)).astype(np.int64))
    rows = shifts[:, :1] + torch.arange(height)
    columns = shifts[:, 1:] + torch.arange(width)
    if flip:
        mirrored = torch.from_numpy(uniforms[:, 2] < 0.5)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    # one gather over the flattened pixels: several times faster than indexing by four broadcast tensors
    wide = width + 2 * padding
    places = (rows[:, :, None] * wide + columns[:, None, :]).view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(count, channels, height, width)


def swap_low_frequencies(images: Tensor, others: Tensor, sigma: float) -> Tensor:
    """Give images whose low frequencies are those of others, pixel values clipped to [0, 1].

    With the Gaussian G of standard deviation sigma, reflected at the border: x - G x + G x'.

    Args:
        images: x, float (B, C, H, W) in [0, 1].
        others: x', as many.
        sigma: In pixels, > 0; 3 sigma must be smaller than height and width.
    """
    from torchvision.transforms.v2.functional import gaussian_blur  # half a second that --help need not wait for

    size = 2 * math.ceil(3 * sigma) + 1
    return (images + gaussian_blur(others - images, [size, size], [sigma, sigma])).clamp_(0, 1)


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
