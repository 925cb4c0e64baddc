"""A loss as a function of parameter vectors, many at a time: all that searches for paths see of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from .batch_norm import batch_norms, fresh_statistics
from .ranks import share
from .recorded import Recorded

__all__ = [
    "LARGE",
    "Landscape",
    "LossFunction",
    "ModelLandscape",
    "Surface",
    "as_measured",
    "flat",
    "loss_of",
    "num_samples",
    "own_error",
    "unflat",
]

#: Gives a scalar of a module and a batch: a loss, or a held-out metric.
LossFunction = Callable[[Any, Any], Tensor]


#: From so many parameters a network is large: what Python does around an operation takes little of its time, and its
#: Adam is fused (a third of the time; for few, the other is faster).
LARGE = 2**16

#: Points are evaluated together only if so many fit: with fewer, each is long enough to be done alone at full speed.
_LEAST_CHUNK = 32


class Landscape(ABC):
    """A function of parameter vectors.

    Attributes:
        counted: Which parameters lengths count, (P,) bool; ``None`` for all.
        period: Gradients repeat after so many steps; 0 if they never do.
        level_is_loss: Whether the loss that :meth:`gradient` gives is the quantity of the level.
    """

    counted: Tensor | None = None
    period: int = 1
    level_is_loss: bool = True

    @abstractmethod
    def gradient(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Give the training loss of each point, (n,), and its gradient, (n, P), on the batch of a step."""

    @abstractmethod
    def values(self, points: Tensor) -> Tensor:
        """Give the quantity of the level at each point, (n,), without gradient; points (n, P)."""

    def values_together(self, points: Tensor) -> Tensor:
        """Give :meth:`values`, each process evaluating its share; all must call it, with the same points."""
        return share(lambda part: (self.values(part),), points)[0]


