"""The task of matching: its loss, exact means over pairs, checkpoints, and pairs without a planted matching."""

import math

import pytest
import torch
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

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


def test_computing_the_loss_has_no_side_effect():
    """No logging (there is no trainer here), no random number drawn, no gradient left, nothing changed."""
    pairs, model = noise_free_pairs(), task()
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = pairs.first.dense.clone(), pairs.second.dense.clone()
    state = torch.get_rng_state()
    assert torch.equal(model.loss(pairs), model.loss(pairs))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(pairs.first.dense, first)
    assert torch.equal(pairs.second.dense, second)


def test_padding_does_not_enter_the_loss():
    firsts, seconds = ([random_graph(n, seed=n + shift) for n in (7, 4)] for shift in (0, 50))
    permutation = torch.full((2, 7), -1)
    permutation[0], permutation[1, :4] = torch.arange(7), torch.arange(4)
    pairs = GraphPairs(padded_side(firsts), padded_side(seconds), permutation)
    scores = torch.randn(2, 7, 7, generator=torch.Generator().manual_seed(0))
    alone = GraphPairs.from_dense(firsts[1][None], seconds[1][None], torch.arange(4)[None])
    torch.testing.assert_close(matching_loss(scores, pairs)[1:], matching_loss(scores[1:, :4, :4], alone))
    scores[1, 4:], scores[1, :, 4:] = 1e4, -1e4  # what stands there means nothing
    torch.testing.assert_close(matching_loss(scores, pairs)[1:], matching_loss(scores[1:, :4, :4], alone))
    constant = matching_loss(torch.zeros(2, 7, 7), pairs)
    assert constant.tolist() == pytest.approx([math.log(7), math.log(4)])
    # double: the second graph of four nodes is regular, and normalising equal values magnifies their rounding
    model, values = task().double(), []
    for a, b in zip(firsts, seconds):
        values.append(model.loss(GraphPairs.from_dense(a[None], b[None], torch.arange(len(a))[None])))
    torch.testing.assert_close(model.loss(pairs), torch.stack(values).mean())


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
    model = task(optimizer=lambda params: Muon(params, lr=0.02))
    noisy, exact = data(noises=[0.05]), data(noises=[0.0], test_pairs=20)
    before = [quiet_trainer(tmp_path).test(model, pairs, verbose=False)[0] for pairs in (noisy, exact)]
    quiet_trainer(tmp_path, max_epochs=6).fit(model, noisy)
    after = [quiet_trainer(tmp_path).test(model, pairs, verbose=False)[0] for pairs in (noisy, exact)]
    assert after[0]["test/loss"] < 0.6 * before[0]["test/loss"]
    assert after[0]["test/accuracy"] > before[0]["test/accuracy"]
    # without noise the assignment is right from the start; single rows are by training: .70 to .88, .84 to .90 by seed
    assert after[1]["test/exact_recovery"] == 1
    assert after[1]["test/argmax_accuracy"] > before[1]["test/argmax_accuracy"] + 0.1


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


def test_pairs_without_a_planted_matching_have_an_objective_only(tmp_path):
    planted = noise_free_pairs()
    pairs = GraphPairs(planted.first, planted.second)
    model = task()
    with pytest.raises(ValueError, match="no planted matching to learn from"):
        model.loss(pairs)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    logged = trainer.test(model, DataLoader([pairs], batch_size=None), verbose=False)[0]
    # an untrained network matches noise-free pairs as planted, by which all edges are common
    edges = planted.first.dense.sum((1, 2)).mean().item() / 2
    assert logged == pytest.approx({"test/common_edges": edges, "test/objective": 2 * edges})
