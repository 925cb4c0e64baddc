"""Weight matching: permuted copies come back exactly, and no function ever changes."""

import copy
import itertools

import pytest
import torch
from torch import nn

from theodolite.callbacks.geodesics import Settings, aligned, connect, flat, hidden_units, match_weights, permuted
from theodolite.callbacks.geodesics.landscape import loss_of
from theodolite.modules.classification import ImageClassifier
from theodolite.modules.classification.networks import MadryCNN, ResNet9, ResNet18, SmallCNN
from theodolite.modules.regression import FeedForward, Regression


def regression(seed, widths=(3, 6, 5, 2), activation="relu"):
    torch.manual_seed(seed)
    return Regression(FeedForward(widths, activation)).double()


def samples(inputs=3, outputs=2, n=20):
    generator = torch.Generator().manual_seed(5)
    x, y = torch.randn(n, inputs, generator=generator), torch.randn(n, outputs, generator=generator)
    return x.double(), y.double(), torch.arange(n)


def classifier(seed, network, shape, **more):
    torch.manual_seed(seed)
    module = ImageClassifier(network(num_classes=4, input_shape=shape, **more), 4).double()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith(("running_mean", "running_var")):  # as training leaves them
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.ndim == 1:  # distinct units also where a layer begins with ones
                value.add_(torch.rand_like(value) / 10)
    return module.eval()


def layer_normalised(num_classes, input_shape):
    """A convolutional and a linear network in one, whose units are normalised together, and one by one."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 5, 3), nn.GroupNorm(1, 5), nn.PReLU(5), nn.Conv2d(5, 6, 3),
        nn.InstanceNorm2d(6, affine=True), nn.PReLU(), nn.Conv2d(6, 7, 3), nn.LayerNorm([7, 2, 2]), nn.Flatten(),
        nn.Linear(28, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, num_classes),
    )  # fmt: skip


def images(shape, n=6):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(6)).double(), torch.arange(n) % 4


SHAPE = (3, 8, 8)
CASES = {
    "mlp": (lambda seed: regression(seed), samples()),
    "convnet with flatten": (lambda seed: classifier(seed, SmallCNN, SHAPE, width=4), images(SHAPE)),
    "resnet9": (lambda seed: classifier(seed, ResNet9, SHAPE, width=4), images(SHAPE)),
    "normalised layers": (lambda seed: classifier(seed, layer_normalised, SHAPE), images(SHAPE)),
}


def shuffled(module, seed=9):
    """A copy with all of its hidden units in random orders."""
    generator = torch.Generator().manual_seed(seed)
    units = hidden_units(module.network)
    orders = [torch.randperm(group.number, generator=generator) for group in units]
    copied = copy.deepcopy(module)
    copied.network.load_state_dict(permuted(module.network.state_dict(), units, orders))
    return copied


@pytest.mark.parametrize("case", CASES)
def test_permuted_copy_comes_back_exactly_and_without_barrier(case):
    make, batch = CASES[case]
    module = make(0)
    other = shuffled(module)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    assert not torch.equal(flat(other), flat(module))
    torch.testing.assert_close(other(batch[0]), module(batch[0]))
    targets = module(batch[0]).detach()
    batch = (batch[0], targets if case == "mlp" else targets.argmax(1), *batch[2:])
    settings = Settings(grid=9, tolerance=100)
    line = connect(module, other, [batch], 10.0, "linear", settings).values
    assert line.max() - line.min() > 1e-6
    path = connect(module, other, [batch], 10.0, "linear", settings, align=True)
    assert torch.equal(path.beads[0], path.beads[1])
    assert path.barrier == 0
    assert torch.equal(flat(module), path.beads[0])
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    back = aligned(module, other.state_dict(), batch, loss_of(module, None))
    assert all(torch.equal(value, back[name]) for name, value in module.state_dict().items())  # the statistics too


@pytest.mark.parametrize("case", CASES)
def test_aligning_another_network_keeps_its_function_and_shortens_the_way(case):
    make, batch = CASES[case]
    module, other = make(0), make(1)
    moved = copy.deepcopy(other)
    moved.load_state_dict(aligned(module, other.state_dict(), batch, loss_of(module, None)))
    torch.testing.assert_close(moved(batch[0]), other(batch[0]))
    distances = [torch.linalg.vector_norm(flat(end) - flat(module)) for end in (moved, other)]
    assert distances[0] < distances[1]
    assert torch.linalg.vector_norm(flat(moved)) == pytest.approx(float(torch.linalg.vector_norm(flat(other))))


def test_one_hidden_layer_is_matched_as_well_as_by_trying_all_orders():
    first, second = (regression(seed, (2, 5, 1)).network.state_dict() for seed in (0, 1))
    units = hidden_units(regression(0, (2, 5, 1)).network)
    (order,) = match_weights(first, second, units)

    def likeness(order):
        moved = permuted(second, units, [order])
        return sum(float((first[name] * moved[name]).sum()) for name in first)

    best = max(likeness(torch.tensor(order)) for order in itertools.permutations(range(5)))
    assert likeness(order) == pytest.approx(best, rel=1e-12)


def test_units_of_residual_streams_are_shared_and_those_behind_flatten_are_blocks():
    network = ResNet9(num_classes=4, input_shape=SHAPE, width=4)
    assert [group.number for group in hidden_units(network)] == [4, 8, 8, 16, 32, 32]
    stream = hidden_units(network)[1]
    assert ("7.block.3.weight", 0) in stream.places  # what the block gives is added to what it takes
    assert ("7.block.0.weight", 1) in stream.places
    assert ("4.running_var", 0) in stream.places
    (first, second) = hidden_units(MadryCNN(num_classes=4, input_shape=(1, 8, 8)))[1:]
    assert second.number == 1024
    assert ("7.weight", 1) in first.places
    assert first.number == 64  # of 4 entries each in the 256 inputs of the linear layer
    assert len(hidden_units(ResNet18(num_classes=4))) == 12


class Branches(nn.Module):
    """What a user writes by hand: functions, methods, a view, a depthwise convolution, a scaled sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 16, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        x = nn.functional.relu(self.stem(x / 2 - 1))
        x = x + 0.5 * torch.tanh(self.norm(self.depthwise(x)))
        x = nn.functional.max_pool2d(x, 2)
        return torch.log_softmax(self.out(self.head(x.view(x.size(0), -1)).sigmoid()), 1)

    def loss(self, batch):
        return -self(batch[0])[:, 0].mean()


