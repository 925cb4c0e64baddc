"""What attacks refuse, each in one line."""

from typing import Any

import torch
from torch import Tensor


def check_settings(owner: str, *, norm: str, steps: int, restarts: int, keep: str) -> None:
    """Refuse an unknown norm or rule, and numbers of steps or restarts that are too small."""
    if norm not in ("l2", "linf"):
        msg = f"{owner}(norm={norm!r}): must be 'l2' or 'linf'; for no ball at all give eps=inf."
        raise ValueError(msg)
    if keep not in ("best", "last"):
        msg = f"{owner}(keep={keep!r}): must be 'best' or 'last'."
        raise ValueError(msg)
    if steps < 0 or restarts < 1:
        msg = f"{owner}(steps={steps}, restarts={restarts}): needs steps >= 0 and restarts >= 1."
        raise ValueError(msg)


def check_radius(owner: str, eps: float | Tensor, step_size: float | Tensor | None, random_start: bool) -> None:
    """Refuse a radius or a step that is negative or missing."""
    for name, value in (("eps", eps), ("step_size", 0.0 if step_size is None else step_size)):
        least = float(value.min()) if isinstance(value, Tensor) else value
        if not least >= 0:
            msg = f"{owner}({name}={least:g}): must be >= 0, in units of the input; for images in [0, 1] e.g. 0.5 (l2)."
            raise ValueError(msg)
    endless = bool(torch.as_tensor(eps).isinf().any())
    if endless and (step_size is None or random_start):
        msg = f"{owner}(eps=inf): without a ball give a step_size, e.g. 0.1, and random_start=False."
        raise ValueError(msg)


def check_logits(logits: Any, y: Tensor) -> None:
    """Refuse an output that holds no logits (N, C >= 2) for the labels y (N,), and labels that are out of range."""
    shape = tuple(getattr(logits, "shape", ()))
    if len(shape) != 2 or shape[0] != len(y) or shape[1] < 2 or y.ndim != 1:
        msg = (
            f"The model gave {type(logits).__name__} of shape {shape} for labels of shape {tuple(y.shape)}; logits of "
            f"shape ({len(y)}, classes) are needed, two columns or more: wrap the model, or give another objective."
        )
        raise ValueError(msg)
    if len(y) and (int(y.min()) < 0 or int(y.max()) >= shape[1]):
        msg = f"Labels are in {int(y.min())} .. {int(y.max())}, but the model has the classes 0 .. {shape[1] - 1}."
        raise ValueError(msg)


def check_input(x: Tensor, y: Tensor, bounds: tuple[float, float]) -> None:
    """Refuse inputs that are no floats or outside of the bounds, and a number of labels that is not theirs."""
    low, high = bounds
    if not x.is_floating_point():
        msg = f"An attack needs floating-point inputs in [{low:g}, {high:g}], not {x.dtype}; divide bytes by 255."
        raise ValueError(msg)
    if len(y) != len(x):
        msg = f"An attack needs one label a sample: {len(x)} samples, {len(y)} labels."
        raise ValueError(msg)
    least, most = (float(x.detach().min()), float(x.detach().max())) if len(x) else bounds
    if not (least >= low and most <= high):
        msg = (
            f"An attack needs inputs in [{low:g}, {high:g}], these are in [{least:.3g}, {most:.3g}]; normalise in "
            "the model, not in the data, so that eps is in units of the image."
        )
        raise ValueError(msg)
