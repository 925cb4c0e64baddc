"""Sharding, seeds and resume: every sample exactly once, on every rank, in every epoch, after every interruption."""

import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.multiprocessing as mp

from theodolite.datamodules.sampling import ShardedSampler, sample_seed
from theodolite.datamodules.sbm_datamodule import SBMDataModule


def shards(size: int, ranks: int, **kwargs) -> list[list[int]]:
    return [list(ShardedSampler(range(size), num_replicas=ranks, rank=rank, **kwargs)) for rank in range(ranks)]


@pytest.mark.parametrize(("size", "ranks"), [(7, 3), (6, 3), (7, 1), (3, 3), (100, 7)])
def test_evaluation_covers_every_sample_exactly_once(size, ranks):
    parts = shards(size, ranks)
    assert sorted(i for part in parts for i in part) == list(range(size))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for rank, part in enumerate(parts):
        assert len(ShardedSampler(range(size), num_replicas=ranks, rank=rank)) == len(part)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_training_gives_every_rank_the_same_number_and_no_sample_twice(ranks):
    parts = shards(8, ranks, shuffle=True, drop_last=True)
    assert {len(part) for part in parts} == {8 // ranks}
    seen = [i for part in parts for i in part]
    assert len(set(seen)) == len(seen) == ranks * (8 // ranks)


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = ShardedSampler(range(50), shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)
    assert order(1, 0) != order(0, 1)
    assert sorted(order(0, 3)) == list(range(50))


def test_fresh_epochs_number_their_samples_without_overlap():
    sampler = ShardedSampler(range(5), shuffle=True, fresh=True)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen.append(sorted(sampler))
    assert seen == [list(range(5)), list(range(5, 10)), list(range(10, 15))]


def test_fewer_samples_than_processes_is_an_error_on_every_rank():
    for rank in range(3):
        with pytest.raises(ValueError, match="2 samples cannot be dealt to 3 processes"):
            ShardedSampler(range(2), num_replicas=3, rank=rank)


def test_wrong_rank_is_an_error():
    with pytest.raises(ValueError, match="rank"):
        ShardedSampler(range(5), num_replicas=2, rank=2)


def test_sample_seeds_differ_in_seed_split_and_index():
    keys = [(s, split, i) for s in (0, 1) for split in ("train", "val", "test") for i in (0, 1, 2**32, 2**32 + 1)]
    states = {tuple(sample_seed(*key).generate_state(4)) for key in keys}
    assert len(states) == len(keys)
    np.testing.assert_array_equal(
        sample_seed(3, "val", 5).generate_state(4), sample_seed(3, "val", 5).generate_state(4)
    )


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_negative_seed_is_an_error(seed, index):
    with pytest.raises(ValueError, match="must be >= 0"):
        sample_seed(seed, "train", index)


class Recorder(pl.LightningModule):
    """Remember the graphs seen, with a parameter whose value depends on their order."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.sample_id.tolist())
        return (self.weight * batch.sample_id.float().mean() - batch.edge_index.float().mean()) ** 2

    def validation_step(self, batch, batch_idx):
        self.evaluated += batch.sample_id.tolist()
        self.log("val/count", float(batch.num_graphs), reduce_fx="sum", sync_dist=True, batch_size=batch.num_graphs)

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Saver(pl.Callback):
    """Save a checkpoint at each of the three moments Lightning's ModelCheckpoint does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"val-{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"end-{trainer.global_step}.ckpt")


def fit(folder: Path, num_workers: int = 0, fresh: bool = True, ckpt: Path | None = None) -> Recorder:
    data = SBMDataModule(
        num_nodes=12,
        pairs=[(8.0, 2.0)],
        train_graphs=7,
        val_graphs=2,
        batch_size=2,
        num_workers=num_workers,
        fresh=fresh,
    )
    trainer = pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, callbacks=[Saver(folder)], enable_checkpointing=False,
    )  # fmt: skip
    model = Recorder()
    trainer.fit(model, data, ckpt_path=ckpt)
    return model


@pytest.mark.parametrize("fresh", [True, False])
def test_resume_from_every_step_sees_the_same_graphs_and_ends_in_the_same_weights(tmp_path, fresh):
    whole = fit(tmp_path / "whole", fresh=fresh)
    assert len(whole.seen) == 12
    graphs = sorted(i for batch in whole.seen for i in batch)
    assert graphs == (list(range(21)) if fresh else sorted(3 * list(range(7))))
    saved = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(saved) == 12 + 3 + 3
    wrong = []
    for path in saved:
        done = int(path.stem.split("-")[-1])
        for workers in (0, 2) if path.stem in ("step-6", "end-8") else (0,):
            resumed = fit(tmp_path / f"{path.stem}_{workers}", workers, fresh, path)
            if resumed.seen != whole.seen[done:] or not torch.equal(resumed.weight, whole.weight):
                wrong.append((path.stem, workers, resumed.seen))
    assert not wrong, whole.seen


def run_rank(rank: int, port: int, folder: Path) -> None:
    """Train and test in one of two processes, as torchrun would start it, with warnings as errors."""
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", NODE_RANK="0", LOCAL_RANK=str(rank)
    )
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    model = Recorder()
    data = SBMDataModule(num_nodes=12, pairs=[(8.0, 2.0)], train_graphs=7, val_graphs=5, test_graphs=7, batch_size=2)
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, data)
    val = trainer.callback_metrics["val/count"].item()
    test = trainer.test(model, data, verbose=False)[0]["val/count"]
    torch.save({"train": model.seen, "evaluated": model.evaluated, "val": val, "test": test}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_processes_train_on_disjoint_graphs_and_test_each_graph_once_without_a_warning(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    trained = [sorted(i for batch in rank["train"] for i in batch) for rank in (first, second)]
    assert [len(ids) for ids in trained] == [6, 6]
    assert len({*trained[0], *trained[1]}) == 12
    assert first["val"] == second["val"] == 5
    assert first["test"] == second["test"] == 7
    assert sorted(first["evaluated"][-4:] + second["evaluated"][-3:]) == list(range(7))
