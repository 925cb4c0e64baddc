"""Optimizers with a geometry of choice: mirror descent and steepest descent, for many problems at once."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .potentials import LpPotential, Potential

__all__ = ["MirrorDescent", "ProblemOptimizer", "SteepestDescent"]

Norm = Literal["l1", "l2", "linf", "lp", "spectral"]
Scale = Literal["constant", "normalized", "loss"]


class ProblemOptimizer(torch.optim.Optimizer):
    r"""What the two have in common: step sizes, and leading axes that number independent problems.

    With ``batch_dims=1`` every parameter is (R, ...): R problems of the same form (seeds, step sizes), each with its
    own norm, step and momentum, as if it had an optimizer of its own. The closure then gives R losses, and the loss to
    differentiate is their sum.

    Args:
        params: Parameters.
        lr: Step size > 0, or a list of them for equal groups of consecutive problems: 15 problems and three values give
            five problems each.
        norm_power: The step is divided by :math:`\max(1, \|\theta\|_2)^k` with this k >= 0 and the norm over all
            parameters of a problem: 2 keeps steps on the log-loss of deep homogeneous models stable.
        batch_dims: Number of leading axes that number problems, 0 or 1.

    Raises:
        ValueError: If an argument is out of range, or the problems cannot be dealt to the step sizes.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float | Sequence[float], norm_power: float, batch_dims: int, **defaults: Any
    ) -> None:
        name = type(self).__name__
        rates = [lr] if isinstance(lr, (int, float)) else list(lr)
        if not rates or not all(0 < rate < float("inf") for rate in rates):
            msg = f"{name}(lr={lr}): every step size must be positive, e.g. 0.01."
            raise ValueError(msg)
        if norm_power < 0:
            msg = f"{name}(norm_power={norm_power}): must be >= 0; 0 does not scale the step by the weights' norm."
            raise ValueError(msg)
        if batch_dims not in (0, 1):
            msg = f"{name}(batch_dims={batch_dims}): must be 0 (one problem) or 1 (the first axis numbers problems)."
            raise ValueError(msg)
        super().__init__(params, {"lr": lr, "norm_power": norm_power, "batch_dims": batch_dims, **defaults})
        self._dealt: dict[tuple[Any, ...], Tensor] = {}
        for group in self.param_groups:
            problems = group["params"][0].shape[0] if batch_dims else 1
            if problems % len(rates) or (batch_dims and any(p.shape[:1] != (problems,) for p in group["params"])):
                msg = f"{name}: {len(rates)} step sizes cannot be dealt to {problems} problems of the first axis."
                raise ValueError(msg)

    @abstractmethod
    def update(self, param: Tensor, gradient: Tensor, rate: Tensor | float, group: dict[str, Any]) -> None:
        """Change a parameter in place; ``rate`` broadcasts against it."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step; ``closure`` reevaluates the model and gives the loss, one a problem."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if not params:
                continue
            rate = self._rate(group, params, loss)
            for param in params:
                shaped = rate.view(-1, *[1] * (param.ndim - 1)) if isinstance(rate, Tensor) and rate.ndim else rate
                self.update(param, param.grad, shaped, group)
        return loss

    def _rate(self, group: dict[str, Any], params: list[Tensor], loss: Any) -> Tensor | float:
        """Give the step size of each problem, (R,), or one number for all."""
        rate = group["lr"]
        if not isinstance(rate, (int, float, Tensor)):
            problems = params[0].shape[0]
            key = (tuple(rate), problems, params[0].dtype, params[0].device)
            if key not in self._dealt:  # building it anew would be a third of a small problem's step
                self._dealt[key] = params[0].new_tensor(rate).repeat_interleave(problems // len(rate))
            rate = self._dealt[key]
        if group["norm_power"]:
            dims = group["batch_dims"]
            squares = [p.flatten(dims).square().sum(-1) for p in params]
            norm = torch.stack(squares).sum(0).sqrt() if len(squares) > 1 else squares[0].sqrt()
            rate = rate / norm.clamp_min(1).pow(group["norm_power"])
        if group.get("scale") == "loss":
            if loss is None:
                msg = f"{type(self).__name__}(scale='loss'): step needs a closure that gives the loss."
                raise ValueError(msg)
            rate = rate / torch.as_tensor(loss).detach()
        return rate


class MirrorDescent(ProblemOptimizer):
    r"""Mirror descent: a gradient step in the dual, mapped back to the weights.

    .. math::
        \nabla\psi(w_{t+1}) = \nabla\psi(w_t) - \eta_t \nabla L(w_t), \qquad
        w_{t+1} = \arg\min_w \eta_t \langle \nabla L(w_t), w \rangle + D_\psi(w, w_t)

    With the squared loss its limit is the Bregman projection of :math:`w_0` onto the solutions
    (`Gunasekar et al. 2018 <https://arxiv.org/abs/1802.08246>`_, theorem 1). Momentum, as there, adds
    :math:`\beta \Delta z` to the dual step: with :math:`\Delta z = \nabla\psi(w_t) - \nabla\psi(w_{t-1})` ("dual") the
    limit is unchanged, with :math:`\Delta z = w_t - w_{t-1}` ("primal") it is not. ``accelerated`` is the dual momentum
    of `Ji, Srebro and Telgarsky 2021 <https://arxiv.org/abs/2107.00595>`_: :math:`g_t = \frac{t}{t+1}(g_{t-1} + z_t)`,
    step :math:`\eta (g_t + z_t)`.

    The dual of the weights is state: it is computed from them once, at the first step.

    Args:
        params: Parameters; the potential acts on each by itself.
        lr: Step size > 0, or a list for groups of problems.
        potential: The geometry; by default :class:`LpPotential` with p = 2, gradient descent.
        momentum: :math:`\beta` in [0, 1).
        momentum_kind: What the momentum is made of.
        scale: ``constant`` steps, or steps divided by the ``loss`` that the closure gives (in a log frame minimise
            the logarithm of the loss with constant steps: the same, and never underflows).
        norm_power: See :class:`ProblemOptimizer`.
        batch_dims: See :class:`ProblemOptimizer`.

    Raises:
        ValueError: If an argument is out of range; at the first step, if the weights are outside the domain.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | list[float] = 0.01,
        potential: Potential | None = None,
        momentum: float = 0.0,
        momentum_kind: Literal["dual", "primal", "accelerated"] = "dual",
        scale: Literal["constant", "loss"] = "constant",
        norm_power: float = 0.0,
        batch_dims: int = 0,
    ) -> None:
        if not 0 <= momentum < 1:
            msg = f"MirrorDescent(momentum={momentum}): must be in [0, 1), e.g. 0.9."
            raise ValueError(msg)
        _check_choice("MirrorDescent", "momentum_kind", momentum_kind, ("dual", "primal", "accelerated"))
        _check_choice("MirrorDescent", "scale", scale, ("constant", "loss"))
        super().__init__(params, lr, norm_power, batch_dims, momentum=momentum, scale=scale)
        self.potential = potential or LpPotential()  # not in the groups: a checkpoint holds plain values
        self.momentum_kind = momentum_kind

    def update(self, param: Tensor, gradient: Tensor, rate: Tensor | float, group: dict[str, Any]) -> None:
        """Take the step in the dual."""
        state, beta = self.state[param], group["momentum"]
        if not state:
            self.potential.check(param)
            state["dual"] = self.potential.gradient(param).clone()
        dual = state["dual"]
        step = -rate * gradient
        if self.momentum_kind == "accelerated":
            state["step"] = state.get("step", 0) + 1
            direction = state.get("direction", torch.zeros_like(step)) - gradient
            state["direction"] = direction * (state["step"] / (state["step"] + 1))
            step = rate * (state["direction"] - gradient)
        elif beta:
            step = step + beta * state.get("change", 0.0)
        dual += step
        weights = self.potential.inverse(dual)
        if beta:
            state["change"] = step if self.momentum_kind == "dual" else weights - param
        param.copy_(weights)


