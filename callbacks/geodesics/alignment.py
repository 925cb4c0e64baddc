"""Permute the hidden units of one network so that its weights are close to those of another."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .landscape import LossFunction, as_measured
from .units import Units, hidden_units, innermost

__all__ = ["aligned", "match_weights", "permuted"]

#: State of a network: its parameters, and maybe buffers, by name.
State = Mapping[str, Tensor]


def aligned(module: nn.Module, state: State, batch: Any, loss_fn: LossFunction) -> dict[str, Tensor]:
    r"""Exchange hidden units of another network of a module's architecture, to bring its weights close to the module's.

    The function of the other network stays what it is, which is checked on a batch. See :func:`match_weights`.

    Args:
        module: The network that stays, on the device of the batch.
        state: ``state_dict`` of the other network.
        batch: What the functions are compared on.
        loss_fn: Loss of (module, batch): calls the network.

    Returns:
        The ``state_dict`` of the other network with its units in their new order.

    Raises:
        ValueError: If the network is not one of those of :func:`hidden_units`, or its function would change.
    """
    prefix, network = innermost(module)
    units = hidden_units(network)
    own = network.state_dict()
    inner = {name: state[prefix + name].to(own[name]) for name in own if prefix + name in state}
    orders = match_weights(dict(network.named_parameters()), inner, units)
    new = permuted(inner, units, orders)
    _check_function(module, network, inner, new, batch, loss_fn)
    return {**state, **{prefix + name: value for name, value in new.items()}}


def match_weights(first: State, second: State, units: Sequence[Units]) -> list[Tensor]:
    r"""Find the order of hidden units that brings the weights of one network close to those of another.

    Weight matching of `"Git Re-Basin" <https://arxiv.org/abs/2209.04836>`_: for one set of units after the other, solve

    .. math:: \max_{P_l}\ \langle P_l,\ W_l^A P_{l-1} (W_l^B)^T + (W_{l+1}^A)^T P_{l+1} W_{l+1}^B \rangle

    until no order changes. Biases and the factors of normalisation layers count as weights do. It starts from a sweep
    from input to output, in which only the weights between units whose order is known count: a permuted copy of
    distinct units is found by it exactly.

    Args:
        first: Parameters of the network that stays.
        second: Parameters of the other.
        units: Sets of units, from input to output.

    Returns:
        For each set the new order: unit i becomes what unit ``order[i]`` of the second network was.
    """
    from scipy.optimize import linear_sum_assignment  # late: half of a second for a rare function

    matching = _Matching(first, second, units)
    for number in range(len(units)):
        similarity = matching.similarity(number, set(range(number)))
        matching.orders[number] = torch.from_numpy(linear_sum_assignment(similarity, maximize=True)[1])
    changed = True
    while changed:
        changed = False
        for number in range(len(units)):
            before = matching.orders[number]
            score = matching.score(number)
            similarity = matching.similarity(number, set(range(len(units))))
            matching.orders[number] = torch.from_numpy(linear_sum_assignment(similarity, maximize=True)[1])
            if matching.score(number) > score + 1e-12 * abs(score):
                changed = True
            else:
                matching.orders[number] = before
    return matching.orders


def permuted(state: State, units: Sequence[Units], orders: Sequence[Tensor]) -> dict[str, Tensor]:
    """Give a network's state with its hidden units in another order, as :func:`match_weights` gives it."""
    new = dict(state)
    for group, order in zip(units, orders, strict=True):
        for name, axis in group.places:
            new[name] = _reordered(new[name], axis, order)
    return new


class _Matching:
    """The orders found so far, and how similar the weights are under them."""

    def __init__(self, first: State, second: State, units: Sequence[Units]) -> None:
        self.first = {name: value.detach().double().cpu() for name, value in first.items()}
        self.second = {name: second[name].detach().double().cpu() for name in first}
        self.units = units
        self.orders = [torch.arange(group.number) for group in units]
        #: Sets of units, and their axes, of every weight.
        self.axes: dict[str, list[tuple[int, int]]] = {}
        for number, group in enumerate(units):
            for name, axis in group.places:
                self.axes.setdefault(name, []).append((number, axis))

    def similarity(self, number: int, known: set[int]) -> Tensor:
        """Give the inner products of the weights of units of the first and the second network, (n, n).

        Args:
            number: Of the set of units.
            known: Sets whose order is known; a weight that has others too does not count.
        """
        group = self.units[number]
        total = torch.zeros(group.number, group.number, dtype=torch.float64)
        for name, axis in group.places:
            others = [place for place in self.axes[name] if place != (number, axis)]
            if name in self.first and all(other in known for other, _ in others):
                second = self._put_in_order(name, others)
                rows = [_by_unit(weight, axis, group.number) for weight in (self.first[name], second)]
                total += rows[0] @ rows[1].T
        return total

    def score(self, number: int) -> float:
        """Give the inner product of all weights that a set of units is in."""
        names = {name for name, _ in self.units[number].places if name in self.first}
        return sum(
            float((self.first[name] * self._put_in_order(name, self.axes[name])).sum()) for name in sorted(names)
        )

    def _put_in_order(self, name: str, places: Sequence[tuple[int, int]]) -> Tensor:
        weight = self.second[name]
        for number, axis in places:
            weight = _reordered(weight, axis, self.orders[number])
        return weight


def _by_unit(weight: Tensor, axis: int, number: int) -> Tensor:
    """Give a row for each of the units that an axis consists of, (number, rest)."""
    return weight.unflatten(axis, (number, -1)).movedim(axis, 0).reshape(number, -1)


def _reordered(weight: Tensor, axis: int, order: Tensor) -> Tensor:
    blocks = weight.unflatten(axis, (len(order), -1))
    return blocks.index_select(axis, order.to(weight.device)).flatten(axis, axis + 1)


@torch.no_grad()
def _check_function(
    module: nn.Module, network: nn.Module, before: State, after: State, batch: Any, loss_fn: LossFunction
) -> None:
    """Compare the outputs of two states of a network on the inputs that the loss gives it."""
    inputs: list[tuple[Any, Any]] = []
    with as_measured(module):
        hook = network.register_forward_pre_hook(lambda _, *given: inputs.append(given), with_kwargs=True)
        try:
            loss_fn(module, batch)
        finally:
            hook.remove()
        if not inputs:
            msg = f"align: the loss never calls {type(network).__name__}.forward, which was traced. Search unaligned."
            raise ValueError(msg)
        for given in inputs:
            old, new = (functional_call(network, dict(state), *given) for state in (before, after))
            if not isinstance(old, Tensor):
                msg = (
                    f"align: {type(network).__name__} gives a {type(old).__name__}, so its outputs cannot be compared; "
                    "it must give a tensor. Search unaligned."
                )
                raise ValueError(msg)
            difference, scale = float((old - new).abs().max()), float(old.abs().max())
            if not difference <= torch.finfo(old.dtype).eps ** 0.5 * scale:
                msg = (
                    f"align: exchanging units changes an output of {type(network).__name__} by {difference:.3g} (the "
                    f"largest is {scale:.3g}), so its trace misses something. Search unaligned."
                )
                raise ValueError(msg)
