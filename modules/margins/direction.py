"""Directions of weights, and the linear rule that a model of any parametrisation computes."""

import torch
from torch import Tensor, nn

__all__ = ["angle_degrees", "linear_rule", "signed_rows"]


def angle_degrees(first: Tensor, second: Tensor) -> Tensor:
    r"""Give the angle between two vectors, in degrees, to full relative accuracy for small ones too.

    .. math:: 2 \arctan \frac{\|u - v\|}{\|u + v\|}, \qquad u = a / \|a\|,\ v = b / \|b\|

    An arc cosine would see nothing below a millionth of a degree.

    Args:
        first: a, any shape, not zero.
        second: b, of as many entries, not zero.

    Returns:
        Scalar, float64, in [0, 180].

    Raises:
        ValueError: If one of them is zero.
    """
    lengths = [vector.double().norm() for vector in (first, second)]
    if not all(float(length) > 0 for length in lengths):
        msg = "angle_degrees: the weights are all zero, so they have no direction."
        raise ValueError(msg)
    u, v = (vector.double().flatten() / length for vector, length in zip((first, second), lengths, strict=True))
    return torch.rad2deg(2 * torch.atan2((u - v).norm(), (u + v).norm()))


def linear_rule(model: nn.Module, x: Tensor, tolerance: float = 1e-4) -> Tensor:
    r"""Read off the weights of a model that is linear in its input, :math:`f_c(x) = \langle w_c, x \rangle`.

    They are the gradients of its outputs at zero, tried on the samples; how the model's parameters make them (one
    layer, many, convolutions) does not matter.

    Args:
        model: ``model(x)`` gives scores (N,) or (N, C).
        x: Samples (N, ...), on which linearity is tried.
        tolerance: Largest deviation, relative to the largest score; 1e-4 lets float32 pass.

    Returns:
        w, (C, d), detached; d entries of a sample, C = 1 for a single output.

    Raises:
        ValueError: If the model is not linear on the samples: it has an intercept, or a nonlinearity.
    """
    with torch.inference_mode(False), torch.enable_grad():
        start = torch.zeros_like(x[:1]).requires_grad_()
        slopes = [torch.autograd.grad(s, start, retain_graph=True)[0].flatten() for s in model(start).flatten()]
    rule = torch.stack(slopes).detach()
    with torch.no_grad():
        scores = model(x).reshape(len(x), -1)
        error, size = float((scores - x.flatten(1) @ rule.T).abs().amax()), float(scores.abs().amax())
    if not error <= tolerance * size:
        msg = (
            f"linear_rule: the model is not linear in its input without intercept (its scores are up to {size:.3g} and "
            f"differ by {error:.3g} from a linear rule's); take out the intercept, or compare with a checkpoint."
        )
        raise ValueError(msg)
    return rule


def signed_rows(x: Tensor, y: Tensor, outputs: int) -> Tensor:
    r"""Give the rows whose products with a linear rule are its margins, one for each sample and other class.

    .. math:: \langle W, z_{nj} \rangle = \langle w_{y_n} - w_j, x_n \rangle, \qquad
        \langle w, z_n \rangle = (2 y_n - 1) \langle w, x_n \rangle \text{ for a single output}

    Args:
        x: Samples (N, ...) of d entries.
        y: Classes, int (N,), in 0 .. max(C, 2) - 1.
        outputs: C, the rule's scores; 1 for a single one of two classes.

    Returns:
        z, (N, d) for a single output, else (N (C - 1), C d).
    """
    x = x.flatten(1)
    if outputs == 1:
        return x * (2 * y[:, None] - 1)
    unit = torch.eye(outputs, dtype=x.dtype, device=x.device)
    signs = unit[y][:, None] - unit  # (N, C, C); the row of the label itself is zero
    others = torch.arange(outputs, device=x.device) != y[:, None]
    return (signs[..., None] * x[:, None, None]).flatten(2)[others]
