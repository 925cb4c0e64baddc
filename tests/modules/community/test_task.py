"""The task: loss without side effects, exact means over graphs, and what a checkpoint holds."""

import pytest
import torch
from pytorch_lightning import Trainer
from torch_geometric.data import Batch

from theodolite.datamodules import SBMDataModule
from theodolite.modules.community import GNN, CommunityDetection, SingleLabel, assignment_loss


def data(**arguments):
    defaults = {"num_nodes": 30, "pairs": [(12, 1)], "train_graphs": 6, "val_graphs": 3, "test_graphs": 5}
    return SBMDataModule(**{**defaults, "batch_size": 2, **arguments})


def task(**arguments):
    torch.manual_seed(0)
    return CommunityDetection(GNN(2, width=4, depth=2), 2, **arguments)


def quiet_trainer(tmp_path, **arguments):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **arguments,
    )


def test_loss_is_the_mean_over_graphs_and_differentiable():
    datamodule, model = data(), task()
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))
    loss = model.loss(batch)
    expected = assignment_loss(model(batch), batch.y, batch.batch, 2).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_readouts_on_the_way_add_their_mean_loss():
    batch = next(iter(data().train_dataloader()))
    torch.manual_seed(0)
    model = CommunityDetection(GNN(2, width=4, depth=5, readout_every=2), 2)
    first, second, last = (
        assignment_loss(scores, batch.y, batch.batch, 2).mean() for scores in model.network.readouts(batch)
    )
    torch.testing.assert_close(model.loss(batch), last + (first + second) / 2)


def test_means_are_over_graphs_whatever_the_batches(tmp_path):
    """Five graphs in batches of 2, 2, 1: the last must weigh half of the others."""
    model = task()
    results = [quiet_trainer(tmp_path).test(model, data(batch_size=size), verbose=False)[0] for size in (1, 2, 5)]
    for key in ("test/loss", "test/overlap", "test/accuracy"):
        assert results[0][key] == pytest.approx(results[1][key], abs=1e-6)
        assert results[0][key] == pytest.approx(results[2][key], abs=1e-6)


def test_a_baseline_is_tested_like_a_network(tmp_path):
    result = quiet_trainer(tmp_path).test(CommunityDetection(SingleLabel(2), 2), data(), verbose=False)[0]
    assert result["test/overlap"] == pytest.approx(0, abs=1e-6)


def test_training_lowers_the_loss(tmp_path):
    datamodule, model = data(train_graphs=60, pairs=[(14, 0.5)]), task()
    datamodule.setup("fit")
    batch = Batch.from_data_list([datamodule.val_dataloader().dataset[i] for i in range(3)])
    before = model.loss(batch).item()
    quiet_trainer(tmp_path, max_epochs=3).fit(model, datamodule)
    assert model.loss(batch).item() < 0.5 * before


def test_checkpoint_loads_with_weights_only_and_the_network_passed_again(tmp_path):
    model = task(label_permutations=[[0, 1]])
    trainer = quiet_trainer(tmp_path, fast_dev_run=True)
    trainer.fit(model, data())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert content["hyper_parameters"]["label_permutations"] == [[0, 1]]
    assert "network" not in content["hyper_parameters"]
    loaded = CommunityDetection.load_from_checkpoint(tmp_path / "model.ckpt", network=GNN(2, width=4, depth=2))
    for ours, theirs in zip(model.parameters(), loaded.parameters()):
        assert torch.equal(ours, theirs)


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="num_classes=2, the task 3"):
        CommunityDetection(GNN(2, width=4, depth=1), 3)
    with pytest.raises(ValueError, match=r"must be a permutation of 0 \.\. 1"):
        task(label_permutations=[[0, 0]])


def test_unlabelled_batch_says_what_to_do():
    datamodule, model = data(), task()
    datamodule.setup("fit")
    batch = next(iter(datamodule.train_dataloader()))
    del batch.y
    with pytest.raises(ValueError, match="theodolite predict"):
        model.loss(batch)
