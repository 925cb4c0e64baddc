"""The networks are those published: their numbers of parameters are, and they take any image size they promise."""

import pytest
import torch
from torch import nn

from theodolite.modules.classification import (
    CIFAR10TutorialCNN,
    LinearNetwork,
    MadryCNN,
    MNISTTutorialCNN,
    ResNet9,
    ResNet18,
    ResNet50,
    SmallCNN,
    TorchvisionNetwork,
)
from theodolite.modules.classification.tutorial_networks import _ResponseNorm


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (MadryCNN, 832 + 51_264 + 3_212_288 + 10_250),
        (MNISTTutorialCNN, 832 + 51_264 + 3_212_288 + 10_250),
        (CIFAR10TutorialCNN, 1_068_298),  # TensorFlow's tutorial: "about 1 million"
        (ResNet9, 6_573_120),  # as printed in Page's notebooks
        (ResNet18, 11_173_962),  # as commonly reported for ten classes and a 3x3 stem
        (ResNet50, 23_520_842),
    ],
)
def test_number_of_parameters_is_the_published_one(network, parameters):
    assert sum(parameter.numel() for parameter in network().parameters()) == parameters


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 24, 16)])
@pytest.mark.parametrize("network", [MadryCNN, SmallCNN, ResNet9, ResNet18, MNISTTutorialCNN])
def test_takes_the_shape_and_the_classes_it_is_given(network, shape):
    assert network(num_classes=3, input_shape=shape).eval()(torch.rand(2, *shape)).shape == (2, 3)


def test_the_last_maps_of_a_resnet9_are_pooled_as_asked():
    """Mean pooling commutes with the linear layer: the logits are the mean of what it gives at every place."""
    network = ResNet9(num_classes=3, input_shape=(1, 24, 16), width=2, pooling="mean").eval()
    x = torch.rand(4, 1, 24, 16)
    maps = nn.Sequential(*list(network)[:-4])(x)
    assert maps.shape == (4, 16, 3, 2)
    torch.testing.assert_close(network(x), torch.einsum("nchw,kc->nkhw", maps, network[-2].weight).mean((2, 3)))
    with pytest.raises(ValueError, match=r"ResNet9\(pooling='sum'\): must be max or mean"):
        ResNet9(pooling="sum")


def test_torchvision_by_name():
    assert TorchvisionNetwork("squeezenet1_1", num_classes=4).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 4)
    with pytest.raises(ValueError, match=r"TorchvisionNetwork\(name='resnet19'\): torchvision has .*resnet18"):
        TorchvisionNetwork("resnet19")


def test_the_linear_network_is_one_product_from_zero():
    network = LinearNetwork(2, (3, 4, 4))
    x = torch.rand(5, 3, 4, 4)
    assert torch.equal(network(x), torch.zeros(5, 2))
    with torch.no_grad():
        network[1].weight += torch.arange(48.0)
    torch.testing.assert_close(network(x)[:, 0], x.flatten(1) @ torch.arange(48.0))


def test_tutorial_networks_begin_as_in_the_tutorials():
    """A normal distribution cut off at two deviations keeps 0.8796 of its deviation; again drawn it is another."""
    for network, deviations, biases in (
        (MNISTTutorialCNN(), [0.1] * 4, [0.1] * 4),
        (CIFAR10TutorialCNN(), [0.05, 0.05, 0.04, 0.04, 1 / 192], [0, 0.1, 0.1, 0.1, 0]),
    ):
        before = network[-1].weight.clone()
        network.reset_parameters()
        assert not torch.equal(before, network[-1].weight)
        layers = [part for part in network if hasattr(part, "weight")]
        for layer, deviation, bias in zip(layers, deviations, biases, strict=True):
            weight = layer.weight.detach()
            assert float(weight.abs().max()) <= 2 * deviation
            count = weight.numel()
            assert float(weight.std()) == pytest.approx(0.8796 * deviation, rel=4 / (2 * count) ** 0.5)
            assert bool((layer.bias == bias).all())


def test_tutorial_network_sees_the_standardised_centre():
    """Neither the border nor brightness and contrast of an image change the logits; its centre does."""
    torch.manual_seed(0)
    network, images = CIFAR10TutorialCNN(), torch.rand(2, 3, 32, 32)
    expected = network(images)
    framed = images.clone()
    framed[:, :, :4], framed[:, :, :, 28:] = 0, 1
    torch.testing.assert_close(network(framed), expected)
    torch.testing.assert_close(network(0.3 + 0.5 * images), expected, rtol=1e-4, atol=1e-5)
    framed[:, :, 4:8] = 0
    assert not torch.allclose(network(framed), expected, rtol=1e-3)
    assert network(torch.zeros(1, 3, 32, 32)).isfinite().all()


def test_tutorial_response_norm_is_that_of_torch():
    """torch divides alpha by the number of channels, TensorFlow does not."""
    x = (20 * torch.randn(2, 64, 5, 5, dtype=torch.float64)).requires_grad_()
    ours, theirs = _ResponseNorm()(x), nn.LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)(x)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(x)
    gradients = [torch.autograd.grad((weights * y).sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*gradients)
