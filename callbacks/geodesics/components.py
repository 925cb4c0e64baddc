"""Which of many networks at a level hang together, as far as found paths tell."""

import numpy as np
import torch
from torch import Tensor

from .landscape import Landscape
from .search import Method, find_paths
from .settings import Settings

__all__ = ["components"]


def components(
    landscape: Landscape, points: Tensor, level: float, method: Method = "dss", settings: Settings | None = None
) -> tuple[Tensor, Tensor]:
    """Connect every pair of K points, all pairs at once, and label the components of the graph of found paths.

    Found paths join components for certain; two components may still be one, as a search that fails proves nothing.

    Args:
        landscape: The loss.
        points: Parameters of networks at or below the level, (K, P).
        level: The level.
        method: As in :func:`connect`.
        settings: As in :func:`connect`.

    Returns:
        Which pairs were connected, (K, K) bool, symmetric with a true diagonal; and the component of each point, (K,)
        int64, numbered from 0 in the order of their first points.
    """
    from scipy.sparse.csgraph import connected_components  # late: half of a second for a rare function

    first, second = torch.triu_indices(len(points), len(points), offset=1)
    connected = torch.eye(len(points), dtype=torch.bool)
    if len(first):
        paths = find_paths(landscape, points[first], points[second], level, method, settings)
        found = torch.tensor([path.connected for path in paths])
        connected[first, second] = connected[second, first] = found
    _, labels = connected_components(connected.numpy(), directed=False)
    _, start, number = np.unique(labels, return_index=True, return_inverse=True)
    return connected, torch.from_numpy(start.argsort().argsort()[number])
