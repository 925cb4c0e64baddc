"""Long texts cut into streams that are read side by side, window by window."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..modules.language import IGNORED
from .sampling import ShardedSampler

__all__ = ["StreamSampler", "TextWindows"]


class TextWindows(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Windows of a text: window i has tokens i * steps to (i + 1) * steps - 1, and after each the next token.

    Every token but the first is predicted exactly once. The last window is padded: token 0, target ``IGNORED``.

    Args:
        tokens: The text, int64 (N,), N >= 2.
        steps: Tokens of a window, >= 1.
    """

    def __init__(self, tokens: Tensor, steps: int) -> None:
        count = -(-(len(tokens) - 1) // steps)
        padding = count * steps - (len(tokens) - 1)
        self.inputs = torch.nn.functional.pad(tokens[:-1], (0, padding)).view(count, steps)
        self.targets = torch.nn.functional.pad(tokens[1:], (0, padding), value=IGNORED).view(count, steps)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitems__(self, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Make a batch: tokens (B, T), targets (B, T) and the numbers of the windows (B,)."""
        index = torch.tensor(numbers)
        return self.inputs[index], self.targets[index], index

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Give one window, without the batch axis."""
        inputs, targets, index = self.__getitems__([number])
        return inputs[0], targets[0], index[0]


class StreamSampler(ShardedSampler):
    """Deal windows so that each row of a batch goes on where that row of the batch before ended.

    The windows are cut into ``streams`` runs of neighbours, whose lengths differ by at most one, the longer ones first.
    Process r of R reads the streams r, r + R, ..., all of them one window further with every batch; the last batch may
    lack the shorter streams. For training (``drop_last``) that last batch is left out, of which some process might have
    none.

    Args:
        dataset: The windows, of which only the number is used.
        streams: Streams over all processes, >= their number.
        drop_last: Read only windows that all streams have (training).
        num_replicas: As in :class:`ShardedSampler`.
        rank: As in :class:`ShardedSampler`.

    Raises:
        ValueError: If there are fewer windows than streams, or fewer streams than processes.
    """

    def __init__(
        self,
        dataset: Any,
        streams: int,
        drop_last: bool = False,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(range(streams), num_replicas=num_replicas, rank=rank)
        windows = len(dataset)
        if windows < streams:
            msg = f"StreamSampler: {windows} windows of text make no {streams} streams; take fewer, or fewer steps."
            raise ValueError(msg)
        self.short, self.extra = divmod(windows, streams)
        if drop_last:
            self.extra, self.offset = 0, self.extra
        else:
            self.offset = self.extra
        #: Rows of the batches of all processes together.
        self.global_batch_size = streams
        #: The streams of this process.
        self.own = range(self.rank, streams, self.num_replicas)
        self.num_samples = self.short * len(self.own) + sum(stream < self.extra for stream in self.own)

    def __iter__(self) -> Iterator[int]:
        """Yield window by window, of each the own streams."""
        numbers = [
            stream * self.short + min(stream, self.offset) + step
            for step in range(self.short + 1)
            for stream in self.own
            if step < self.short or stream < self.extra
        ]
        return iter(numbers[self.skip :])
