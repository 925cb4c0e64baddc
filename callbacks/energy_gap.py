"""Measure how the energy gap between trained two-layer networks falls with their width."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from .comparison import mean_and_standard_error
from .geodesics.settings import Settings
from .geodesics.status import stage, status_line
from .geodesics.width import (
    Activation,
    constructed,
    energy_gap,
    power_law,
    random_problem,
    trained_networks,
    two_layer_loss,
)
from .media import log_figure, log_table, shows_progress
from .training_batches import away_from_inference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EnergyGap"]

#: Gaps are drawn and fitted from here on: below, they are rounding.
_LEAST = 1e-12


class EnergyGap(Callback):
    r"""Measure in ``test`` the energy gap of two-layer networks by width m and input dimension n.

    The gap of two networks is the height of the best path that is found over the higher end. Each pair fits the outputs
    of a random network on inputs of the unit sphere. With the activation ``relu``, :math:`|w_j| \le 1` and an l1
    penalty on the output weights, it vanishes as m grows, at the rate :math:`m^{-1/n}` in the limit: `Freeman & Bruna
    2017 <https://arxiv.org/abs/1611.01540>`_, theorem 2.4 and corollary 2.5. With ``square`` and no penalty the
    features have q = n (n + 1) / 2 dimensions, and there is no gap from 2 q units on: Venturi, Bandeira & Bruna, `JMLR
    20 <https://jmlr.org/papers/v20/18-674.html>`_; the explicit path is tried there. Module and data are not looked at.

    Logs ``test/energy_gap/n_<n>/m_<m>``, the mean over pairs in units of the variance of the targets, with ``_stderr``;
    ``test/energy_gap/slope/n_<n>`` of its logarithm against that of m, over the widths with a gap, with ``_stderr``,
    and ``.../slope_upper/n_<n>``, the slope plus two standard errors: below 0 where the gap falls for certain. Writes a
    table and a figure. On several ranks each does all of it.

    Args:
        activation: ``relu`` or ``square``.
        dimensions: Input dimensions n.
        widths: Hidden units m, at least two widths.
        pairs: Pairs of networks of each n and m, >= 2.
        penalty: Of the l1 norm of the output weights, >= 0.
        num_samples: Samples of each problem.
        train_steps: Steps of the networks.
        path_steps: Steps of each curve and band.
        seed: Of everything random.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        activation: Activation = "relu",
        dimensions: Sequence[int] = (2, 4, 8),
        widths: Sequence[int] = (2, 4, 8, 16, 32, 64),
        pairs: int = 10,
        penalty: float = 1e-3,
        num_samples: int = 200,
        train_steps: int = 2000,
        path_steps: int = 400,
        seed: int = 0,
    ) -> None:
        if activation not in get_args(Activation):
            msg = f"EnergyGap(activation={activation!r}): choose from {', '.join(get_args(Activation))}."
            raise ValueError(msg)
        if not dimensions or min(dimensions) < 1 or len(set(widths)) < 2 or min(widths) < 1:
            msg = (
                f"EnergyGap(dimensions={list(dimensions)}, widths={list(widths)}): give input dimensions and at least "
                "two different widths, all >= 1, e.g. [2, 4] and [4, 8, 16]."
            )
            raise ValueError(msg)
        if pairs < 2 or penalty < 0 or min(num_samples, train_steps, path_steps) < 1:
            msg = (
                f"EnergyGap(pairs={pairs}, penalty={penalty}, num_samples={num_samples}, train_steps={train_steps}, "
                f"path_steps={path_steps}): pairs must be at least 2, the penalty at least 0, the others at least 1."
            )
            raise ValueError(msg)
        self.activation: Activation = activation
        self.dimensions = list(dimensions)
        self.widths = sorted(set(widths))
        self.pairs = pairs
        self.penalty = penalty
        self.num_samples = num_samples
        self.train_steps = train_steps
        self.settings = Settings(lr=0.01, max_steps=path_steps, images=17, grid=9, tolerance=0.01)
        self.seed = seed

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the networks, find the paths, and report."""
        rows = []
        with away_from_inference(), status_line(show=shows_progress(trainer)):
            for inputs in self.dimensions:
                gaps = torch.tensor([self._gaps(inputs, units) for units in self.widths], dtype=torch.float64)
                means, errors = mean_and_standard_error(gaps.T)
                columns = zip(self.widths, means.tolist(), errors.tolist(), strict=True)
                rows += [[inputs, *column] for column in columns]
                self._log(pl_module, inputs, means, errors)
        log_table(trainer, "test/energy_gap", ["n", "m", "gap", "gap_stderr"], rows)
        log_figure(trainer, "test/energy_gap", draw_gaps(rows, with_rate=self.activation == "relu"))

    def _gaps(self, inputs: int, units: int) -> list[float]:
        """Give the gap of each pair; the problem of pair k is the same at every width."""
        gaps = []
        for pair in range(self.pairs):
            stage(f"{inputs} inputs, {units} units: pair {pair + 1} of {self.pairs}.")
            generator = torch.Generator().manual_seed(self.seed + 1000 * inputs + pair)
            x, y = random_problem(inputs, self.num_samples, self.activation, generator)
            surface = two_layer_loss(x, y, units, self.activation, self.penalty)
            first, second = trained_networks(surface, inputs, units, 2, self.train_steps, generator)
            corners = None if self.penalty else constructed(x, units, self.activation, first, second)
            gaps.append(energy_gap(surface, first, second, self.settings, corners))
        return gaps

    def _log(self, pl_module: LightningModule, inputs: int, means: Tensor, errors: Tensor) -> None:
        values = {}
        for units, mean, error in zip(self.widths, means.tolist(), errors.tolist(), strict=True):
            values[f"n_{inputs}/m_{units}"] = mean
            values[f"n_{inputs}/m_{units}_stderr"] = error
        fitted = (means > _LEAST) & (errors > 0)
        if int(fitted.sum()) > 1:
            slope, error = power_law(torch.tensor(self.widths)[fitted], means[fitted], errors[fitted])
            values[f"slope/n_{inputs}"] = slope
            values[f"slope/n_{inputs}_stderr"] = error
            values[f"slope_upper/n_{inputs}"] = slope + 2 * error
        for name, value in values.items():
            pl_module.log(f"test/energy_gap/{name}", value, sync_dist=True, batch_size=1)


def draw_gaps(rows: Sequence[Sequence[float]], *, with_rate: bool) -> "Figure":
    """Draw the gap against the width for each input dimension.

    Args:
        rows: n, m, gap and its standard error.
        with_rate: Whether to draw the rate of the theorem beside it.
    """
    from matplotlib.figure import Figure  # half a second that commands which draw nothing need not wait for

    figure = Figure(figsize=(6, 4.5))
    axes = figure.subplots()
    for number, inputs in enumerate(sorted({row[0] for row in rows})):
        points = [row for row in rows if row[0] == inputs and row[2] > _LEAST]
        if not points:
            continue
        _, widths, gaps, errors = zip(*points, strict=True)
        axes.errorbar(widths, gaps, yerr=errors, marker="o", capsize=2, color=f"C{number}", label=f"n = {inputs}")
        if with_rate:
            rate = [gaps[0] * (width / widths[0]) ** (-1 / inputs) for width in widths]
            axes.plot(widths, rate, linestyle=":", color=f"C{number}", label=f"$m^{{-1/{inputs}}}$")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("hidden units m")
    axes.set_ylabel("energy gap of the best path")
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.legend()
    return figure
