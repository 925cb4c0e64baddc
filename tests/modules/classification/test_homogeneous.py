"""The homogeneous network, and a cross-entropy whose gradient does not vanish."""

import mpmath
import pytest
import torch
from torch import nn
from torch.nn import functional

from theodolite.modules.classification import HomogeneousMLP, TailCrossEntropy
from theodolite.modules.margins import homogeneity


@pytest.mark.parametrize("widths", [None, [7], [7, 5, 4]])
def test_network_is_homogeneous_of_its_number_of_layers(widths):
    torch.manual_seed(0)
    network = HomogeneousMLP(3, (1, 4, 4), widths, init_scale=2.0)
    nn.init.normal_(network[1].bias)
    result = homogeneity(network, torch.rand(5, 1, 4, 4))
    assert result.degree == len(widths or [512]) + 1
    assert [name for name, _ in network.named_parameters() if "bias" in name] == ["1.bias"]


@pytest.mark.parametrize("arguments", [{"widths": []}, {"widths": [4, 0]}, {"init_scale": 0.0}])
def test_sizes_that_are_no_network_are_refused(arguments):
    with pytest.raises(ValueError, match=r"HomogeneousMLP\(widths=.*needs one hidden layer or more"):
        HomogeneousMLP(**arguments)


def test_loss_and_gradient_are_those_of_cross_entropy_where_that_is_exact():
    torch.manual_seed(0)
    logits, y = torch.randn(9, 4).double().requires_grad_(), torch.randint(4, (9,))
    ours = TailCrossEntropy()(lambda x: x, logits, y)
    theirs = functional.cross_entropy(logits, y)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    (a,), (b,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


def test_loss_and_gradient_far_out_agree_with_high_precision_from_float32_logits():
    logits = torch.tensor([[60.0, 0.0, 1.0]], requires_grad=True)
    loss = TailCrossEntropy()(lambda x: x, logits, torch.tensor([0]))
    with mpmath.workdps(60):
        tails = [mpmath.exp(-60), mpmath.exp(-59)]
        expected = mpmath.log(1 + sum(tails))
        gradient = [-sum(tails) / (1 + sum(tails)), *(tail / (1 + sum(tails)) for tail in tails)]
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-13)
    (found,) = torch.autograd.grad(loss, logits)
    assert found[0].tolist() == pytest.approx([float(value) for value in gradient], rel=1e-6)
