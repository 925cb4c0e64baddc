"""Explicit paths between two-layer networks of any activation, of straight legs on which the loss never rises."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["permutation_path", "wide_path"]

#: A two-layer network: input weights (M, n) and output weights (M, n_out); x to sum_j v_j rho(w_j . x).
TwoLayer = tuple[Tensor, Tensor]


def wide_path(x: Tensor, activation: Callable[[Tensor], Tensor], first: TwoLayer, second: TwoLayer) -> list[TwoLayer]:
    r"""Join two wide networks by seven straight legs; a convex loss on these inputs is never above the higher end.

    1. Move the output weights, at constant outputs, to as few units of A as span its features; 2. turn the units then
    unused into copies of those of B that span B's features; 3. move the output weights to these, on which the outputs
    are on a straight line; 4. turn the unused units into B's own; 5. hand the output weights to them; 6. turn the rest
    into B's; 7. step 1 of B backwards. Venturi, Bandeira & Bruna, `"Spurious Valleys in One-hidden-layer Neural Network
    Optimization Landscapes" <https://jmlr.org/papers/v20/18-674.html>`_, has the idea.

    Args:
        x: Inputs, (L, n).
        activation: rho, elementwise.
        first: A: input weights (M, n), output weights (M, n_out).
        second: B, of the same shapes.

    Returns:
        The eight corners, both ends included.

    Raises:
        ValueError: If the features of A and of B have more than M dimensions together; M >= 2 L is always enough.
    """
    (w_a, v_a), (w_b, v_b) = first, second
    used_a, few_a = _compressed(activation(x @ w_a.T), v_a)
    used_b, few_b = _compressed(activation(x @ w_b.T), v_b)
    units = len(w_a)
    if len(used_a) + len(used_b) > units:
        msg = (
            f"wide_path: the features of the ends have {len(used_a)} and {len(used_b)} dimensions, together more than "
        )
        msg += f"the {units} units; give a wider network or fewer inputs."
        raise ValueError(msg)
    free = [unit for unit in range(units) if unit not in {*used_a, *used_b}]
    slots = {unit: free.pop() if unit in set(used_a) else unit for unit in used_b}
    guests = torch.zeros_like(v_b)
    w = w_a.clone()
    for unit, slot in slots.items():
        w[slot], guests[slot] = w_b[unit], few_b[unit]
    kept = torch.tensor(sorted(slots.values()))
    mostly = w_b.clone()
    mostly[kept] = w[kept]
    return [
        (w_a, v_a), (w_a, few_a), (w, few_a), (w, guests), (mostly, guests), (mostly, few_b), (w_b, few_b), (w_b, v_b)
    ]  # fmt: skip


def permutation_path(network: TwoLayer, order: Sequence[int], spare: int) -> list[TwoLayer]:
    """Permute the units of a network by straight legs of constant outputs, through a unit of no output weight.

    A unit is copied into the spare one, its output weight is handed over, and its place is the new spare.

    Args:
        network: Input weights (M, n), output weights (M, n_out).
        order: Unit i becomes what unit ``order[i]`` was; the spare unit keeps its place.
        spare: The unit without output weight.

    Returns:
        The corners; the last one is the permuted network, up to the spare unit's input weights.

    Raises:
        ValueError: If ``order`` is no permutation that keeps the spare unit, or that unit has an output weight.
    """
    w, v = (part.clone() for part in network)
    if sorted(order) != list(range(len(w))) or order[spare] != spare:
        msg = f"permutation_path(order={list(order)}): give a permutation of {len(w)} units that keeps unit {spare}."
        raise ValueError(msg)
    if bool((v[spare] != 0).any()):
        msg = (
            f"permutation_path(spare={spare}): this unit has an output weight; without a spare unit there is a barrier."
        )
        raise ValueError(msg)
    corners = [(w.clone(), v.clone())]

    def move(source: int, target: int) -> None:
        w[target] = w[source]
        corners.append((w.clone(), v.clone()))
        v[target], v[source] = v[source].clone(), 0.0
        corners.append((w.clone(), v.clone()))

    done = {spare}
    for start in range(len(w)):
        if start in done or order[start] == start:
            continue
        move(start, spare)
        free = start
        while order[free] != start:
            done.add(free)
            move(order[free], free)
            free = order[free]
        done.add(free)
        move(spare, free)
    return corners


def _compressed(features: Tensor, outer: Tensor) -> tuple[list[int], Tensor]:
    """Find units whose features (L, M) span all, and output weights on them alone that give the same outputs."""
    import scipy.linalg

    triangle, order = scipy.linalg.qr(features.cpu().numpy(), mode="r", pivoting=True)  # pyright: ignore[reportAssignmentType]
    diagonal = torch.from_numpy(np.abs(np.diagonal(triangle)))
    rank = int((diagonal > 1e-10 * diagonal.max().clamp_min(1e-300)).sum())
    used = sorted(order[:rank].tolist())
    few = torch.zeros_like(outer)
    few[used] = torch.linalg.lstsq(features[:, used], features @ outer, driver="gelsd").solution
    return used, few
