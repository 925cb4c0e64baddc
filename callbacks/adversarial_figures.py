"""Pictures of what an adversary can do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..modules.attacks import Attack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Example(NamedTuple):
    """An image before and after an attack, float (channels, height, width) in [0, 1], its label and the new one."""

    original: Tensor
    changed: Tensor
    label: int
    predicted: int


def draw_accuracy(measured: Sequence[tuple[Attack, float]], clean: float, number: int) -> "Figure":
    """Draw accuracy against the radius, one panel a norm and one curve a kind of attack, with standard errors.

    Args:
        measured: Attacks, and the accuracy under each.
        clean: Accuracy without an attack, drawn at the radius 0.
        number: Number of samples.
    """
    from matplotlib.figure import Figure

    norms = sorted({attack.norm for attack, _ in measured})
    figure = Figure(figsize=(5 * len(norms), 4))
    for axes, norm in zip(figure.subplots(1, len(norms), squeeze=False, sharey=True)[0], norms, strict=True):
        for kind in dict.fromkeys(attack.describe() for attack, _ in measured if attack.norm == norm):
            points = sorted((a.eps, share) for a, share in measured if a.norm == norm and a.describe() == kind)
            eps, shares = zip((0.0, clean), *points, strict=True)
            errors = [(share * (1 - share) / number) ** 0.5 for share in shares]
            axes.errorbar(eps, shares, yerr=errors, marker="o", capsize=2, label=kind)
        axes.set_xlabel(f"eps ({norm}, units of the input)")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel(f"robust accuracy, {number} samples")
    return figure


def draw_examples(
    examples: Sequence[Example], name: str, class_names: Sequence[str] | None = None, factor: float | None = None
) -> "Figure":
    """Draw a column an example: the image, the change (enlarged, grey is none), and the sum.

    Args:
        examples: Images of one or three channels; of others the first channel is shown.
        name: Name of the attack.
        class_names: Names of the classes, by default their numbers.
        factor: Enlarges the changes, of which what leaves [-0.5, 0.5] is cut; by default each fills that range.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 * len(examples) + 0.4, 5.2))
    grid = figure.subplots(3, len(examples), squeeze=False)
    for column, (original, changed, label, predicted) in enumerate(examples):
        delta = changed - original
        largest = float(delta.abs().max())
        scale = factor or 0.5 / (largest or 1.0)
        shown = (original, (0.5 + scale * delta).clamp(0, 1), changed)
        titles = (
            _class(label, class_names),
            f"x {scale:.3g}" if largest else "",
            _class(predicted, class_names),
        )
        for axes, image, title in zip(grid[:, column], shown, titles, strict=True):
            axes.imshow(_pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(title, fontsize="small")
            axes.set_axis_off()
    figure.suptitle(f"original, change, and result of {name}", fontsize="medium")
    return figure


def _class(label: int, names: Sequence[str] | None) -> str:
    return names[label] if names is not None and label < len(names) else str(label)


def _pixels(image: Tensor) -> object:
    """Put an image into the form that matplotlib draws."""
    return torch.movedim(image, 0, 2).numpy() if len(image) == 3 else image[0].numpy()
