"""Certified accuracy of a classifier that votes over noisy copies of its input."""

from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..modules.attacks import PGD
from ..modules.smoothing import Smoothing, largest_radius
from .classification import ClassifierMeasurement, Samples
from .media import log_figure, log_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CertifiedAccuracy(ClassifierMeasurement):
    r"""Measure the share of samples that the smoothed classifier gets right within a certified l2 radius.

    The smoothed classifier gives the class that f gets most often under Gaussian noise of standard deviation sigma.
    :class:`Smoothing` certifies that no perturbation up to a radius R changes it, with probability 1 - alpha for each
    sample. Certified accuracy at r is the share of samples with the right class and R >= r; abstentions count as
    wrong. From `Cohen et al. 2019 <https://arxiv.org/abs/1902.02918>`_, whose defaults are ours (every 20th of 10,000
    test images). Train f with the same noise. No radius above :math:`\sigma \Phi^{-1}(\alpha^{1/n})` can be certified.

    With an ``attack`` it also measures, on the same samples, which survive an attack on the averaged softmax at each
    radius: those where no other class gets significantly more of n0 votes. That is an upper bound of the smoothed
    classifier's robust accuracy, below which the certified one must lie.

    Which modules, batches and ranks: see :class:`ClassifierMeasurement`. Noise is keyed to the sample, so the result
    depends neither on the batch size nor on the number of ranks.

    Logs ``<stage>/certified_accuracy/sigma_<sigma>_r_<r>``, ``..._abstained`` (share) and ``..._radius`` (mean, where
    wrong or abstained 0), and ``<stage>/smoothed_robust_accuracy/sigma_<sigma>_r_<r>``. Writes the table of samples and
    the curve ``<stage>/certified_accuracy_sigma_<sigma>``.

    Cost: n0 + n forward passes a sample; on two CPU cores take n = 1,000 and some 100 samples. The attack: its steps
    x ``attack_draws`` forward and backward passes a sample and radius.

    Args:
        sigma: Standard deviation of the noise, in units of the input, > 0.
        n0: Noisy copies that select the class, >= 1.
        n: Noisy copies that estimate its probability, >= 1.
        alpha: Probability that a certificate is wrong, in (0, 1).
        radii: Radii that are logged; by default the multiples of 0.25 that can be certified.
        attack: Measures robust accuracy beside; an l2 attack, its radius is replaced.
        attack_draws: Noisy copies of each sample that the attack averages over, 1 .. 100.
        batch_size: Noisy copies in a forward pass, rounded down to hundreds.
        seed: Of the noise, >= 0.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        max_samples: Measure so many samples at most, evenly spread over the set; ``None`` for all.

    Raises:
        ValueError: If an argument is out of range.

    Example::

        Trainer(callbacks=[CertifiedAccuracy(sigma=0.25, n=1000)]).test(module, loader)
    """

    def __init__(
        self,
        sigma: float = 0.25,
        n0: int = 100,
        n: int = 100_000,
        alpha: float = 0.001,
        radii: list[float] | None = None,
        attack: PGD | None = None,
        attack_draws: int = 16,
        batch_size: int = 1000,
        seed: int = 0,
        every_n_epochs: int = 0,
        max_samples: int | None = 500,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        if not 0 < sigma < float("inf"):
            msg = f"CertifiedAccuracy(sigma={sigma}): must be > 0, in units of the input; for CIFAR-10 e.g. 0.25."
            raise ValueError(msg)
        if not 0 < alpha < 1:
            msg = f"CertifiedAccuracy(alpha={alpha}): must be in (0, 1), e.g. 0.001."
            raise ValueError(msg)
        if min(n0, n, batch_size) < 1 or seed < 0 or not 1 <= attack_draws <= 100:
            msg = (
                f"CertifiedAccuracy(n0={n0}, n={n}, batch_size={batch_size}, seed={seed}, "
                f"attack_draws={attack_draws}): needs n0, n, batch_size >= 1, seed >= 0 and attack_draws in 1 .. 100."
            )
            raise ValueError(msg)
        if attack is not None and (attack.norm != "l2" or attack.targeted):
            msg = "CertifiedAccuracy(attack): certificates are of l2 balls; give an untargeted attack of norm 'l2'."
            raise ValueError(msg)
        if radii is not None and (not radii or min(radii) < 0):
            msg = f"CertifiedAccuracy(radii={radii}): give one or more radii >= 0, or null."
            raise ValueError(msg)
        largest = largest_radius(n, alpha, sigma)
        self.radii = [0.25 * i for i in range(int(largest / 0.25) + 1)] if radii is None else list(radii)
        self.sigma, self.n0, self.n, self.alpha = sigma, n0, n, alpha
        self.attack, self.attack_draws = attack, attack_draws
        self.batch_size, self.seed = batch_size, seed

    @property
    def _results(self) -> Hashable:
        return type(self), self.sigma

    def check_samples(self, pl_module: LightningModule, x: Tensor, y: Tensor) -> None:
        """Refuse what cannot be certified, or attacked if that is asked for."""
        self.check_attackable(pl_module, x, y, [] if self.attack is None else [self.attack])

    def measure(self, pl_module: LightningModule, samples: Samples) -> Tensor:
        """Give of each sample the certified class (-1 for none), its radius, and whether each attack leaves it right.

        Returns:
            float64 (N, 2 + radii that are attacked).
        """
        smoothing = Smoothing(pl_module, self.sigma, self.seed, self.batch_size)
        numbers = samples.sample_id.tolist()
        certified = [
            smoothing.certify(x, y, number, self.n0, self.n, self.alpha)
            for x, y, number in zip(samples.x, samples.y, numbers, strict=True)
        ]
        columns = [torch.tensor(column, dtype=torch.float64) for column in zip(*certified, strict=True)]
        for radius in self.radii if self.attack is not None else ():
            assert self.attack is not None
            average = smoothing.log_probabilities(self.attack_draws)
            changed = self.attack.at(radius)(average, samples.x, samples.y, samples.sample_id)
            refuted = [
                smoothing.refuted(x, y, number, self.n0, self.alpha)
                for x, y, number in zip(changed, samples.y, numbers, strict=True)
            ]
            columns.append(~torch.tensor(refuted))
        return torch.stack([column.double() for column in columns], dim=1)

    def summarise(self, trainer: Trainer, pl_module: LightningModule, stage: str, detail: str, rows: Tensor) -> None:
        """Log certified and attacked accuracies, write the table and the curve."""
        label, predicted, radius = rows[:, 1], rows[:, 2], rows[:, 3]
        radius = torch.where(predicted == label, radius, -1.0)  # what is wrong is certified at no radius
        name = f"sigma_{self.sigma:g}"
        certified = [float((radius >= r).double().mean()) for r in self.radii]
        attacked = rows[:, 4:].mean(0).tolist()
        logged = {f"certified_accuracy/{name}_r_{r:g}": share for r, share in zip(self.radii, certified, strict=True)}
        logged[f"certified_accuracy/{name}_abstained"] = float((predicted < 0).double().mean())
        logged[f"certified_accuracy/{name}_radius"] = float(radius.clamp_min(0).mean())
        if self.attack is not None:
            pairs = zip(self.radii, attacked, strict=True)
            logged |= {f"smoothed_robust_accuracy/{name}_r_{r:g}": share for r, share in pairs}
        for key, value in logged.items():
            pl_module.log(f"{stage}/{key}{detail}", value, sync_dist=True, batch_size=1)
        self._show(trainer, f"{stage}{detail}", rows, radius, certified, attacked)

    @rank_zero_only
    def _show(
        self,
        trainer: Trainer,
        place: str,
        rows: Tensor,
        radius: Tensor,
        certified: list[float],
        attacked: list[float],
    ) -> None:
        key = f"{place}/certified_accuracy_sigma_{self.sigma:g}"
        records = [[*map(int, row[:3]), row[3]] for row in rows[:, :4].tolist()]
        log_table(trainer, key, ("sample", "label", "certified class", "radius"), records)
        figure = self._draw(radius, attacked)
        path = log_figure(trainer, key, figure)
        if trainer.state.fn == "fit":
            return
        title = (
            f"{place}: certified accuracy, sigma {self.sigma:g}, n {self.n}, alpha {self.alpha:g}, {len(rows)} samples"
        )
        table = Table("radius", "certified", *(["under attack"] if attacked else []), title=title)
        for row in zip(self.radii, certified, *([attacked] if attacked else []), strict=True):
            table.add_row(f"{row[0]:g}", *(f"{share:.4f}" for share in row[1:]))
        Console(width=max(Console().width, 100)).print(table)
        print(f"Figure: {path}")

    def _draw(self, radius: Tensor, attacked: list[float]) -> "Figure":
        """Draw certified accuracy against the radius, and the accuracy under attack above it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 4))
        axes = figure.subplots()
        largest = max(*self.radii, largest_radius(self.n, self.alpha, self.sigma))
        grid = torch.linspace(0, 1.05 * largest, 400, dtype=torch.float64)
        axes.plot(grid, (radius[None] >= grid[:, None]).double().mean(1), label="certified")
        if attacked:
            axes.plot(self.radii, attacked, "x--", label="under attack")
        axes.set_xlabel("l2 radius (units of the input)")
        axes.set_ylabel(f"accuracy, {len(radius)} samples")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend()
        return figure