class SteepestDescent(ProblemOptimizer):
    r"""Steepest descent with respect to a norm.

    .. math::
        w_{t+1} = w_t - \eta_t \|g_t\|_* v_t, \qquad v_t = \arg\max_{\|v\| \le 1} \langle g_t, v \rangle

    which minimises :math:`\langle g_t, w \rangle + \frac{1}{2\eta_t} \|w - w_t\|^2`. ``l1`` changes the one coordinate
    of the largest slope (coordinate descent), ``linf`` all by the same amount (sign descent), ``l2`` is gradient
    descent, ``spectral`` takes the orthogonal factor of a matrix's gradient. On separable data with an exponential tail
    it reaches the maximum margin of the norm (`Gunasekar et al. 2018 <https://arxiv.org/abs/1802.08246>`_).

    Args:
        params: Parameters; the norm is that of each by itself, ``spectral`` of its last two axes.
        lr: Step size > 0, or a list for groups of problems.
        norm: The norm.
        p: Exponent of the norm ``lp``, > 1.
        scale: ``constant``: :math:`\eta_t` is ``lr``. ``normalized``: every step has the length ``lr`` in the norm.
            ``loss``: divided by the loss that the closure gives, see :class:`MirrorDescent`.
        norm_power: See :class:`ProblemOptimizer`.
        batch_dims: See :class:`ProblemOptimizer`.

    Raises:
        ValueError: If an argument is out of range; ``spectral`` for a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float | list[float] = 0.01,
        norm: Norm = "l2",
        p: float = 2.0,
        scale: Scale = "constant",
        norm_power: float = 0.0,
        batch_dims: int = 0,
    ) -> None:
        _check_choice("SteepestDescent", "norm", norm, get_args(Norm))
        _check_choice("SteepestDescent", "scale", scale, get_args(Scale))
        if not 1 < p < float("inf"):
            msg = f"SteepestDescent(p={p}): p must be above 1 and finite; for 1 and infinity take norm l1 or linf."
            raise ValueError(msg)
        super().__init__(params, lr, norm_power, batch_dims, norm=norm, p=p, scale=scale)
        if norm == "spectral":
            for param in (param for group in self.param_groups for param in group["params"]):
                if param.ndim - batch_dims != 2:
                    shape = tuple(param.shape[batch_dims:])
                    msg = f"SteepestDescent(norm='spectral'): a parameter has the shape {shape}, but must be a matrix."
                    raise ValueError(msg)

    def update(self, param: Tensor, gradient: Tensor, rate: Tensor | float, group: dict[str, Any]) -> None:
        """Take the step of steepest descent."""
        dims = group["batch_dims"]
        direction, dual_norm = steepest_direction(gradient, group["norm"], dims, group["p"])
        length = rate if group["scale"] == "normalized" else rate * dual_norm.view(-1, *[1] * (param.ndim - 1))
        param.sub_(length * direction if dims else (length * direction).view_as(param))


def steepest_direction(gradient: Tensor, norm: Norm, batch_dims: int = 0, p: float = 2.0) -> tuple[Tensor, Tensor]:
    r"""Give the unit vector of largest slope, :math:`\arg\max_{\|v\| \le 1} \langle g, v \rangle`, and the dual norm.

    Args:
        gradient: g, with ``batch_dims`` leading axes of independent problems; 0 for g = 0.
        norm: The norm; ``spectral`` acts on matrices.
        batch_dims: 0 or 1.
        p: Of ``lp``.

    Returns:
        v, in the shape of g; and :math:`\|g\|_*`, scalar or (R,).
    """
    if norm == "spectral":
        left, values, right = torch.linalg.svd(gradient, full_matrices=False)
        return left @ right, values.sum(-1)
    flat = gradient.flatten(batch_dims) if gradient.ndim > batch_dims else gradient.unsqueeze(-1)
    match norm:
        case "l1":
            largest, where = flat.abs().max(-1, keepdim=True)
            direction = torch.zeros_like(flat).scatter_(-1, where, flat.gather(-1, where).sign())
            dual_norm = largest.squeeze(-1)
        case "linf":
            direction, dual_norm = flat.sign(), flat.abs().sum(-1)
        case _:
            q = 2.0 if norm == "l2" else p / (p - 1)
            dual_norm = torch.linalg.vector_norm(flat, q, dim=-1)
            unit = flat / dual_norm.unsqueeze(-1).clamp_min(torch.finfo(flat.dtype).tiny)
            direction = unit if q == 2 else unit.sign() * unit.abs().pow(q - 1)
    return direction.view_as(gradient), dual_norm


def _check_choice(name: str, argument: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        msg = f"{name}({argument}={value!r}): must be one of {', '.join(allowed)}."
        raise ValueError(msg)
