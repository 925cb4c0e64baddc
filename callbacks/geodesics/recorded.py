"""Repeat the tensor operations of a function: for small networks most of a step is what Python does around them."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["Recorded"]

#: Calls with a size before its operations are recorded: that takes as long as is saved in so many.
_CALLS = 300

#: Operations that give their argument if shape and strides stay.
_VIEWS = {
    torch.ops.aten.alias.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.expand.default,
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
}


class Recorded:
    """A function whose operations are recorded once it was called often with about as many rows, and then repeated.

    What it reads beside its argument, such as samples, is read anew in each call; what it does in Python is not done
    again. So it must do the same with every argument of a shape. One that asks for values on the way, or of which the
    recording does not give exactly the same, is called as it is.

    Args:
        function: Points (n, P) to losses (n,) and gradients (n, P); two and more through ``torch.func.vmap``, which
            refuses functions that ask for values.
    """

    def __init__(self, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.function = function
        self._calls: Counter[int] = Counter()
        self._recordings: dict[int, Callable[[Tensor], tuple[Tensor, Tensor]]] = {}

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Give what the function gives."""
        rows = len(points)
        size = _size(rows)
        if size not in self._recordings:
            self._calls[size] += 1
            if self._calls[size] < _CALLS:
                return self.function(points)
            self._recordings[size] = self._record(points[-1:].expand(size, -1).contiguous())
        recording = self._recordings[size]
        with torch.no_grad():
            if rows == size or recording is self.function:
                return recording(points)
            losses, gradients = recording(torch.cat([points, points[-1:].expand(size - rows, -1)]))
            return losses[:rows], gradients[:rows]

    def _record(self, points: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        try:
            self.function(torch.cat([points, points]))  # a recording of one row alone would keep the values asked for
            recording = make_fx(self.function)(points)
        except (RuntimeError, TypeError, ValueError):  # torch's, of what it cannot record
            return self.function
        _skip_views(recording)
        asked = self.function(points)
        for recorded in (_direct(recording), recording):
            # TypeError: some operations have a namesake in torch that takes other arguments
            with torch.no_grad(), suppress(RuntimeError, TypeError):
                if all(map(torch.equal, recorded(points), asked)):
                    return recorded
        return self.function


def _size(rows: int) -> int:
    """Round up to 1, 2, 3, 4, 6, 8, 12, ...: few recordings serve all numbers of rows, with less than half more."""
    power = 1 << (rows - 1).bit_length()
    return power * 3 // 4 if rows <= power * 3 // 4 else power


def _skip_views(recording: GraphModule) -> None:
    for node in recording.graph.nodes:
        if node.target in _VIEWS:
            before, after = node.args[0].meta.get("val"), node.meta["val"]  # none of what is read beside the argument
            if before is not None and (before.shape, before.stride()) == (after.shape, after.stride()):
                node.replace_all_uses_with(node.args[0])
    recording.graph.eliminate_dead_code()
    recording.recompile()


def _direct(recording: GraphModule) -> GraphModule:
    """Call operations by their functions in ``torch``, or their methods, which take less time than ``torch.ops``."""
    graph = Graph()
    graph.output(graph.graph_copy(recording.graph, {}))
    for node in graph.nodes:
        if isinstance(node.target, OpOverload):
            name = node.target.overloadpacket.__name__
            node.target = getattr(torch, name, None) or getattr(Tensor, name, None) or node.target
    return GraphModule(recording, graph)
