"""How far every held-out sample is from being misclassified, while any classifier trains."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from ..modules.attacks import PGD
from ..modules.bias.losses import log_logistic_loss, soft_margins
from ..modules.margins import (
    Homogeneity,
    boundary_distance,
    first_order_margin,
    linear_rule,
    margin_growth,
    output_margin,
    parameter_norm,
    parse_norm,
    rule_margin,
    smoothed_margin,
    spectral_complexity,
    summaries,
)
from .classification import dataloader, left_as_found, place_samples, spread, unpack
from .held_out import HeldOutMeasurement
from .homogeneous_degree import homogeneous_degree
from .logit_capture import LogitCapture
from .margin_report import Distribution, MarginHistory, show
from .media import log_histogram

__all__ = ["Margins"]

#: Samples on which homogeneity is tried; a few forward passes of them, once.
_PROBE = 8


class Margins(HeldOutMeasurement):
    r"""Measure the margins of a classifier's held-out samples: any LightningModule whose ``forward(x)`` gives logits.

    The output margin is :math:`m_n = f_{y_n}(x_n) - \max_{j \ne y_n} f_j(x_n)`, in logits, or :math:`\pm f` for a
    single output of two classes. Batches are ``(x, y)``, ``(x, y, sample_id)``, an ``ImageBatch`` or dictionaries.

    Logs under ``val/`` or ``test/``, each quantity as ``<quantity>/min`` and ``<quantity>/q<level>``:

    ============================ =================== ==========================================================
    quantity                     unit                what
    ============================ =================== ==========================================================
    ``margin``                   logits              output margin
    ``margin_normalized``        logits / weight^L   over :math:`\rho^L`, rho the l2 norm of the parameters, if
                                                     the network is homogeneous of degree L (Lyu and Li 2020)
    ``margin_spectral``          1                   over :math:`R_A \|X\|_F / n` (Bartlett et al. 2017)
    ``input_margin_<norm>``      input               first-order distance :math:`m / \|\nabla_x m\|_q`
    ``margin_<weight norm>``     input               of a module that is linear in its input without intercept: over the
                                                     norm of the weights (between two classes: of their difference)
    ``distance_<norm>``          input               distance to the nearest misclassified input that the attack
                                                     finds: an upper bound
    ============================ =================== ==========================================================

    and ``misclassified`` (share of samples whose margin is not positive: a tie counts), ``log_loss`` (natural logarithm
    of the mean cross-entropy, in nats, also where that underflows), ``parameter_norm`` (rho, those parameters that
    require gradients) and, of a homogeneous network, ``margin_smoothed`` (of the cross-entropy summed over the samples
    measured; logits / weight^L, a lower bound of ``margin_normalized/min``). To follow what an optimizer maximises,
    measure on the training set. Within ``fit`` also how the smoothed margin grew since it is positive, over all epochs
    measured, those before a restart too: ``margin_smoothed_rise`` (logits / weight^L) and ``margin_smoothed_fall``
    (largest relative fall below its highest, over the epochs that lowered the loss), see
    :func:`~theodolite.modules.margins.margin_growth`.

    Quantiles are exact: the counts of a radix selection are added over the ranks, never the samples gathered, and what
    a distributed sampler repeats is left out. So every number is that of one process, for 16 kB a quantile. A
    histogram goes to W&B each time, under ``<stage>/margin_histogram``; a figure (latest histogram, quantiles over
    epochs) and a table to the run directory and W&B when the run or the evaluation ends.

    Cost: none but sorting where the module's step calls ``self(x)`` on the batch's inputs, else one forward pass; once
    a run about 5 forward passes of 8 samples for the test of homogeneity; one forward and backward pass for each input
    norm; ``bisections`` + 1 attacks for the distance. Works in ``fit``, ``validate`` and ``test``; the module is left
    as it was found.

    Args:
        levels: Of the quantiles, each in (0, 1).
        bins: Of the histogram.
        normalized: Measure the normalized margins if the network is homogeneous, found by trying; otherwise one line
            says what breaks it.
        degree: L, where it is known; skips the test.
        spectral: Measure the spectrally normalized margin; for chains of Linear and Conv layers only.
        input_norms: Of the first-order distances.
        weight_norms: Of the linear margins: ``l1``, ``l1.5``, ``linf``, or ``dft_l1`` of the weights' unitary Fourier
            transform. An input is that far from the boundary in the dual norm.
        attack: For the distance, in its norm and up to its radius; samples farther away count as infinite.
        bisections: Of that distance; each halves the error.
        every_n_epochs: Measure in the validation within ``fit`` every so many epochs; 0 for never.
        max_samples: Measure so many samples of the set at most, evenly spread over it; ``None`` for all.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> from theodolite.callbacks import Margins
        >>> trainer = Trainer(callbacks=[Margins(levels=[0.05, 0.5], input_norms=["l2"])], logger=False)
    """

    def __init__(
        self,
        levels: Sequence[float] = (0.01, 0.1, 0.5, 0.9),
        bins: int = 50,
        normalized: bool = True,
        degree: float | None = None,
        spectral: bool = False,
        input_norms: Sequence[Literal["l2", "linf"]] = (),
        weight_norms: Sequence[str] = (),
        attack: PGD | None = None,
        bisections: int = 10,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        if not levels or not all(0 < level < 1 for level in levels):
            msg = f"Margins(levels={list(levels)}): give one or more numbers between 0 and 1, e.g. [0.05, 0.5]."
            raise ValueError(msg)
        if any(norm not in ("l2", "linf") for norm in input_norms):
            msg = f"Margins(input_norms={list(input_norms)}): each must be 'l2' or 'linf'."
            raise ValueError(msg)
        try:
            self.weight_norms = {name: parse_norm(name) for name in weight_norms}
        except ValueError as error:
            msg = f"Margins(weight_norms={list(weight_norms)}): {error}"
            raise ValueError(msg) from error
        least = {"bins": (bins, 1), "bisections": (bisections, 0), "max_samples": (max_samples, 1)}
        for name, (value, bound) in least.items():
            if value is not None and value < bound:
                msg = f"Margins({name}={value}): must be at least {bound}."
                raise ValueError(msg)
        if degree is not None and not degree > 0:
            msg = f"Margins(degree={degree:g}): must be > 0, the number of layers of a homogeneous network."
            raise ValueError(msg)
        self.levels = sorted(levels)
        self.bins = bins
        self.normalized = normalized
        self.spectral = spectral
        self.input_norms = list(dict.fromkeys(input_norms))
        self.attack = attack
        self.bisections = bisections
        self.max_samples = max_samples
        self.history = MarginHistory()
        self._capture = LogitCapture()
        self._given = None if degree is None else Homogeneity(float(degree), 0.0)
        self._found: Homogeneity | None = None
        self._seen: dict[int, int] = {}
        self._probe: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget what was found out about another module."""
        del trainer, pl_module, stage
        self._found = self._given

    def state_dict(self) -> dict[str, Any]:
        """Give the quantiles of the epochs so far."""
        return {"rows": self.history.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the quantiles of a run that was stopped."""
        self.history = MarginHistory(state_dict["rows"])

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new count of samples."""
        super().on_validation_epoch_start(trainer, pl_module)
        if self._measures_validation(trainer):
            self._begin(pl_module)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new count of samples."""
        super().on_test_epoch_start(trainer, pl_module)
        self._begin(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch for the logits of the batch."""
        del pl_module, batch_idx, dataloader_idx
        if self._measures_validation(trainer):
            self._capture.watch(unpack(batch, "Margins").x)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Watch for the logits of the batch."""
        del trainer, pl_module, batch_idx, dataloader_idx
        self._capture.watch(unpack(batch, "Margins").x)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the quantiles over the epochs, and store their table."""
        del pl_module
        self._show(trainer, "val")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening to the module."""
        del trainer, pl_module, exception
        self._capture.detach()

    def measure_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int) -> Tensor:
        """Give one row a sample: its dataloader, its margins, and what else is asked for."""
        x, y, sample_id = unpack(batch, "Margins")
        logits = self._capture.logits(pl_module, x)
        margin = output_margin(logits, y)
        soft = soft_margins(logits.to(margin), y) if logits.ndim == 2 and logits.shape[1] > 1 else margin
        loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
        seen = self._seen.get(dataloader_idx, 0)
        self._seen[dataloader_idx] = seen + len(y)
        place, total = place_samples(dataloader(loaders, dataloader_idx), seen, len(y), trainer)
        wanted = torch.ones(len(y), dtype=torch.bool) if total is None else place < total  # behind it: repeats
        if self.max_samples is not None:
            wanted &= spread(place, total, self.max_samples)
        number = place if sample_id is None else sample_id.cpu()
        wanted = wanted.to(x.device)
        x, y, number = x[wanted], y[wanted], number[wanted.cpu()]
        if self._probe is None and len(x):
            self._probe = x[:_PROBE].clone()
        columns = [torch.full_like(margin[wanted], dataloader_idx), margin[wanted], soft[wanted]]
        columns += self._input_columns(pl_module, x, y, number, logits[wanted])
        return torch.stack([column.double() for column in columns], dim=1)

    def _input_columns(
        self, pl_module: LightningModule, x: Tensor, y: Tensor, number: Tensor, logits: Tensor
    ) -> list[Tensor]:
        """Measure what needs the inputs: one column for each of :meth:`_input_names`."""
        if not self.spectral and not self._input_names():
            return []
        columns = []
        with left_as_found(pl_module):
            if self.spectral:
                columns.append(torch.linalg.vector_norm(x.flatten(1), dim=1).double().square())
            columns += [first_order_margin(pl_module, x, y, norm) for norm in self.input_norms]
            if self.weight_norms and len(x):
                rule = linear_rule(pl_module, x)
                columns += [rule_margin(logits, y, rule, *norm) for norm in self.weight_norms.values()]
            elif self.weight_norms:
                columns += [logits.new_zeros(0)] * len(self.weight_norms)
            if self.attack is not None:
                columns.append(boundary_distance(pl_module, x, y, self.attack, self.bisections, number))
        return columns

    def _input_names(self) -> list[str]:
        names = [f"input_margin_{norm}" for norm in self.input_norms]
        names += [f"margin_{norm}" for norm in self.weight_norms]
        return names if self.attack is None else [*names, f"distance_{self.attack.norm}"]

    def _begin(self, pl_module: LightningModule) -> None:
        self._seen = {}
        self._probe = None
        self._capture.attach(pl_module)

    def _report(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Summarise each dataloader's samples; unlike its base class, without gathering them."""
        self._capture.detach()
        width = 3 + self.spectral + len(self._input_names())
        rows = torch.cat([row for row in self._rows if len(row)] or [torch.zeros(0, width).double()])
        loaders = len(trainer.num_test_batches if stage == "test" else trainer.num_val_batches)
        for index in range(loaders):
            detail = f"/loader_{index}" if index else ""
            self.report(trainer, pl_module, stage + detail, rows[rows[:, 0] == index, 1:])
        if trainer.state.fn != "fit":
            self._show(trainer, stage)

    def report(self, trainer: Trainer, pl_module: LightningModule, stage: str, rows: Tensor) -> None:
        """Log the distribution of every quantity over the samples of all ranks, of which these rows are this rank's."""

        def add(tensor: Tensor) -> Tensor:
            return trainer.strategy.reduce(tensor.to(pl_module.device), reduce_op="sum").cpu()  # pyright: ignore[reportAttributeAccessIssue]

        total, misclassified = add(torch.tensor([len(rows), int((~(rows[:, 0] > 0)).sum())])).tolist()
        if total == 0:
            return
        rows = rows.cpu()
        names = ["margin", *self._input_names()]
        columns = torch.cat([rows[:, :1], rows[:, 2 + self.spectral :]], dim=1)
        found = dict(zip(names, self._distributions(columns, add), strict=True))
        scalars = {"misclassified": misclassified / total}
        local = log_logistic_loss(rows[:, 1]) if len(rows) else torch.tensor(-math.inf).double()
        gathered = trainer.strategy.all_gather(local.to(pl_module.device))
        log_sum = float(torch.logsumexp(gathered.reshape(-1).cpu(), 0))
        scalars["log_loss"] = log_sum - math.log(total)
        norm = parameter_norm(parameter for parameter in pl_module.parameters() if parameter.requires_grad)
        scalars["parameter_norm"] = float(norm)
        degree = self._degree(trainer, pl_module)
        if degree is not None:
            found["margin_normalized"] = found["margin"].scaled(float(norm) ** -degree)
            scalars["margin_smoothed"] = float(smoothed_margin(log_sum, norm.cpu(), degree))
            if trainer.state.fn == "fit":
                scalars |= self._growth(stage, trainer.current_epoch, scalars)
        if self.spectral:
            scale = self._spectral_scale(pl_module, trainer, rows, total, add)
            found["margin_spectral"] = found["margin"].scaled(scale)
        self._log(trainer, pl_module, stage, scalars, found)

    def _distributions(self, columns: Tensor, add: Any) -> list[Distribution]:
        names = ["min", *(f"q{level:g}" for level in self.levels)]
        found = summaries(columns, [0.0, *self.levels], self.bins, add)
        return [Distribution(dict(zip(names, one.quantiles, strict=True)), one.counts, one.edges) for one in found]

    def _degree(self, trainer: Trainer, pl_module: LightningModule) -> float | None:
        """Give L, found once a run."""
        if not self.normalized:
            return None
        if self._found is None:
            self._found = homogeneous_degree(trainer, pl_module, self._probe, "Margins")
        return self._found.degree

    def _growth(self, stage: str, epoch: int, scalars: dict[str, float]) -> dict[str, float]:
        """Compare the smoothed margin with those of the epochs before."""
        rows = [*(row for row in self.history.before(stage, epoch) if "margin_smoothed" in row), scalars]
        rise, fall = margin_growth([row["margin_smoothed"] for row in rows], [row["log_loss"] for row in rows])
        return {"margin_smoothed_rise": rise, "margin_smoothed_fall": fall}

    def _spectral_scale(
        self, pl_module: LightningModule, trainer: Trainer, rows: Tensor, total: int, add: Any
    ) -> float:
        """Give n / (R_A |X|_F); the complexity is rank zero's."""
        squares = float(add(rows[:, 2].sum()))
        log_complexity = 0.0
        if self._probe is not None:
            log_complexity = spectral_complexity(pl_module, self._probe)
        log_complexity = trainer.strategy.broadcast(log_complexity)
        return math.exp(math.log(total) - log_complexity - math.log(squares) / 2)

    def _log(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        stage: str,
        scalars: dict[str, float],
        found: dict[str, Distribution],
    ) -> None:
        values = dict(scalars)
        for quantity, distribution in found.items():
            values.update({f"{quantity}/{name}": value for name, value in distribution.statistics.items()})
        split, slash, loader = stage.partition("/")
        for key, value in values.items():
            # float64: Lightning would make float32 of a number; the same on every rank, so that the mean is the value
            pl_module.log(
                f"{split}/{key}{slash}{loader}",
                torch.tensor(value, dtype=torch.float64),
                sync_dist=True,
                batch_size=1,
                add_dataloader_idx=False,
            )
        log_histogram(
            trainer, f"{split}/margin_histogram{slash}{loader}", found["margin"].counts, found["margin"].edges
        )
        self.history.add(stage, trainer.current_epoch, values, found)

    def _show(self, trainer: Trainer, stage: str) -> None:
        show(trainer, self.history, stage)
