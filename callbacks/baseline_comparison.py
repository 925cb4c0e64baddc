"""The overlap of a trained network beside that of untrained baselines on the same graphs."""

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch_geometric.data import Data

from ..modules.community.base import NodeNetwork
from ..modules.community.metrics import node_accuracy, overlap
from ..modules.graph_operators import graph_ids
from .comparison import Comparison, snake_case, words

#: The Kesten-Stigum threshold: no polynomial algorithm is known to detect communities below this SNR.
_THRESHOLD = 1.0


class BaselineComparison(Comparison):
    """Measure how well communities are recovered, by the module and by baselines, on the same held-out graphs.

    For every graph the module and each baseline label the nodes; the accuracy under the best relabeling, or the
    overlap (acc - 1/k) / (1 - 1/k), is averaged over the graphs of a group (all graphs of one signal-to-noise ratio,
    say). How it averages, and what it logs and writes: see :class:`Comparison`; an example of a key is
    ``test/overlap_belief_propagation/snr_2.08``, the files are called ``comparison``.

    Cost: one more forward pass of the module a batch, and one of every baseline.

    Args:
        baselines: Networks that need no training; any module that maps a batch to scores (N, k).
        metric: ``overlap`` or ``accuracy``.
        group_by: Attribute of the batch, one number a graph, by which graphs are grouped; ``None`` for one group.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.

    Raises:
        ValueError: If ``metric`` is another, or ``every_n_epochs`` negative.
    """

    logged_by_module = ("overlap", "accuracy")

    def __init__(
        self,
        baselines: list[NodeNetwork] | None = None,
        metric: Literal["overlap", "accuracy"] = "overlap",
        group_by: str | None = "snr",
        every_n_epochs: int = 0,
    ) -> None:
        if metric not in ("overlap", "accuracy"):
            msg = f"BaselineComparison(metric={metric!r}): metric must be 'overlap' or 'accuracy'."
            raise ValueError(msg)
        super().__init__([metric], group_by, every_n_epochs)
        self.baselines = baselines or []

    def methods(self, pl_module: LightningModule) -> dict[str, str]:
        """Name the module's network and the baselines."""
        names = [type(baseline).__name__ for baseline in self.baselines]
        own = type(getattr(pl_module, "network", pl_module)).__name__
        return {"": own, **{snake_case(name): words(name) for name in names}}

    def measure(self, pl_module: LightningModule, batch: Data) -> tuple[Tensor, Tensor, Tensor]:
        """Label the nodes of the graphs by every method."""
        graph, num_graphs = graph_ids(batch)
        if self.group_by is not None and self.group_by not in batch:
            msg = (
                f"BaselineComparison(group_by={self.group_by!r}): the batch has no such attribute, only "
                f"{sorted(batch.keys())}; name one of them or give group_by=null."
            )
            raise ValueError(msg)
        # Without sample numbers nothing can be recognised as a repeat: NaN is never equal.
        numbers = batch.sample_id if "sample_id" in batch else torch.full((num_graphs,), torch.nan)
        groups = batch[self.group_by] if self.group_by is not None else torch.zeros(num_graphs)
        relabelings = getattr(pl_module, "label_permutations", None)
        columns = []
        for method in (pl_module, *self.baselines):
            scores = method(batch)
            accuracy = node_accuracy(scores.argmax(1), batch.y, graph, num_graphs, scores.shape[1], relabelings)  # pyright: ignore[reportArgumentType]
            columns.append(accuracy if self.metrics == ["accuracy"] else overlap(accuracy, scores.shape[1]))
        return numbers, groups, torch.stack(columns, dim=1).unsqueeze(2)

    def group_name(self, group: float) -> str:
        """Write a ratio to two decimals."""
        return f"{group:.2f}"

    @property
    def axis(self) -> str:
        """Name of what graphs are grouped by."""
        return "SNR" if self.group_by == "snr" else super().axis

    def file_name(self, metric: str) -> str:
        """There is one metric."""
        del metric
        return "comparison"

    def decorate(self, axes: Any) -> None:
        """Mark the detectability threshold."""
        if self.group_by == "snr":
            axes.axvline(_THRESHOLD, color="black", linestyle="--", linewidth=1, label="detectability threshold")

    def _order(self, groups: list[float]) -> list[float]:
        """List the easy graphs, of a high ratio, first."""
        return sorted(groups, reverse=True)
