"""Language modelling as a Task."""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from ..base import Task
from .network import State

__all__ = ["IGNORED", "LanguageModel"]

#: A target that is none: padding behind the end of a text.
IGNORED = -100

#: Tokens decoded at once: their logits, of V numbers each, should stay in the cache until they are summed up.
_ROWS = 256

Batch = tuple[Tensor, Tensor, Tensor]


class LanguageModel(Task):
    r"""Predict each token of a text from those before it.

    .. math:: L = -\frac{1}{N} \sum_t \log p(w_{t+1} \mid w_1, \dots, w_t), \qquad \text{perplexity} = e^L

    Truncated backpropagation through time: within an epoch row b of a batch goes on where row b of the batch before
    ended, and the state is carried over, without gradient; in training, validation and test alike. A batch may have
    fewer rows than the one before, of which then the first go on. ``loss(batch)``, which paths and other measurements
    call, is a function of the batch alone: it begins with an empty state. (A run resumed in the middle of an epoch
    begins with an empty state too.)

    Batches are ``(tokens, targets, index)``: tokens (B, T) and the next tokens (B, T), int64, ``IGNORED`` where there
    is none. Logs ``train/loss`` (nats a token), and under ``val/`` and ``test/``: ``loss`` and ``perplexity``, over all
    tokens of all ranks.

    Args:
        network: Maps tokens and state to features and state, and features to logits, as :class:`LSTMNetwork`.
        optimizer: As in :class:`Task`.
        lr_scheduler: As in :class:`Task`.
    """

    #: The best checkpoint is chosen by this quantity.
    monitor, mode = "val/loss", "min"

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        self.save_init_arguments()
        self.network: Any = network
        self._states: dict[str, State] = {}
        #: Sum of the losses of this process's tokens, and their number, since the evaluation began.
        self._sums = torch.zeros(2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of the next tokens, (B, T, V), of texts (B, T) from their beginning."""
        return self.network.decode(self.network(x)[0])

    def loss(self, batch: Batch) -> Tensor:
        """Give the mean loss of a batch's tokens in nats, each row read from an empty state."""
        return self._read(batch, None)[0]

    def num_samples(self, batch: Batch) -> int:
        """Count the tokens that are predicted."""
        return int((batch[1] != IGNORED).sum())

    def on_train_epoch_start(self) -> None:
        """Begin the texts again."""
        self._states.pop("train", None)

    def on_validation_epoch_start(self) -> None:
        """Begin the texts again."""
        self._begin("val")

    def on_test_epoch_start(self) -> None:
        """Begin the texts again."""
        self._begin("test")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Go on reading; log the loss (``train/loss``)."""
        del batch_idx
        loss = self._carry(batch, "train")
        weight: Any = self.weight(batch)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, prog_bar=True,
                 batch_size=weight)  # fmt: skip
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Go on reading; log loss and perplexity under ``val/``."""
        del batch_idx
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Go on reading; log loss and perplexity under ``test/``."""
        del batch_idx
        self._evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the perplexity of all tokens under ``val/``."""
        self._conclude("val")

    def on_test_epoch_end(self) -> None:
        """Log the perplexity of all tokens under ``test/``."""
        self._conclude("test")

    def _begin(self, stage: str) -> None:
        self._states.pop(stage, None)
        self._sums = torch.zeros(2, dtype=torch.float64)

    def _evaluate(self, batch: Batch, stage: str) -> None:
        loss = self._carry(batch, stage)
        weight: Any = self.weight(batch)
        self._sums += torch.tensor([float(loss) * weight, weight], dtype=torch.float64)
        self.log(f"{stage}/loss", loss, on_epoch=True, sync_dist=True, batch_size=weight)

    def _conclude(self, stage: str) -> None:
        """Log the exponential of the mean loss: ranks add sums, so it is exact on any number of them."""
        sums: Any = self.all_gather(self._sums.to(self.device))
        total, count = sums.view(-1, 2).sum(0)
        value = (total / count).exp().float()
        self.log(f"{stage}/perplexity", value, sync_dist=True, prog_bar=stage == "val", batch_size=1)

    def _carry(self, batch: Batch, stage: str) -> Tensor:
        """Give the loss of a batch that goes on where the one before ended."""
        before = self._states.get(stage)
        if before is not None:
            before = before[0][:, : len(batch[0])].contiguous(), before[1][:, : len(batch[0])].contiguous()
        loss, state = self._read(batch, before)
        self._states[stage] = state[0].detach(), state[1].detach()
        return loss

    def _read(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        features, after = self.network(batch[0], state)
        targets = batch[1].flatten()
        # a whole text has more logits than fit into memory: they are made and summed up by parts
        parts = zip(features.flatten(0, 1).split(_ROWS), targets.split(_ROWS), strict=True)
        losses = [
            functional.cross_entropy(self.network.decode(part).float(), target, ignore_index=IGNORED, reduction="sum")
            for part, target in parts
        ]
        return torch.stack(losses).sum() / (targets != IGNORED).sum(), after
