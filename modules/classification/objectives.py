"""What an image classifier is trained for: clean, attacked or noisy images."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..attacks import PGD, Attack, evaluation_mode, pgd

__all__ = ["TRADES", "Adversarial", "GaussianNoise", "Objective", "Standard", "relative_entropy"]

Forward = Callable[[Tensor], Tensor]


class Objective(ABC):
    """The scalar training loss of a batch of images.

    Args:
        label_smoothing: Weight of the uniform distribution in the labels, in [0, 1).

    Raises:
        ValueError: If it is out of range.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        if not 0 <= label_smoothing < 1:
            msg = f"{type(self).__name__}(label_smoothing={label_smoothing}): must be in [0, 1), e.g. 0.1."
            raise ValueError(msg)
        self.label_smoothing = label_smoothing

    @abstractmethod
    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the loss, in nats.

        Args:
            forward: Maps pixels (N, C, H, W) in [0, 1] to logits (N, K); a module is attacked in evaluation mode.
            x: Pixels in [0, 1], (N, C, H, W).
            y: Labels, int64 (N,).
            sample_id: Number of each sample, int64 (N,), for attacks with a random start; another in every epoch.

        Returns:
            A scalar, differentiable in the parameters.
        """

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Give the mean cross-entropy, with smoothed labels, in nats."""
        return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing)


class Standard(Objective):
    """Cross-entropy of the images as they are. Arguments: :class:`Objective`."""

    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the loss."""
        del sample_id
        return self.cross_entropy(forward(x), y)


class Adversarial(Objective):
    r"""Cross-entropy of the attacked images alone.

    .. math:: \min_\theta \frac1N \sum_i \max_{\|\delta_i\| \le \epsilon} L(f_\theta(x_i + \delta_i), y_i)

    From `Madry et al. 2018 <https://arxiv.org/abs/1706.06083>`_. The attack sees the network in evaluation mode; the
    step after it is one of training.

    Args:
        attack: The inner maximum.
        label_smoothing: Of the outer loss.
    """

    def __init__(self, attack: Attack, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        self.attack = attack

    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the loss."""
        return self.cross_entropy(forward(self.attack(forward, x, y, sample_id=sample_id)), y)


class TRADES(Objective):
    r"""Cross-entropy of the clean images, and how far an attack moves the prediction.

    .. math:: L(f(x), y) + \beta \max_{\|\delta\| \le \epsilon} \mathrm{KL}\big(p(x) \,\|\, p(x + \delta)\big)

    From `Zhang et al. 2019 <https://arxiv.org/abs/1901.08573>`_, who start the attack from a small Gaussian; here it
    starts anywhere in the ball, and its last iterate is taken, as there.

    Args:
        attack: Norm, radius, steps, bounds, seed and precision of the inner maximum; it needs a random start, as the
            divergence has no gradient at x.
        beta: Weight of the second part, > 0; 6 in the paper.
        label_smoothing: Of the first part.

    Raises:
        ValueError: If beta is not positive, or the attack starts at x, is targeted, or asks for what is not used.
    """

    def __init__(self, attack: PGD, beta: float = 6.0, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        if not beta > 0:
            msg = f"TRADES(beta={beta}): must be positive, e.g. 6."
            raise ValueError(msg)
        if not attack.random_start or attack.targeted:
            msg = "TRADES: the attack must have random_start=True and targeted=False; at x the divergence has no slope."
            raise ValueError(msg)
        if attack.objective != "cross_entropy" or attack.restarts != 1:
            msg = (
                f"TRADES: its attack raises the divergence, in one run; objective={attack.objective!r} and "
                f"restarts={attack.restarts} would be left out."
            )
            raise ValueError(msg)
        self.attack = attack
        self.beta = beta

    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the loss."""
        with torch.no_grad(), evaluation_mode(forward):
            fixed = forward(x).float().log_softmax(1)
        moved = pgd(
            forward,
            x,
            fixed,
            norm=self.attack.norm,
            eps=self.attack.eps,
            step_size=self.attack.step_size,
            steps=self.attack.steps,
            objective=lambda logits, wanted: relative_entropy(wanted, logits),
            keep="last",
            bounds=tuple(self.attack.bounds),  # pyright: ignore[reportArgumentType]  # YAML gives a list
            seed=self.attack.seed,
            sample_id=sample_id,
            full_precision=self.attack.full_precision,
        )
        clean = forward(x)
        divergence = relative_entropy(clean.float().log_softmax(1), forward(moved)).mean()
        return self.cross_entropy(clean, y) + self.beta * divergence


class GaussianNoise(Objective):
    """Cross-entropy of images with Gaussian noise added to every pixel, not clipped to [0, 1].

    The training of a classifier to be smoothed, `Cohen et al. 2019 <https://arxiv.org/abs/1902.02918>`_.

    Args:
        sigma: Standard deviation of the noise in pixels of [0, 1], > 0.
        label_smoothing: Of the loss.

    Raises:
        ValueError: If sigma is not positive.
    """

    def __init__(self, sigma: float, label_smoothing: float = 0.0) -> None:
        super().__init__(label_smoothing)
        if not sigma > 0:
            msg = f"GaussianNoise(sigma={sigma}): must be positive, in pixels of [0, 1], e.g. 0.25."
            raise ValueError(msg)
        self.sigma = sigma

    def __call__(self, forward: Forward, x: Tensor, y: Tensor, sample_id: Tensor | None = None) -> Tensor:
        """Give the loss."""
        del sample_id
        return self.cross_entropy(forward(x + self.sigma * torch.randn_like(x)), y)


def relative_entropy(log_probabilities: Tensor, logits: Tensor) -> Tensor:
    r"""Give :math:`\mathrm{KL}(p \| q)` of each sample in nats, with q the softmax of the logits.

    Args:
        log_probabilities: log p, (N, K): the gradient stays finite where p underflows to 0.
        logits: (N, K).

    Returns:
        (N,), >= 0 up to rounding.
    """
    return functional.kl_div(logits.float().log_softmax(1), log_probabilities, reduction="none", log_target=True).sum(1)
