"""Pairs of graphs: what is planted, noise by level, and the same pair in every batch, worker and process."""

import jsonargparse
import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from theodolite.datamodules import QAPDataModule
from theodolite.datamodules.qap_datamodule import NOISES
from theodolite.datamodules.sampling import ShardedSampler


def aligned(pairs):
    """Give the matrices of both graphs, the second with the nodes in the first one's order."""
    p = pairs.permutation
    second = pairs.second.dense
    return pairs.first.dense, second.gather(1, p[:, :, None].expand_as(second)).gather(2, p[:, None].expand_as(second))


def same(a, b):
    return (
        torch.equal(a.first.dense, b.first.dense)
        and torch.equal(a.second.dense, b.second.dense)
        and torch.equal(a.permutation, b.permutation)
        and torch.equal(a.sample_id, b.sample_id)
        and torch.equal(a.noise, b.noise)
    )


LAWS = [
    {"model": "erdos_renyi", "edge_probability": 0.3},
    {"model": "regular", "degree": 4},
    {"model": "regular", "degree": 4, "noise_model": "swap"},
    {"model": "erdos_renyi", "noise_model": "swap"},
]


@pytest.mark.parametrize("law", LAWS)
def test_without_noise_the_second_graph_is_the_first_with_shuffled_nodes(law):
    batch = QAPDataModule(num_nodes=20, noises=[0.0], **law).dataset("val").__getitems__(list(range(30)))
    first, second = aligned(batch)
    assert torch.equal(first, second)
    assert not torch.equal(batch.first.dense, batch.second.dense)
    assert torch.equal(batch.permutation.sort(dim=1).values, torch.arange(20).expand(30, 20))
    fixed = (batch.permutation == torch.arange(20)).float().mean()
    assert fixed < 0.15  # 1/20 expected, sd .01


@pytest.mark.parametrize(("model", "noise"), [("erdos_renyi", 0.1), ("regular", 0.1), ("regular", 0.0)])
def test_edges_are_kept_with_one_minus_noise_and_the_density_stays(model, noise):
    """At n = 50 and p = 0.2 or d = 10, as published."""
    batch = QAPDataModule(model=model, noises=[noise]).dataset("test").__getitems__(list(range(400)))
    first, second = aligned(batch)
    edges = first.sum().item() / 2
    kept = (first * second).sum().item() / 2 / edges
    assert abs(kept - (1 - noise)) <= 4 * (noise * (1 - noise) / edges) ** 0.5
    assert abs(second.sum() / first.sum() - 1) < 0.02
    if model == "regular":
        degrees = second.sum(dim=1)
        assert (first.sum(dim=1) == 10).all()
        assert bool((degrees != 10).any()) == (noise > 0)


@pytest.mark.parametrize("law", LAWS)
def test_a_pair_is_a_function_of_seed_split_and_number(law):
    data = QAPDataModule(num_nodes=15, noises=[0.0, 0.1, 0.2], **law)
    dataset = data.dataset("test")
    whole = dataset.__getitems__([4, 0, 7, 1])
    for place, index in enumerate([4, 0, 7, 1]):
        alone = dataset[index]
        assert torch.equal(alone.first.dense[0], whole.first.dense[place])
        assert torch.equal(alone.second.dense[0], whole.second.dense[place])
        assert torch.equal(alone.permutation[0], whole.permutation[place])
        assert alone.sample_id.item() == index
        assert alone.noise.item() == pytest.approx([0.0, 0.1, 0.2][index % 3])
    for other in (
        data.dataset("val"),
        QAPDataModule(num_nodes=15, noises=[0.0, 0.1, 0.2], seed=1, **law).dataset("test"),
    ):
        assert not torch.equal(other[0].first.dense, dataset[0].first.dense)


def test_lightning_moves_a_batch():
    batch = QAPDataModule(num_nodes=6, noises=[0.1]).dataset("val")[3]
    moved = move_data_to_device(batch, torch.device("cpu"))
    assert moved is not batch
    assert same(moved, batch)


def test_sparse_graphs_keep_the_contract():
    batch = QAPDataModule(num_nodes=12, noises=[0.2]).dataset("val").__getitems__([0, 1, 2])
    for graphs in (batch.first, batch.second):
        edge_index, of_node = graphs.sparse.edge_index, graphs.sparse.batch
        assert graphs.sizes.tolist() == [12, 12, 12]
        assert graphs.sparse.num_nodes == 36
        assert torch.equal(of_node, torch.arange(3).repeat_interleave(12))
        assert torch.equal(of_node[edge_index[0]], of_node[edge_index[1]])
        assert torch.equal(graphs.dense, graphs.dense.mT)
        keys = edge_index[0] * 36 + edge_index[1]
        assert (keys.diff() > 0).all()
        assert graphs.dense.sum() == edge_index.shape[1]


