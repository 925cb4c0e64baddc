"""Which hidden units of a feed-forward network may be exchanged without changing its function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from torch import fx, nn
from torch.fx.proxy import TraceError

__all__ = ["Units", "hidden_units", "innermost"]

#: Layers and functions that treat every unit alike and keep its place; sums and products also tie two sets of units.
_ALIKE_LAYERS = (
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.CELU, nn.Dropout,
    nn.Dropout2d, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.MaxPool1d,
    nn.MaxPool2d, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.Sigmoid, nn.SiLU, nn.Softplus, nn.Tanh,
)  # fmt: skip
_ALIKE = {
    "abs", "adaptive_avg_pool2d", "adaptive_max_pool2d", "add", "avg_pool2d", "boolean_dispatch", "clamp",
    "contiguous", "cos", "dropout", "elu", "exp", "gelu", "hardtanh", "iadd", "leaky_relu", "log_softmax", "max_pool2d",
    "mul", "neg", "pow", "relu", "relu_", "selu", "sigmoid", "silu", "sin", "softmax", "softplus", "square", "sub",
    "tanh", "truediv",
}  # fmt: skip
_RESHAPES = {"flatten", "reshape", "view"}
#: The units of the input and the output, which keep their places.
_FIXED = 0


@dataclass(frozen=True)
class Units:
    """Hidden units that may be exchanged with each other.

    Args:
        number: How many they are.
        places: Names of the parameters and buffers that they are in, each with the axis. An axis longer than ``number``
            (behind a flatten) has a block of equal length for each unit.
    """

    number: int
    places: tuple[tuple[str, int], ...]


def innermost(module: nn.Module) -> tuple[str, nn.Module]:
    """Give the smallest part of a module that has a forward and holds all parameters, and its name (with a dot)."""
    prefix, total = "", len(list(module.parameters()))
    while True:
        for name, child in module.named_children():
            has_forward = type(child).forward is not nn.Module.forward
            if has_forward and len(list(child.parameters())) == total and list(child.children()):
                prefix, module = f"{prefix}{name}.", child
                break
        else:
            return prefix, module


def hidden_units(network: nn.Module) -> list[Units]:
    """Trace a network by ``torch.fx`` and list its sets of hidden units, in order from input to output.

    A linear or convolutional layer makes new units, except that the network's outputs keep their places. Normalisation
    of batches, layers and instances, elementwise functions, pooling and flatten keep the units; what is added or
    multiplied shares them, as in a residual stream.

    Args:
        network: Linear, convolutional (also depthwise) and normalisation layers (of groups: one group), elementwise
            functions, pooling, flatten, and sums or products of them.

    Raises:
        ValueError: If the network cannot be traced, or has another layer or function, or a layer that is used twice.
    """
    try:
        graph = _Tracer().trace(network)
    except (TraceError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        msg = f"align: torch.fx cannot trace {type(network).__name__} ({str(error).splitlines()[0]}); search unaligned."
        raise ValueError(msg) from error
    return _Reader(network).read(graph)


class _Tracer(fx.Tracer):
    """Takes layers of weights for what they are, also where they are subclassed."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Linear | nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Walks over a traced network and knows of each value which units it consists of."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.numbers = [0]
        self.places: list[list[tuple[str, int]]] = [[]]
        self.merged = [_FIXED]
        self.used: set[str] = set()

    def read(self, graph: fx.Graph) -> list[Units]:
        values: dict[fx.Node, int] = {}
        for node in graph.nodes:
            inputs = [self.root(values[part]) for part in node.all_input_nodes]
            values[node] = self._value(node, inputs)
        sets: dict[int, list[tuple[str, int]]] = {}
        for units, places in enumerate(self.places):
            sets.setdefault(self.root(units), []).extend(places)
        return [Units(self.numbers[root], tuple(places)) for root, places in sets.items() if root != _FIXED and places]

    def root(self, units: int) -> int:
        while self.merged[units] != units:
            units = self.merged[units]
        return units

    def _value(self, node: fx.Node, inputs: list[int]) -> int:
        if node.op == "call_module":
            return self._layer(node, self.network.get_submodule(str(node.target)), inputs[0])
        if node.op == "output" or (inputs and _name(node) in _ALIKE):
            return self._tied([*inputs, _FIXED] if node.op == "output" else inputs, node)
        if all(units == _FIXED for units in inputs) or _name(node) == "size" or node.args[1:] == ("shape",):
            return _FIXED  # whatever becomes of the input; and sizes
        if node.args[1:] != ("T",) and not (_name(node) in _RESHAPES and _keeps_units(node)):
            _refuse(f"{node.op} {_name(node)}")
        return next(units for units in inputs if units != _FIXED)

    def _layer(self, node: fx.Node, layer: nn.Module, units: int) -> int:
        name = str(node.target)
        if list(layer.parameters()) and name in self.used:
            _refuse(f"the layer {name}, used twice,")
        self.used.add(name)
        what = f"the layer {name} ({type(layer).__name__})"
        match layer:
            case nn.Conv1d() | nn.Conv2d() if layer.groups == layer.in_channels == layer.out_channels > 1:
                self._put(units, layer, name, 0, what)
            case nn.Linear() | nn.Conv1d() | nn.Conv2d() if getattr(layer, "groups", 1) == 1:
                self._put_axis(units, f"{name}.weight", layer.weight.shape, 1, what)
                made = self._new(layer.weight.shape[0])
                self._put(made, layer, name, 0, what)
                return made
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.InstanceNorm1d() | nn.InstanceNorm2d() | nn.LayerNorm():
                self._put(units, layer, name, 0, what)
            case nn.GroupNorm() if layer.num_groups == 1:
                self._put(units, layer, name, 0, what)
            case nn.PReLU():
                if layer.num_parameters > 1:
                    self._put(units, layer, name, 0, what)
            case nn.Flatten() if layer.start_dim == 1:
                pass
            case _ if not isinstance(layer, _ALIKE_LAYERS) and (units != _FIXED or list(layer.parameters())):
                _refuse(what)
        return units

    def _new(self, number: int) -> int:
        self.numbers.append(number)
        self.places.append([])
        self.merged.append(len(self.merged))
        return len(self.merged) - 1

    def _put(self, units: int, layer: nn.Module, name: str, axis: int, what: str) -> None:
        """Note that all parameters and buffers of a layer have these units on an axis."""
        for key, tensor in layer.state_dict().items():
            if tensor.ndim:
                self._put_axis(units, f"{name}.{key}", tensor.shape, axis, what)

    def _put_axis(self, units: int, name: str, shape: Any, axis: int, what: str) -> None:
        if units != _FIXED and shape[axis] % self.numbers[units]:
            _refuse(what)
        self.places[units].append((name, axis))

    def _tied(self, inputs: list[int], node: fx.Node) -> int:
        """Let all inputs consist of the same units: those of the first of them, or fixed ones."""
        kept = min(inputs)
        for units in inputs:
            if kept != _FIXED and self.numbers[units] != self.numbers[kept]:
                _refuse(f"{_name(node)} of {self.numbers[kept]} and {self.numbers[units]} units")
            self.merged[units] = kept
        return kept


def _refuse(what: str) -> NoReturn:
    msg = (
        f"align: {what} is not supported; alignment knows linear and convolutional layers, normalisation of batches, "
        "layers and instances, elementwise functions, pooling, flatten and sums. Search unaligned."
    )
    raise ValueError(msg)


def _name(node: fx.Node) -> str:
    """Give the name of a function or method."""
    target: str | Callable[..., Any] = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def _keeps_units(node: fx.Node) -> bool:
    """Tell whether a reshape flattens all axes from the second one on."""
    given = node.args[1:]
    if _name(node) == "flatten":
        return bool((given[0] if given else node.kwargs.get("start_dim", 0)) == 1)
    sizes = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    return len(sizes) == 2 and bool(sizes[-1] == -1)
