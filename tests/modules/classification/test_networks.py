"""The networks are those published: their numbers of parameters are, and they take any image size they promise."""

import pytest
import torch

from theodolite.modules.classification import (
    LinearNetwork,
    MadryCNN,
    ResNet9,
    ResNet18,
    ResNet50,
    SmallCNN,
    TorchvisionNetwork,
)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (MadryCNN, 832 + 51_264 + 3_212_288 + 10_250),
        (ResNet9, 6_573_120),  # as printed in Page's notebooks
        (ResNet18, 11_173_962),  # as commonly reported for ten classes and a 3x3 stem
        (ResNet50, 23_520_842),
    ],
)
def test_number_of_parameters_is_the_published_one(network, parameters):
    assert sum(parameter.numel() for parameter in network().parameters()) == parameters


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 24, 16)])
@pytest.mark.parametrize("network", [MadryCNN, SmallCNN, ResNet9, ResNet18])
def test_takes_the_shape_and_the_classes_it_is_given(network, shape):
    assert network(num_classes=3, input_shape=shape).eval()(torch.rand(2, *shape)).shape == (2, 3)


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
