"""The task of matching: its loss, exact means over pairs, checkpoints, and pairs without a planted matching."""

import math

import pytest
import torch
from pytorch_lightning import Trainer

from theodolite.datamodules import QAPDataModule
from theodolite.modules import Muon
from theodolite.modules.matching import (
    FAQ,
    FGNN,
    Chained,
    GraphMatching,
    GraphPairs,
    SiameseGNN,
    matching_loss,
    objective,
)

from .pairs import noise_free_pairs, padded_side, random_graph


def data(**arguments):
    defaults = {"num_nodes": 12, "edge_probability": 0.4, "noises": [0.0, 0.1], "train_noise": (0.0, 0.05)}
    sizes = {"train_pairs": 40, "val_pairs": 3, "test_pairs": 5, "batch_size": 4}
    return QAPDataModule(**{**defaults, **sizes, **arguments})


def task(**arguments):
    torch.manual_seed(0)
    return GraphMatching(SiameseGNN(width=8, depth=3, power=2), **arguments)


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


def test_loss_is_the_cross_entropy_of_each_row():
    pairs, model = noise_free_pairs(), task()
    scores = model(pairs)
    log_probability = scores.log_softmax(2)
    expected = [-sum(log_probability[b, i, pairs.permutation[b, i]] for i in range(12)).item() / 12 for b in range(2)]
    assert matching_loss(scores, pairs).tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(model.loss(pairs), matching_loss(scores, pairs).mean())
    constant = matching_loss(torch.zeros(2, 12, 12), pairs)
    assert constant.tolist() == pytest.approx([math.log(12)] * 2)


def test_padding_does_not_enter_the_loss():
    firsts, seconds = ([random_graph(n, seed=n + shift) for n in (7, 4)] for shift in (0, 50))
    permutation = torch.full((2, 7), -1)
    permutation[0], permutation[1, :4] = torch.arange(7), torch.arange(4)
    pairs = GraphPairs(padded_side(firsts), padded_side(seconds), permutation)
    scores = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    alone = GraphPairs.from_dense(firsts[1][None], seconds[1][None], torch.arange(4)[None])
    torch.testing.assert_close(matching_loss(scores, pairs)[1:], matching_loss(scores[1:, :4, :4], alone))


def test_every_network_of_a_chain_learns():
    torch.manual_seed(0)
    model = GraphMatching(Chained([FGNN(4, 1, 2), FGNN(4, 1, 2, rank=True)]))
    pairs = noise_free_pairs()
    losses = [matching_loss(scores, pairs).mean() for scores in model.network.readouts(pairs)]
    torch.testing.assert_close(model.loss(pairs), losses[1] + losses[0])
    model.loss(pairs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_means_are_over_pairs_whatever_the_batches(tmp_path):
    """Ten pairs in batches of 4, 4, 2: the last must weigh half of the others."""
    model = task()
    results = [quiet_trainer(tmp_path).test(model, data(batch_size=size), verbose=False)[0] for size in (1, 4, 10)]
    assert set(results[0]) == {
        f"test/{name}"
        for name in ("loss", "accuracy", "argmax_accuracy", "common_edges", "objective", "exact_recovery")
    }
    for key, value in results[0].items():
        assert results[1][key] == pytest.approx(value, abs=1e-5)
        assert results[2][key] == pytest.approx(value, abs=1e-5)


def test_training_finds_what_the_untrained_network_does_not(tmp_path):
    model, pairs = task(optimizer=lambda params: Muon(params, lr=0.02)), data(noises=[0.05])
    before = quiet_trainer(tmp_path).test(model, pairs, verbose=False)[0]
    quiet_trainer(tmp_path, max_epochs=6).fit(model, pairs)
    after = quiet_trainer(tmp_path).test(model, pairs, verbose=False)[0]
    assert after["test/loss"] < 0.6 * before["test/loss"]
    assert after["test/accuracy"] > before["test/accuracy"]


def test_checkpoint_loads_with_weights_only_and_the_network_passed_again(tmp_path):
    model = task()
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(model, data())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = GraphMatching.load_from_checkpoint(tmp_path / "model.ckpt", network=task().network, weights_only=True)
    pairs = noise_free_pairs()
    torch.testing.assert_close(loaded(pairs), model(pairs), rtol=0, atol=0)


def test_a_solver_is_tested_like_a_network(tmp_path):
    result = quiet_trainer(tmp_path).test(GraphMatching(FAQ()), data(noises=[0.0]), verbose=False)[0]
    assert result["test/accuracy"] > 0.5


def test_pairs_without_a_planted_matching_have_an_objective_only():
    planted = noise_free_pairs()
    pairs = GraphPairs(planted.first, planted.second)
    model = task()
    with pytest.raises(ValueError, match="no planted matching to learn from"):
        model.loss(pairs)
    logged = {}
    model.log_dict = lambda values, **_: logged.update(values)
    model.test_step(pairs, 0)
    assert set(logged) == {"test/common_edges", "test/objective"}
    identity = torch.arange(12).expand(2, 12)
    expected = (planted.first.dense * planted.second.dense).sum((1, 2)).double()
    torch.testing.assert_close(objective(identity, pairs), expected)
