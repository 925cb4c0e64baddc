"""Robust accuracy of any classifier, under any attacks, on any number of ranks."""

import math
from collections import Counter
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..modules.attacks import (
    CHECKS,
    PGD,
    Attack,
    MaskedGradientsWarning,
    masking_checks,
    masking_warnings,
    perturbation_norm,
)
from .adversarial_figures import Example, draw_accuracy, draw_examples
from .classification import ClassifierMeasurement, Samples, spread
from .media import log_figure, log_table

if TYPE_CHECKING:
    from collections.abc import Sequence


class RobustAccuracy(ClassifierMeasurement):
    r"""Measure the share of samples that a classifier gets right, and that no attack within a ball makes it get wrong.

    .. math:: \frac1N \sum_i 1[f(x_i) = y_i \text{ and } f(\mathrm{attack}(x_i)) = y_i]

    with f the class of the largest logit. It works on any LightningModule whose ``forward(x)`` gives logits (N, C) of
    inputs in [0, 1] (normalise in the model), in ``fit``, ``validate`` and ``test`` with default flags, in full
    precision. Samples, repeats and ranks: see :class:`ClassifierMeasurement`. Random starts are keyed to the sample,
    so the result depends neither on the batch size nor on the number of ranks (but see :class:`AutoAttack`).

    A figure without its threat model and attack means nothing: both are in the table. The figure is an upper bound, as
    strong as the attack; signs that it is too high (masked gradients) are looked for in ``validate`` and ``test`` on
    ``checks`` samples with the first PGD, and reported as warnings in plain words: accuracy that rises with eps, FGSM
    or random noise that beats PGD, more steps that help, samples that stand when every image is allowed, gradients that
    vanish.

    Logs ``<stage>/robust_accuracy/clean`` and ``<stage>/robust_accuracy/<attack>``, e.g. ``l2_0.5``. Writes to the run
    directory the tables ``<stage>/robust_accuracy`` (with counts, attack, standard error), ``..._per_class`` and
    ``..._checks``, and the figures ``<stage>/robust_accuracy`` (accuracy against eps) and
    ``<stage>/adversarial_examples``.

    Cost: one forward pass, and every attack on the samples that are classified right; of those that are checked, about
    fourteen times the attack.

    Args:
        attacks: One or several, untargeted.
        eps: Radii at which each of them is measured instead of its own, in units of the input.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        max_samples: Measure so many samples at most, evenly spread over the set, so of each batch its share (larger
            batches are faster then); ``None`` for all.
        checks: Number of samples on which the first PGD is checked; 0 for none.
        num_images: Number of adversarial examples in the figure, of the first attack that fools any; 0 for none.
        class_names: Names of the classes, for tables and figures; by default their numbers.

    Raises:
        ValueError: If an argument is out of range, an attack is targeted, or two have the same name.

    Example::

        Trainer(callbacks=[RobustAccuracy(PGD(norm="l2", steps=20), eps=[0.25, 0.5, 1.0])]).test(module, loader)
    """

    def __init__(
        self,
        attacks: Attack | list[Attack],
        eps: list[float] | None = None,
        every_n_epochs: int = 1,
        max_samples: int | None = None,
        checks: int = 64,
        num_images: int = 6,
        class_names: list[str] | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        given = attacks if isinstance(attacks, list) else [attacks]
        self.attacks = given if eps is None else [attack.at(radius) for attack in given for radius in eps]
        self._check_attacks()
        if checks < 0 or num_images < 0:
            msg = f"RobustAccuracy(checks={checks}, num_images={num_images}): both must be >= 0; 0 for none."
            raise ValueError(msg)
        self.checks = checks
        self.num_images = num_images
        self.class_names = class_names
        self._examples: dict[str, dict[str, list[Example]]] = {}

    def check_samples(self, pl_module: LightningModule, x: Tensor, y: Tensor) -> None:
        """Refuse what cannot be attacked."""
        self.check_attackable(pl_module, x, y, self.attacks)

    def measure(self, pl_module: LightningModule, samples: Samples) -> Tensor:
        """Say whether each sample is right without an attack, and still is under each; then the checks, NaN for none.

        Returns:
            float (N, 1 + attacks + checks).
        """
        predicted = self.predict(pl_module, samples.x, samples.y)
        standing = [predicted == samples.y]
        right = standing[0].nonzero()[:, 0]
        x, y, sample_id = samples.x[right], samples.y[right], samples.sample_id[right.cpu()]
        for attack in self.attacks:
            stands = torch.zeros_like(standing[0])
            if len(right):
                changed = attack(pl_module, x, y, sample_id)
                _check_ball(attack, x, changed)
                labels = self.predict(pl_module, changed, y)
                stands[right] = labels == y
                self._collect(pl_module, attack, samples.detail, (x, changed, y, labels))
            standing.append(stands)
        return torch.cat([torch.stack(standing, dim=1).float(), self._checks(pl_module, samples, standing[0])], dim=1)

    def summarise(self, trainer: Trainer, pl_module: LightningModule, stage: str, detail: str, rows: Tensor) -> None:
        """Log the accuracies, warn of masked gradients, write tables and figures."""
        names = ["clean", *(attack.name for attack in self.attacks)]
        standing = rows[:, 2 : 2 + len(names)]
        for name, accuracy in zip(names, standing.mean(0).tolist(), strict=True):
            pl_module.log(f"{stage}/robust_accuracy/{name}{detail}", accuracy, sync_dist=True, batch_size=1)
        checks = rows[:, 2 + len(names) :]
        checks = checks[~checks.isnan().any(1)]
        warnings = masking_warnings(checks, self._examined.name) if self._examined is not None else []
        for line in [*warnings, *self._not_monotone(standing[:, 1:].sum(0).long().tolist())]:
            rank_zero_warn(line, category=MaskedGradientsWarning)
        examples = self._examples.pop(detail, {})
        self._show(trainer, f"{stage}{detail}", rows[:, 1].long(), standing, checks, examples)

    @property
    def _examined(self) -> PGD | None:
        """The attack that is checked: the first PGD of several steps, whose radius and bounds are finite."""
        attacks = (attack for attack in self.attacks if isinstance(attack, PGD) and attack.steps > 1 and attack.eps)
        return next((attack for attack in attacks if all(map(math.isfinite, (attack.eps, *attack.bounds)))), None)

    def _check_attacks(self) -> None:
        if not self.attacks:
            msg = "RobustAccuracy(attacks=[]): give at least one attack, e.g. PGD(norm='l2', eps=0.5)."
            raise ValueError(msg)
        for attack in self.attacks:
            if getattr(attack, "targeted", False):
                msg = (
                    f"RobustAccuracy: the attack {attack.name} is targeted, so it would make the model right; give it "
                    "targeted=False."
                )
                raise ValueError(msg)
        twice = [name for name, count in Counter(attack.name for attack in self.attacks).items() if count > 1]
        if twice or any(attack.name == "clean" for attack in self.attacks):
            msg = f"RobustAccuracy: two results would be called {(twice or ['clean'])[0]}; give each attack a name."
            raise ValueError(msg)

    def _checks(self, pl_module: LightningModule, samples: Samples, right: Tensor) -> Tensor:
        """Check the attack on the samples that are chosen for it and classified right: (N, checks), else NaN."""
        columns = torch.full((len(samples.y), len(CHECKS)), torch.nan, device=samples.y.device)
        attack, state = self._examined, pl_module.trainer.state
        if attack is None or not self.checks or state.fn == "fit":
            return columns
        chosen = spread(samples.place, samples.total, self.checks).to(right.device) & right
        if chosen.any():
            number = samples.sample_id[chosen.cpu()]
            columns[chosen] = masking_checks(pl_module, samples.x[chosen], samples.y[chosen], attack, number).float()
        return columns

    def _collect(self, pl_module: LightningModule, attack: Attack, detail: str, found: tuple[Tensor, ...]) -> None:
        """Keep the first images that are fooled for the figure, on the rank that draws it."""
        x, changed, y, labels = found
        if pl_module.trainer.is_global_zero and x.ndim == 4:
            kept = self._examples.setdefault(detail, {}).setdefault(attack.name, [])
            for i in (labels != y).nonzero()[:, 0].tolist()[: self.num_images - len(kept)]:
                kept.append(Example(x[i].float().cpu(), changed[i].float().cpu(), int(y[i]), int(labels[i])))

    def _not_monotone(self, counts: "Sequence[int]") -> list[str]:
        """Say of attacks that differ in their radius alone where the larger one fools fewer samples."""
        found = []
        measured = list(zip(self.attacks, counts, strict=True))
        for small, more in measured:
            for large, fewer in measured:
                alike = (small.describe(), small.norm, type(small)) == (large.describe(), large.norm, type(large))
                if alike and small.eps < large.eps and fewer > more:
                    found.append(
                        f"Robust accuracy rises with the radius: {more} samples stand against {small.name}, but "
                        f"{fewer} against {large.name}; give the attack more steps, or measure AutoAttack too."
                    )
        return found

    @rank_zero_only
    def _show(
        self,
        trainer: Trainer,
        place: str,
        labels: Tensor,
        standing: Tensor,
        checks: Tensor,
        examples: dict[str, list[Example]],
    ) -> None:
        counts, number = standing.sum(0).long().tolist(), len(standing)
        records = []
        table = Table(*_COLUMNS, title=f"{place}: robust accuracy, {number} samples")
        for attack, count in zip([None, *self.attacks], counts, strict=True):
            share = count / number
            error = (share * (1 - share) / number) ** 0.5
            who = [attack.name, attack.describe(), attack.norm, attack.eps] if attack else ["clean", "none", "", 0.0]
            records.append([*who, number, count, share, error])
            table.add_row(*map(str, who[:3]), f"{who[3]:.4g}", str(number), str(count), f"{share:.4f}", f"{error:.4f}")
        log_table(trainer, f"{place}/robust_accuracy", _COLUMNS, records)
        log_table(trainer, f"{place}/robust_accuracy_per_class", *self._per_class(labels, standing))
        if len(checks) and self._examined is not None:
            rows = list(zip(CHECKS, [len(checks)] * len(CHECKS), checks.sum(0).long().tolist(), strict=True))
            log_table(trainer, f"{place}/robust_accuracy_checks", [self._examined.name, "samples", "count"], rows)
        curves = [(attack, count / number) for attack, count in zip(self.attacks, counts[1:], strict=True)]
        paths = [log_figure(trainer, f"{place}/robust_accuracy", draw_accuracy(curves, counts[0] / number, number))]
        fooled = next((name for name, found in examples.items() if found), None)
        if fooled is not None:
            figure = draw_examples(examples[fooled], fooled, self.class_names)
            paths.append(log_figure(trainer, f"{place}/adversarial_examples", figure))
        if trainer.state.fn != "fit":
            console = Console(width=max(Console().width, 100))
            console.print(table)
            for path in paths:
                console.print(f"Figure: {path}", soft_wrap=True)

    def _per_class(self, labels: Tensor, standing: Tensor) -> tuple[list[str], list[list[object]]]:
        """Give columns and rows of the table of classes."""
        names = ["clean", *(attack.name for attack in self.attacks)]
        rows: list[list[object]] = []
        for label in labels.unique().tolist():
            part = standing[labels == label]
            known = self.class_names is not None and label < len(self.class_names)
            name = self.class_names[label] if known and self.class_names else label
            rows.append([name, len(part), *part.mean(0).tolist()])
        return ["class", "samples", *names], rows


_COLUMNS = ("name", "attack", "norm", "eps", "samples", "correct", "accuracy", "standard error")


def _check_ball(attack: Attack, x: Tensor, changed: Tensor) -> None:
    """Refuse the result of an attack that left its ball or the box: the accuracy would mean nothing."""
    size = float(perturbation_norm((changed - x).float(), attack.norm).max())
    rounding = torch.finfo(x.dtype).eps * (x[0].numel() ** 0.5 if attack.norm == "l2" else 1)
    low, high = getattr(attack, "bounds", (0.0, 1.0))
    least, most = float(changed.min()), float(changed.max())
    if not (size <= attack.eps * (1 + 1e-5) + rounding and least >= low and most <= high):
        msg = (
            f"RobustAccuracy: the attack {attack.name} moved a sample by {size:.6g} (allowed: {attack.eps:g}), to "
            f"values in [{least:.6g}, {most:.6g}] (allowed: [{low:g}, {high:g}]); correct the attack."
        )
        raise ValueError(msg)