def test_batches_do_not_depend_on_workers_and_their_levels_are_even():
    def batches(workers):
        data = QAPDataModule(num_nodes=10, val_pairs=4, batch_size=5, num_workers=workers)
        return list(data.val_dataloader())

    alone, workers = batches(0), batches(2)
    assert len(alone) == len(workers) == 8
    assert all(map(same, alone, workers))
    noise = torch.cat([batch.noise for batch in alone])
    levels = torch.tensor(NOISES)
    assert torch.equal(noise, levels.repeat(4))


def test_two_processes_together_see_the_pairs_of_one():
    data = QAPDataModule(num_nodes=10, noises=[0.1], test_pairs=7, batch_size=3)
    dataset = data.dataset("test")
    shares = [list(ShardedSampler(dataset, num_replicas=2, rank=rank)) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(7))
    whole = dataset.__getitems__(list(range(7)))
    for share in shares:
        part = dataset.__getitems__(share)
        assert torch.equal(part.second.dense, whole.second.dense[share])
        assert torch.equal(part.sample_id, torch.tensor(share))


def test_training_noise_is_drawn_from_the_range():
    dataset = QAPDataModule(num_nodes=8, train_noise=(0.1, 0.3)).dataset("train")
    noise = dataset.__getitems__(list(range(300))).noise
    assert noise.min() >= 0.1
    assert noise.max() <= 0.3
    assert abs(noise.mean() - 0.2) < 4 * 0.2 / 12**0.5 / 300**0.5
    assert (QAPDataModule(num_nodes=8, train_noise=0.1).dataset("train")[3].noise == 0.1).all()


def test_every_training_epoch_is_new_unless_told_otherwise():
    def epochs(fresh):
        data = QAPDataModule(num_nodes=6, degree=2, train_pairs=6, batch_size=3, fresh=fresh)
        loader = data.train_dataloader()
        seen = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            seen.append(sorted(i for batch in loader for i in batch.sample_id.tolist()))
        return seen

    assert epochs(True) == [list(range(6)), list(range(6, 12))]
    assert epochs(False) == [list(range(6)), list(range(6))]


class Reader(pl.LightningModule):
    """Count the pairs of each loop."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.pairs = {"train": 0, "val": 0, "test": 0}

    def training_step(self, batch, batch_idx):
        self.pairs["train"] += batch.num_pairs
        return self.weight * batch.first.dense.sum()

    def validation_step(self, batch, batch_idx):
        self.pairs["val"] += batch.num_pairs

    def test_step(self, batch, batch_idx):
        self.pairs["test"] += batch.num_pairs

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_trains_and_tests_on_it():
    model = Reader()
    data = QAPDataModule(
        num_nodes=8, noises=[0.0, 0.1], train_pairs=7, val_pairs=2, test_pairs=3, batch_size=3, num_workers=1
    )
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert model.pairs == {"train": 14, "val": 8, "test": 6}


@pytest.mark.parametrize(("text", "value"), [("0.1", 0.1), ("[0.1, 0.2]", (0.1, 0.2))])
def test_training_noise_on_the_command_line(text, value):
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(QAPDataModule, "data")
    assert parser.parse_args([f"--data.train_noise={text}"]).data.train_noise == value


def test_ten_thousand_nodes():
    for law in ({"model": "regular", "degree": 3}, {"edge_probability": 3e-4}):
        pair = QAPDataModule(num_nodes=10_000, noises=[0.05], **law).dataset("test")[0]
        assert 27_000 < pair.first.sparse.edge_index.shape[1] < 33_000
        assert 26_000 < pair.second.sparse.edge_index.shape[1] < 34_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noises": [0.1, -0.1]}, "noise=-0.1"),
        ({"train_noise": -0.1}, "noise=-0.1"),
        ({"noise_model": "swap", "noises": [1.1]}, "noise=1.1"),
        ({"train_noise": (0.2, 0.1)}, r"train_noise=\(0.2, 0.1\).*a range \[low, high\]"),
        ({"noises": []}, "at least one level"),
        ({"model": "regular", "num_nodes": 5, "degree": 3}, "product must be even"),
        ({"model": "regular", "num_nodes": 5, "degree": 6}, "degree=6"),
        ({"model": "grid"}, "model='grid'.*erdos_renyi, regular"),
        ({"noise_model": "drop"}, "noise_model='drop'.*flip, swap"),
        ({"edge_probability": 1.0}, r"edge_probability=1.0\): it must be in \[0, 1\)"),
        ({"edge_probability": 0.8, "noises": [0.5]}, "noise=0.5: at density 0.8 at most 0.25"),
        ({"num_nodes": 0}, "num_nodes=0"),
        ({"test_pairs": 0}, "test_pairs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        QAPDataModule(**arguments)
    assert "\n" not in str(error.value)
