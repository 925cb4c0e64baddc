"""Whether a classifier's weights turn to a reference direction: another network's, or the largest margin's."""

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.func import functional_call

from ..modules.bias.max_margin import max_margin
from ..modules.margins import (
    Homogeneity,
    angle_degrees,
    linear_rule,
    normalized_margin,
    output_margin,
    parameter_norm,
    signed_rows,
)
from .classification import ClassifierMeasurement, Samples, left_as_found, unpack
from .homogeneous_degree import homogeneous_degree
from .reference import check_reference, reference_state
from .training_batches import away_from_inference, training_batches

__all__ = ["DirectionConvergence"]

#: Samples on which homogeneity and linearity are tried.
_PROBE = 8
#: Most numbers of the convex program that gives the largest margin.
_LARGEST = 20_000_000


class DirectionConvergence(ClassifierMeasurement):
    r"""Follow the angle between a classifier's weights and a reference, and the ratio of their normalized margins.

    For any LightningModule whose ``forward(x)`` gives logits. The reference is

    - another network of the same architecture, read from a checkpoint: the angle is that of all parameters that
      require gradients, as one vector. Networks whose hidden units are permuted are apart. The margin is normalized by
      :math:`\|\theta\|_2^L` where the network is homogeneous of degree L; otherwise one line says what breaks it, and
      the ratio is left out;
    - or, without a checkpoint, the l2 maximum-margin rule W* of the training samples, by a convex solver: where
      gradient descent on separable data goes (`Soudry et al. 2018 <https://arxiv.org/abs/1710.10345>`_). For modules
      that are linear in their input without intercept, of any depth and two or more classes: the angle is that of the
      rule W that the module computes, and the margin is normalized by :math:`\|W\|_F`.

    Logs under ``val/`` or ``test/``:

    - ``direction_angle_degrees``: in [0, 180];
    - ``direction_margin_ratio``, without unit: the smallest normalized margin of the module over that of the reference,
      on the samples evaluated. On the training samples it is at most 1 for W*, which only they are compared with.

    Exact on any number of ranks; the module is left as it was found. Cost: two forward passes of the samples (one for
    W*), once a run 5 passes of 8 samples for the test of homogeneity, and for W* a convex program of all training
    samples.

    Args:
        reference: Checkpoint of the other network (a file with ``state_dict``); ``None`` for W*.
        degree: L, where it is known; skips the test.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        max_samples: Take the margins of so many samples of the set at most, evenly spread over it; ``None`` for all.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If an argument is out of range, or, when a loop begins, the checkpoint is of another architecture;
            when it is measured, if the module is not linear, the training samples are not separable or too many for the
            solver, or the weights are zero.
    """

    def __init__(
        self,
        reference: str | None = None,
        degree: float | None = None,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        if reference is not None:
            check_reference(reference, "DirectionConvergence")
        if degree is not None and not degree > 0:
            msg = (
                f"DirectionConvergence(degree={degree:g}): must be > 0, the number of layers of a homogeneous network."
            )
            raise ValueError(msg)
        self.reference = reference
        self._given = None if degree is None else Homogeneity(float(degree), 0.0)
        self._found: Homogeneity | None = None
        self._state: dict[str, Tensor] = {}
        self._rule: Tensor | None = None
        self._probe: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what was read and found for another module."""
        del trainer, pl_module, stage
        self._found, self._state, self._rule, self._probe = self._given, {}, None, None

    def _require(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del trainer
        if self.reference is not None:
            self._state = reference_state(pl_module, self.reference, "DirectionConvergence")

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the maximum-margin rule, once, if it is the reference."""
        super().on_validation_epoch_start(trainer, pl_module)
        if self._measures_validation(trainer):
            self._prepare(trainer, pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the maximum-margin rule, once, if it is the reference."""
        super().on_test_epoch_start(trainer, pl_module)
        self._prepare(trainer, pl_module)

    def measure(self, pl_module: LightningModule, samples: Samples) -> Tensor:
        """Give the margin of the module and that of the reference, (N, 2)."""
        x, y = samples.x, samples.y
        if self._probe is None:
            self._probe = x[:_PROBE].clone()
        if self._rule is None:
            scores = functional_call(pl_module, self._state, (x,))
        else:
            scores = x.flatten(1).double() @ self._rule.T
        return torch.stack([output_margin(pl_module(x), y).double(), output_margin(scores, y).double()], dim=1)

    def summarise(self, trainer: Trainer, pl_module: LightningModule, stage: str, detail: str, rows: Tensor) -> None:
        """Log the angle, and the ratio of the smallest margins."""
        margin, other = rows[:, 2:].amin(0)
        with left_as_found(pl_module):
            angle, norm, other_norm, degree = self._compare(trainer, pl_module)
        values = {"direction_angle_degrees": angle}
        if degree is not None and not other > 0:
            rank_zero_info(
                "DirectionConvergence: the reference misclassifies a sample (its smallest margin is "
                f"{float(other):.3g}), so that there is no ratio of margins."
            )
        elif degree is not None:
            ratio = normalized_margin(margin, norm, degree) / normalized_margin(other, other_norm, degree)
            values["direction_margin_ratio"] = ratio
        for name, value in values.items():
            pl_module.log(
                f"{stage}/{name}{detail}", value.double(), sync_dist=True, batch_size=1, add_dataloader_idx=False
            )

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.reference is None and self._rule is None:
            with away_from_inference(), left_as_found(pl_module):
                parts = [unpack(batch, "DirectionConvergence") for batch in training_batches(trainer, pl_module, 0)]
                x, y = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
                self._probe = x[:_PROBE]
                self._rule = max_margin_rule(pl_module, x, y)

    def _compare(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Tensor, Tensor, Tensor, float | None]:
        """Give the angle in degrees, both norms, and the degree that margins are normalized by."""
        if self._rule is not None:
            assert self._probe is not None
            rule = linear_rule(pl_module, self._probe).double()
            return angle_degrees(rule, self._rule), rule.norm(), self._rule.norm(), 1.0
        if self._found is None:
            self._found = homogeneous_degree(trainer, pl_module, self._probe, "DirectionConvergence")
        own, other = dict(pl_module.named_parameters()), self._state
        names = [name for name, parameter in own.items() if parameter.requires_grad]
        norm, other_norm = (parameter_norm(tensors[name] for name in names) for tensors in (own, other))
        flat = [torch.cat([tensors[name].detach().flatten() for name in names]) for tensors in (own, other)]
        return angle_degrees(*flat), norm, other_norm, self._found.degree


def max_margin_rule(pl_module: LightningModule, x: Tensor, y: Tensor) -> Tensor:
    """Give the l2 maximum-margin rule of labelled samples for the outputs of a linear module, (C, d) float64.

    Raises:
        ValueError: If the module is not linear, the samples are not separable or too many.
    """
    rule = linear_rule(pl_module, x[:_PROBE])
    size = len(x) * max(len(rule) - 1, 1) * rule.numel()
    if size > _LARGEST:
        msg = (
            f"DirectionConvergence: the convex program of {len(x)} training samples of {rule.shape[1]} entries in "
            f"{len(rule)} outputs has {size:.1e} numbers, more than {_LARGEST:.0e}; give a checkpoint as reference."
        )
        raise ValueError(msg)
    rows = signed_rows(x.double(), y, len(rule)).cpu()
    _, weights = max_margin(rows)
    return (weights @ rows).view_as(rule).to(x.device)
