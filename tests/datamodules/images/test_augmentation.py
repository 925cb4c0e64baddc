"""Augmentation: each image is one of the crops and mirrorings there are, all equally likely, whatever the batch."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from theodolite.datamodules.images.augmentation import counter_uniforms, crop_and_flip, swap_low_frequencies


def test_uniforms_are_a_function_of_seed_and_counter_alone():
    counters = torch.tensor([7, 0, 2**40, 3])
    whole = counter_uniforms(1, counters, 3)
    for row, counter in zip(whole, counters):
        assert np.array_equal(counter_uniforms(1, counter[None], 3)[0], row)
    assert not np.isin(counter_uniforms(2, counters, 3), whole).any()


def test_uniforms_are_uniform_and_independent():
    u = counter_uniforms(0, torch.arange(40000), 3)
    assert 0 <= u.min() < u.max() < 1
    counts, _ = np.histogram(u, bins=20)
    assert ((counts - 6000) ** 2 / 6000).sum() < 43.8  # chi-squared, 19 degrees of freedom, p = .001
    neighbours = np.stack(
        [u[:-1, 0], u[1:, 0], u[:-1, 1], u[:-1, 2], counter_uniforms(1, torch.arange(39999), 1)[:, 0]]
    )
    correlation = np.corrcoef(neighbours) - np.eye(5)
    assert np.abs(correlation).max() < 4 / 200  # 4 standard deviations


def every_crop(image, padding, flip):
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
    height, width = image.shape[1:]
    shifts = range(2 * padding + 1)
    crops = [padded[:, i : i + height, j : j + width] for i in shifts for j in shifts]
    return {crop.tobytes() for crop in crops} | ({crop[:, :, ::-1].tobytes() for crop in crops} if flip else set())


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (2, False), (1, True)])
def test_every_crop_and_only_these_occur(padding, flip):
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    images = torch.from_numpy(np.repeat(image[None], 600, 0))
    result = crop_and_flip(images, counter_uniforms(0, torch.arange(600), 3), padding, flip)
    assert result.dtype == torch.uint8
    assert {crop.tobytes() for crop in result.numpy()} == every_crop(image, padding, flip)


def test_without_padding_and_flip_nothing_changes():
    images = torch.rand(4, 1, 3, 3)
    assert torch.equal(crop_and_flip(images, counter_uniforms(0, torch.arange(4), 3), 0, False), images)


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_low_frequencies_are_those_of_the_other_image(sigma):
    """SciPy's Gaussian gives them; what is left is clipped to what pixels can be."""
    x, other = np.random.default_rng(1).random((2, 5, 3, 16, 17))
    found = swap_low_frequencies(torch.from_numpy(x), torch.from_numpy(other), sigma)

    def low(images):
        return gaussian_filter(images, (0, 0, sigma, sigma), mode="mirror", truncate=3)

    expected = x - low(x) + low(other)
    assert expected.min() < 0
    assert expected.max() > 1
    np.testing.assert_allclose(found, expected.clip(0, 1), rtol=0, atol=1e-6)
