"""Every word of a text is predicted once, in streams that go on, on any number of processes."""

from itertools import pairwise

import pytest
import torch

from theodolite.datamodules import PTBDataModule, ptb_datamodule
from theodolite.datamodules.text import StreamSampler, TextWindows
from theodolite.modules.language import IGNORED

TEXTS = {
    "train": "the cat sat on the mat\nthe dog sat on the cat\na cat and a dog\n" * 5,
    "valid": "the dog sat\na mat sat on a zebra\n",
    "test": "the cat and the dog sat on a mat\nthe zebra sat\n" * 3,
}


@pytest.fixture
def folder(tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / f"ptb.{name}.txt").write_text(text)
    return str(tmp_path)


def batches(dataset, streams, rank, ranks, drop_last=False):
    """Give the batches of one of several processes."""
    sampler = StreamSampler(dataset, streams, drop_last, num_replicas=ranks, rank=rank)
    numbers = list(sampler)
    assert len(numbers) == len(sampler)
    rows = len(sampler.own)
    return [dataset.__getitems__(numbers[i : i + rows]) for i in range(0, len(numbers), rows)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("size", "steps", "streams"), [(101, 4, 5), (64, 5, 4), (12, 1, 3), (30, 7, 3)])
def test_every_token_is_predicted_once_by_any_number_of_processes(ranks, size, steps, streams):
    text = torch.arange(size)
    parts = [batches(TextWindows(text, steps), streams, rank, ranks) for rank in range(ranks)]
    targets = torch.cat([batch[1].flatten() for part in parts for batch in part])
    assert targets[targets != IGNORED].sort().values.tolist() == list(range(1, size))
    tokens = torch.cat([batch[0][batch[1] != IGNORED] for part in parts for batch in part])
    assert torch.equal(tokens + 1, targets[targets != IGNORED])  # of a text of numbers the next is one more


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_rows_go_on_where_they_ended(ranks, drop_last):
    """22 windows in 5 streams, of which the first two have one more."""
    dataset = TextWindows(torch.arange(88), 4)
    parts = [batches(dataset, 5, rank, ranks, drop_last) for rank in range(ranks)]
    for part in parts:
        for before, after in pairwise(part):
            rows = len(after[0])
            assert torch.equal(after[0][:, 0], before[1][:rows, -1])
    assert [len(part) for part in parts] == [4 if drop_last else 5] * ranks
    assert sum(len(batch[0]) for part in parts for batch in part) == (20 if drop_last else 22)


def test_words_of_the_training_text_are_numbered_by_their_frequency(folder):
    data = PTBDataModule(folder, vocabulary_size=5, batch_size=2, steps=3)
    data.prepare_data()
    data.setup()
    assert data.words == ["<eos>", "<unk>", "the", "cat", "sat"]
    assert data.num_tokens == 5
    (tokens, targets, index), *others = data.val_dataloader()
    assert not others
    text = [tokens.flatten()[0], *targets.flatten()[targets.flatten() != IGNORED]]
    assert " ".join(data.words[number] for number in text) == (
        "the <unk> sat <eos> <unk> <unk> sat <unk> <unk> <unk> <eos>"
    )
    assert index.tolist() == list(range(len(tokens)))
    words = sum(len(line.split()) + 1 for line in TEXTS["train"].splitlines())
    seen = sum(batch[0].numel() for batch in data.train_dataloader())
    assert words - 3 - 2 * 3 < seen < words  # windows that make no full row of streams are left out


def test_training_resumes_in_the_middle_of_an_epoch(folder):
    data = PTBDataModule(folder, batch_size=2, steps=3)
    whole = [batch[2].tolist() for batch in data.train_dataloader()]
    loader, again = data.train_dataloader(), data.train_dataloader()
    iterator = iter(loader)
    next(iterator), next(iterator)
    again.load_state_dict(loader.state_dict())
    assert [batch[2].tolist() for batch in again] == whole[2:]


def test_mistakes_are_one_clear_line(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"PTBDataModule\(steps=0\): must be at least 1"):
        PTBDataModule(folder, steps=0)
    with pytest.raises(ValueError, match=r"PTBDataModule\(vocabulary_size=1\)"):
        PTBDataModule(folder, vocabulary_size=1)
    with pytest.raises(ValueError, match="7 windows of text make no 50 streams"):
        PTBDataModule(folder, batch_size=50, steps=15).train_dataloader()
    empty = tmp_path / "empty"
    with pytest.raises(FileNotFoundError, match=r"ptb\.train\.txt is not there; call prepare_data"):
        PTBDataModule(str(empty)).setup()
    monkeypatch.setattr(ptb_datamodule, "URL", tmp_path.as_uri())
    with pytest.raises(FileNotFoundError, match=r"could not be downloaded \(its checksum is not f26c4b92"):
        PTBDataModule(str(empty)).prepare_data()
    assert not list(empty.iterdir())
    (tmp_path / "ptb.valid.txt").write_text("")
    with pytest.raises(ValueError, match="has no two words"):
        PTBDataModule(folder).setup()


def test_penn_treebank_is_the_published_one(data_dir):
    """929,589, 73,760 and 82,430 words with the ends of sentences, 10,000 of them different."""
    data = PTBDataModule(str(data_dir / "ptb"))
    data.prepare_data()
    data.setup()
    assert len(data.words) == 10000
    for split, words in (("train", 929_589), ("val", 73_760), ("test", 82_430)):
        dataset = data.dataset(split)
        assert int((dataset.targets != IGNORED).sum()) == words - 1
