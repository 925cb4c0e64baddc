"""How far the right class is ahead of the others, in units of the output."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_classes", "output_margin"]


def output_margin(scores: Tensor, labels: Tensor) -> Tensor:
    r"""Give by how much each sample's label leads the best other class.

    .. math:: m_n = f_{y_n}(x_n) - \max_{j \ne y_n} f_j(x_n), \qquad
        m_n = (2 y_n - 1) f(x_n) \text{ for a single output}

    In the unit of the output (logits); it scales with the weights. A sample is misclassified where the margin is
    negative, or zero: a tie is not decided for the label.

    Args:
        scores: Logits (N, C) with C >= 2; or, of two classes, one output a sample, (N,) or (N, 1), positive for
            class 1.
        labels: Classes, (N,) or the shape of a single output; integers, booleans or whole floats in 0 .. C - 1.

    Returns:
        Margins (N,), of the precision of the scores, at least float32.

    Raises:
        ValueError: If the shapes do not fit, or a label is no class.
    """
    check_classes(scores, labels)
    labels = labels.reshape(-1).long()
    scores = scores if scores.dtype == torch.float64 else scores.float()
    if scores.ndim == 1 or scores.shape[1] == 1:
        return scores.reshape(-1) * (2 * labels - 1)
    own = scores.gather(1, labels[:, None])
    others = scores.scatter(1, labels[:, None], -torch.inf)
    return own[:, 0] - others.amax(1)


def check_classes(scores: Any, labels: Any) -> None:
    """Refuse an output that holds no scores of classes for the labels, and labels that are no classes of it.

    Raises:
        ValueError: Saying what was given and what is needed.
    """
    shape, wanted = (tuple(getattr(part, "shape", ())) for part in (scores, labels))
    single = len(shape) == 1 or shape[1:] == (1,)
    fits = wanted == shape[:1] or (single and wanted in (shape, (*shape[:1], 1)))
    if len(shape) not in (1, 2) or 0 in shape[1:] or not fits or not scores.is_floating_point():
        msg = (
            f"margins need one label a sample and logits (N, C), or (N,) of two classes; the model gave "
            f"{type(scores).__name__} of shape {shape} for labels of shape {wanted}."
        )
        raise ValueError(msg)
    classes = 2 if single else scores.shape[1]
    if len(labels) and not bool(((labels >= 0) & (labels < classes) & (labels == labels.round())).all()):
        msg = (
            f"labels are in {float(labels.min()):g} .. {float(labels.max()):g}, but the classes are 0 .. {classes - 1}."
        )
        raise ValueError(msg)
