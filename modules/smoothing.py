"""Randomised smoothing: a classifier that votes over noisy copies of its input, and the radius that it certifies."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .attacks.checks import check_logits
from .noise import sample_generators, sample_normal

__all__ = ["Smoothing", "certified_radius", "largest_radius", "lower_confidence_bound"]

#: Copies drawn from one generator. Part of the numbers: votes depend on it, not on how many copies a batch has.
_CHUNK = 100
#: Keys of the noise: to select the class, to estimate its probability, to attack, and to judge what was attacked.
_SELECT, _ESTIMATE, _ATTACK, _JUDGE = range(4)


def lower_confidence_bound(count: int, number: int, alpha: float) -> float:
    """Give the one-sided Clopper-Pearson bound of a probability: below it with probability at most alpha.

    Args:
        count: Successes, 0 .. number.
        number: Trials, >= 1.
        alpha: Probability of error, in (0, 1).

    Returns:
        The alpha-quantile of Beta(count, number - count + 1); 0 without a success.
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, count, number - count + 1)) if count else 0.0


def certified_radius(probability: float, sigma: float) -> float:
    r"""Give the l2 radius :math:`\sigma \Phi^{-1}(p)` of a class whose probability is at least p; 0 for p <= 1/2."""
    from scipy.stats import norm

    return max(0.0, sigma * float(norm.ppf(probability)))


def largest_radius(number: int, alpha: float, sigma: float) -> float:
    """Give the radius that unanimous votes certify, sigma Phi^-1(alpha^(1/number)): no larger one is possible."""
    return certified_radius(alpha ** (1 / number), sigma)


@dataclass(frozen=True)
class Smoothing:
    r"""The smoothed classifier :math:`g(x) = \arg\max_c P(f(x + \mathcal N(0, \sigma^2 I)) = c)` and its certificates.

    From `Cohen et al. 2019 <https://arxiv.org/abs/1902.02918>`_. The noise is in units of the input and is not
    clamped. It is keyed to (seed, sample, chunk), so that neither batch nor rank changes a vote.

    Args:
        model_fn: The base classifier f: inputs (N, ...) to logits (N, C); in evaluation mode.
        sigma: Standard deviation of the noise, in units of the input, > 0.
        seed: Of the noise, >= 0.
        batch_size: Noisy copies in a forward pass, rounded down to hundreds.
    """

    model_fn: Callable[[Tensor], Any]
    sigma: float
    seed: int = 0
    batch_size: int = 1000

    def certify(self, x: Tensor, y: Tensor, sample_id: int, n0: int, n: int, alpha: float) -> tuple[int, float]:
        r"""Certify the class of one sample.

        The class c has most of ``n0`` votes; of ``n`` fresh ones, k are for c, and p is the lower confidence bound of
        its probability. If p >= 1/2, every perturbation of l2 norm below :math:`\sigma \Phi^{-1}(p)` leaves g at c,
        with probability at least 1 - alpha over the noise. Cost: n0 + n forward passes of one sample.

        Args:
            x: The sample, without a batch axis.
            y: Its label, (); only its range is checked.
            sample_id: Number of the sample, >= 0.
            n0: Votes that select the class.
            n: Votes that estimate its probability.
            alpha: Probability of error.

        Returns:
            The class and the radius in units of the input; -1 and 0 for an abstention.
        """
        chosen = int(self._votes(x, y, sample_id, n0, _SELECT).argmax())
        votes = int(self._votes(x, y, sample_id, n, _ESTIMATE)[chosen])
        probability = lower_confidence_bound(votes, n, alpha)
        return (chosen, certified_radius(probability, self.sigma)) if probability >= 0.5 else (-1, 0.0)

    def refuted(self, x: Tensor, y: Tensor, sample_id: int, n0: int, alpha: float) -> bool:
        """Say whether, of n0 noisy copies of one sample, another class than y has significantly more votes.

        The two-sided binomial test at level alpha between the two, as in the paper's prediction: so a certificate for y
        is contradicted by chance with probability alpha at most.
        """
        from scipy.stats import binomtest

        votes = self._votes(x, y, sample_id, n0, _JUDGE)
        own = int(votes[y])
        votes[y] = 0
        other = int(votes.max())
        return other > own and float(binomtest(other, other + own).pvalue) <= alpha

    def log_probabilities(self, draws: int) -> Callable[[Tensor], Tensor]:
        """Give a differentiable stand-in for the votes, to be attacked.

        From `Salman et al. 2019 <https://arxiv.org/abs/1906.04584>`_: the logarithm of the softmax averaged over the
        same ``draws`` noises for every sample; (N, ...) to (N, C).
        """

        def model_fn(x: Tensor) -> Tensor:
            noise = self._noise(x[0], 0, _ATTACK, draws)
            logits = self.model_fn((x[:, None] + noise).flatten(0, 1))
            scores = logits.float().log_softmax(1).unflatten(0, (len(x), draws))
            return scores.logsumexp(1) - math.log(draws)

        return model_fn

    @torch.no_grad()
    def _votes(self, x: Tensor, y: Tensor, sample_id: int, number: int, key: int) -> Tensor:
        """Count the classes of noisy copies: int64 (C,)."""
        counts = torch.zeros(0)
        step = max(1, self.batch_size // _CHUNK) * _CHUNK
        for first in range(0, number, step):
            size = min(step, number - first)
            logits = self.model_fn(x + self._noise(x, sample_id, key, size, first // _CHUNK))
            check_logits(logits, y.expand(size))
            votes = torch.bincount(logits.argmax(1), minlength=logits.shape[1]).cpu()
            counts = votes if first == 0 else counts + votes
        return counts

    def _noise(self, x: Tensor, sample_id: int, key: int, number: int, first_chunk: int = 0) -> Tensor:
        """Draw noise for copies of a sample, (number, ...)."""
        chunks = range(first_chunk, first_chunk + math.ceil(number / _CHUNK))
        generators = [sample_generators(self.seed, [sample_id], key, chunk)[0] for chunk in chunks]
        noise = sample_normal(generators, (_CHUNK, *x.shape)).flatten(0, 1)[:number]
        return self.sigma * noise.to(x)