def test_functions_methods_and_depthwise_convolutions_are_followed():
    torch.manual_seed(0)
    first, second = Branches().double().eval(), Branches().double().eval()
    assert [group.number for group in hidden_units(first)] == [6, 5]
    batch = (torch.rand(7, 1, 8, 8).double(),)
    moved = Branches().double().eval()
    moved.load_state_dict(aligned(first, second.state_dict(), batch, loss_of(first, None)))
    assert not torch.equal(flat(moved), flat(second))
    torch.testing.assert_close(moved(batch[0]), second(batch[0]))


class Twice(Branches):
    def forward(self, x):
        return self.depthwise(self.depthwise(self.stem(x)))


class Chosen(Branches):
    def forward(self, x):
        return self.out(x) if x.sum() > 0 else x


class Sorted(Branches):
    def forward(self, x):
        return self.head(self.stem(x).flatten(1).sort(1).values)


class Reversed(nn.ReLU):
    def forward(self, x):
        return x * torch.arange(x.shape[1])


def test_networks_that_cannot_be_aligned_are_refused_in_one_line():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"align: the layer depthwise, used twice, is not supported; alignment knows"):
        hidden_units(Twice())
    with pytest.raises(ValueError, match=r"align: torch.fx cannot trace Chosen \(symbolically traced"):
        hidden_units(Chosen())
    with pytest.raises(ValueError, match=r"align: call_method sort is not supported"):
        hidden_units(Sorted())
    with pytest.raises(ValueError, match=r"align: the layer 0 \(LSTM\) is not supported"):
        hidden_units(nn.Sequential(nn.LSTM(3, 4)))
    first = Regression(FeedForward((2, 3, 1)))
    with pytest.raises(ValueError, match=r"the loss never calls FeedForward.forward"):
        aligned(first, first.state_dict(), None, lambda module, batch: module.network.layers[0].weight.sum())


def test_a_trace_that_misses_something_is_noticed(monkeypatch):
    torch.manual_seed(0)
    first, second = (nn.Sequential(nn.Linear(3, 5), Reversed(), nn.Linear(5, 2)).double() for _ in range(2))
    monkeypatch.setattr(Reversed, "__module__", "torch.nn.modules.activation")  # which torch.fx takes for a leaf
    with pytest.raises(ValueError, match=r"exchanging units changes an output of Sequential by .* Search unaligned"):
        aligned(first, second.state_dict(), samples()[0], lambda module, batch: module(batch).sum())