class Surface(Landscape):
    """A landscape given by a formula.

    Args:
        function: Points (n, P) to values (n,), differentiable; each value depends on its own point only.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def gradient(self, points: Tensor, step: int = 0) -> tuple[Tensor, Tensor]:
        """Differentiate the formula."""
        del step
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            values = self.function(points)
            (gradient,) = torch.autograd.grad(values.sum(), points)
        return values.detach(), gradient

    def values(self, points: Tensor) -> Tensor:
        """Evaluate the formula."""
        with torch.no_grad():
            return self.function(points)


class ModelLandscape(Landscape):
    """The loss of a module over its parameters, on given batches.

    Points are evaluated together by ``torch.func.vmap`` in chunks whose saved activations fit ``chunk_bytes``, and one
    by one where few fit: a naive vmap over large batches is slower than the loop, because nothing stays in the cache.
    The module is only read. Batch normalisation is re-estimated at every evaluated point, ends included: its running
    statistics belong to no point of a path (`Jordan et al. 2022 <https://arxiv.org/abs/2211.08403>`_, and the recipe of
    `Garipov et al. 2018 <https://arxiv.org/abs/1802.10026>`_).

    Args:
        module: Gives names and shapes of the parameters.
        batches: Batches to train on, on the module's device; step s uses batch s modulo their number.
        loss_fn: Training loss of (module, batch), a mean over samples; ``None`` calls ``module.loss(batch)``.
        level_fn: Quantity of the level of (module, batch), a mean over samples; ``None`` for the training loss.
        level_batches: Batches it is averaged over, weighted by samples; ``None`` for ``batches``.
        level_scale: Applied to that average, elementwise and increasing, e.g. ``torch.exp`` for a perplexity.
        count: Parameters that lengths count: all, or the weights (two or more axes) without biases.
        chunk_bytes: Memory of the activations of points evaluated together, in bytes.
        training: Called with a step, gives the context of its gradients: mixed precision, dropout. Values are taken
            outside of it.

    Raises:
        ValueError: If there is no batch or no loss, ``chunk_bytes`` is not positive, ``count`` is something else, or a
            layer keeps statistics that cannot be re-estimated.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Sequence[Any],
        *,
        loss_fn: LossFunction | None = None,
        level_fn: LossFunction | None = None,
        level_batches: Sequence[Any] | None = None,
        level_scale: Callable[[Tensor], Tensor] | None = None,
        count: Literal["all", "weights"] = "all",
        chunk_bytes: int = 2**23,
        training: Callable[[int], AbstractContextManager[Any]] | None = None,
    ) -> None:
        if not batches or (level_batches is not None and not level_batches):
            msg = "ModelLandscape(batches=[]): give at least one batch to evaluate the loss on."
            raise ValueError(msg)
        if chunk_bytes < 1:
            msg = f"ModelLandscape(chunk_bytes={chunk_bytes}): must be positive, in bytes, e.g. {2**23}."
            raise ValueError(msg)
        if count not in {"all", "weights"}:
            msg = f"count={count!r}: lengths count all parameters or the weights; choose from all, weights."
            raise ValueError(msg)
        self.module = module
        self.batches = batches
        self.period = len(batches) if training is None else 0
        self.level_batches = batches if level_batches is None else level_batches
        loss_fn = loss_of(module, loss_fn)
        self._loss = _Objective(module, loss_fn)
        self._level = _Objective(module, level_fn or loss_fn)
        self._scale = level_scale or _unchanged
        # asked for once: of a small network a step is mostly what Python does around it
        self._shapes = _shapes(module, "module.")
        self._tied = len(self._shapes) < len(list(module.named_parameters(remove_duplicate=False)))
        self._norms = batch_norms(module)
        plain = level_fn is None and level_batches is None and level_scale is None and training is None
        self.level_is_loss = plain and len(batches) == 1 and not self._norms
        self.counted = None
        if count == "weights":
            self.counted = torch.cat([torch.full((p.numel(),), p.ndim > 1) for p in module.parameters()])
        self._training = training or nullcontext
        # torch.func.vmap has no rule for recurrent layers
        self._single = bool(self._norms) or any(isinstance(part, nn.RNNBase) for part in module.modules())
        self._chunk_bytes = chunk_bytes
        self._chunks: dict[tuple[int, int], int] = {}
        self._recorded: Recorded | None = None
        if self.period == 1 and not self._single and sum(shape.numel() for shape in self._shapes.values()) < LARGE:
            self._recorded = Recorded(lambda points: self._differentiated(points, batches[0], 0))

    def gradient(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Differentiate the loss on batch ``step`` modulo their number."""
        batch = self.batches[step % len(self.batches)]
        chunks = points.split(self._chunk(self._loss, points, batch))
        if self._recorded is not None:
            parts = [self._recorded(chunk) for chunk in chunks]
        else:
            parts = [self._differentiated(chunk, batch, step) for chunk in chunks]
        if len(parts) == 1:
            return parts[0]
        losses, gradients = zip(*parts, strict=True)
        return torch.cat(losses), torch.cat(gradients)

    @torch.enable_grad()
    def _differentiated(self, points: Tensor, batch: Any, step: int) -> tuple[Tensor, Tensor]:
        # leaves of the parameters' own shapes: their gradients are put together once
        leaves = {name: part.detach().requires_grad_() for name, part in _views(points, self._shapes).items()}
        with self._training(step), fresh_statistics(self._norms):
            values = self._evaluate(self._loss, leaves, batch)
            parts = torch.autograd.grad(values.sum(), list(leaves.values()), materialize_grads=True)
        return values.detach(), torch.cat([part.flatten(1) for part in parts], dim=1)

    @torch.no_grad()
    def values(self, points: Tensor) -> Tensor:
        """Average the quantity over the level's batches."""
        if self._norms:
            return self._scale(torch.stack([self._recalibrated(point) for point in points]))
        total, samples = points.new_zeros(len(points)), 0
        for batch in self.level_batches:
            size = self._size(batch)
            chunks = points.split(self._chunk(self._level, points, batch))
            total += size * torch.cat([self._at(self._level, chunk, batch) for chunk in chunks])
            samples += size
        return self._scale(total / samples)

    def _at(self, objective: "_Objective", points: Tensor, batch: Any) -> Tensor:
        return self._evaluate(objective, _views(points, self._shapes), batch)

    def _evaluate(self, objective: "_Objective", parameters: dict[str, Tensor], batch: Any) -> Tensor:
        """Call an objective with stacks of parameters, each (n, *shape); gives (n,)."""

        def one(values: dict[str, Tensor]) -> Tensor:
            return functional_call(objective, values, (batch,), tie_weights=self._tied)

        if len(next(iter(parameters.values()))) == 1:
            return one({name: part[0] for name, part in parameters.items()}).reshape(1)
        if not self._single:
            try:
                return vmap(one, randomness="same")(parameters)  # of dropout: each point's masks are those it has alone
            except RuntimeError as error:  # a loss that branches on a value, or picks entries by a mask
                if "vmap" not in str(error):
                    raise
                self._single = True
        rows = zip(*parameters.values(), strict=True)
        return torch.stack([one(dict(zip(parameters, row, strict=True))).reshape(()) for row in rows])

    def _size(self, batch: Any) -> int:
        """Count the samples of a batch: what the module counts, where it does."""
        own: Any = getattr(self.module, "num_samples", None)
        return num_samples(batch) if own is None else own(batch)

    def _chunk(self, objective: "_Objective", points: Tensor, batch: Any) -> int:
        """Give how many points are evaluated together: measured once by what autograd keeps of one."""
        if self._single or len(points) == 1:
            return 1
        key = (id(objective), self._size(batch))
        if key not in self._chunks:
            kept = 0

            def count(tensor: Tensor) -> Tensor:
                nonlocal kept
                kept += tensor.numel() * tensor.element_size()
                return tensor

            with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                self._at(objective, points[:1].detach().requires_grad_(), batch)
            fitting = self._chunk_bytes // max(kept, 1)
            self._chunks[key] = fitting if fitting >= _LEAST_CHUNK else 1
        return self._chunks[key]

    def _recalibrated(self, point: Tensor) -> Tensor:
        """Evaluate one point of a network with batch normalisation, after re-estimating its statistics there."""
        with fresh_statistics(self._norms) as evaluate:
            for batch in self.batches:
                self._at(self._loss, point[None], batch)
            evaluate()
            sizes = [self._size(batch) for batch in self.level_batches]
            values = torch.cat([self._at(self._level, point[None], batch) for batch in self.level_batches])
        return (values * values.new_tensor(sizes)).sum() / sum(sizes)


class _Objective(nn.Module):
    """What ``functional_call`` calls: a function of a module whose parameters are replaced."""

    def __init__(self, module: nn.Module, function: LossFunction) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, batch: Any) -> Tensor:
        return self.function(self.module, batch)


def loss_of(module: Any, loss_fn: LossFunction | None) -> LossFunction:
    """Give the loss that was given, or else the module's ``loss(batch)``.

    Raises:
        ValueError: If there is neither.
    """
    if loss_fn is None and not callable(getattr(module, "loss", None)):
        msg = f"{type(module).__name__} has no loss(batch); give loss_fn(module, batch)."
        raise ValueError(msg)
    return loss_fn or _own_loss


def _own_loss(module: Any, batch: Any) -> Tensor:
    """Call the module's ``loss(batch)``."""
    return module.loss(batch)


def own_error(module: Any, batch: Any) -> Tensor:
    """Call the module's ``error(batch)``."""
    return module.error(batch)


def _unchanged(values: Tensor) -> Tensor:
    return values


def flat(module: nn.Module, state: Mapping[str, Tensor] | None = None) -> Tensor:
    """Copy a module's parameters, or another's by name, into one vector, (P,), in the order of ``named_parameters``."""
    return torch.cat(
        [
            (parameter if state is None else state[name]).detach().to(parameter).reshape(-1)
            for name, parameter in module.named_parameters()
        ]
    )


def unflat(points: Tensor, module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """View parameter vectors, (..., P), as the named parameters of a module, each (..., *shape)."""
    return _views(points, _shapes(module, prefix))


def _shapes(module: nn.Module, prefix: str) -> dict[str, torch.Size]:
    return {prefix + name: parameter.shape for name, parameter in module.named_parameters()}


def _views(points: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    parts = points.split([shape.numel() for shape in shapes.values()], dim=-1)
    named = zip(shapes.items(), parts, strict=True)
    return {name: part.reshape(*points.shape[:-1], *shape) for (name, shape), part in named}


@contextmanager
def as_measured(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its parts back into the mode it was in."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


def num_samples(batch: Any) -> int:
    """Count the samples of a batch: the first axis of the first tensor in it.

    Raises:
        ValueError: If there is no tensor in it.
    """
    first = next(_tensors(batch), None)
    if first is None:
        msg = f"a batch of type {type(batch).__name__} has no first tensor to count samples by; give tuples of tensors."
        raise ValueError(msg)
    return len(first)


def _tensors(batch: Any) -> Iterator[Tensor]:
    if isinstance(batch, Tensor):
        yield batch
    for part in batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ():
        yield from _tensors(part)
