"""Perplexities are exact: of a uniform model, of a state that is carried over, on two processes."""

import csv
import math
from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks.geodesics import ModelLandscape, flat
from theodolite.datamodules import PTBDataModule
from theodolite.modules.language import IGNORED, LanguageModel, LSTMNetwork

QUIET = {"accelerator": "cpu", "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """The same text of 81 words, ends of sentences included, in all splits."""
    words = ["apple", "pear", "plum", "fig"]
    numbers = torch.randint(4, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    lines = [" ".join(words[number] for number in numbers[i : i + 7]) for i in range(0, 70, 7)]
    text = "\n".join([*lines, ""])
    for name in ("train", "valid", "test"):
        (tmp_path / f"ptb.{name}.txt").write_text(text + "\n")  # an empty line is an end of its own
    return str(tmp_path)


def model(seed=0, lr=0.0, **options):
    torch.manual_seed(seed)
    network = LSTMNetwork(6, width=5, initial=0.8, **options)
    return LanguageModel(network, optimizer=partial(torch.optim.SGD, lr=lr))


def data(folder, **options):
    return PTBDataModule(folder, **{"vocabulary_size": 6, "batch_size": 4, "eval_streams": 4, "steps": 5, **options})


def test_perplexity_of_a_uniform_model_is_the_size_of_the_vocabulary(folder):
    module = model()
    torch.nn.init.zeros_(module.network.decoder.weight)
    torch.nn.init.zeros_(module.network.decoder.bias)
    (logged,) = Trainer(logger=False, **QUIET).test(module, data(folder), verbose=False)
    assert logged["test/perplexity"] == pytest.approx(6, rel=1e-6)
    assert logged["test/loss"] == pytest.approx(math.log(6), rel=1e-6)


def test_carried_state_is_one_long_pass_in_training_validation_and_test(folder, tmp_path):
    """80 predictions in 4 streams of 20: whole, and in 4 windows of 5. A rate of zero leaves the weights."""
    (whole,) = Trainer(logger=False, **QUIET).test(model(), data(folder), verbose=False)
    assert whole["test/perplexity"] == pytest.approx(math.exp(whole["test/loss"]), rel=1e-5)
    (cut,) = Trainer(logger=False, **QUIET).test(model(), data(folder, eval_steps=5), verbose=False)
    assert cut == pytest.approx(whole, rel=1e-5)
    trainer = Trainer(
        logger=CSVLogger(tmp_path / "log", name="", version=""), max_epochs=2, log_every_n_steps=1, **QUIET
    )
    trainer.fit(model(), data(folder, eval_steps=5))
    for key in ("train/loss", "val/loss"):
        assert float(trainer.callback_metrics[key]) == pytest.approx(whole["test/loss"], rel=1e-5)
    assert float(trainer.callback_metrics["val/perplexity"]) == pytest.approx(whole["test/perplexity"], rel=1e-5)
    module = model()
    fresh = [module.loss(batch).item() for batch in data(folder, eval_steps=5).test_dataloader()]
    assert sum(fresh) / len(fresh) != pytest.approx(whole["test/loss"], rel=1e-4)


def test_fewer_rows_at_the_end_go_on_from_their_own_state(folder):
    """80 predictions in 3 streams of 7, 7 and 6 windows of 4: as one long pass of each stream by hand."""
    (logged,) = Trainer(logger=False, **QUIET).test(model(), data(folder, eval_streams=3, eval_steps=4), verbose=False)
    module, windows = model(), data(folder, eval_steps=4).dataset("test")
    total = 0.0
    for first, last in ((0, 7), (7, 14), (14, 20)):
        batch = (windows.inputs[first:last].reshape(1, -1), windows.targets[first:last].reshape(1, -1), None)
        total += module.loss(batch).item() * module.num_samples(batch)
    assert logged["test/loss"] == pytest.approx(total / 80, rel=1e-5)


def test_loss_is_a_function_of_the_batch_alone_and_forward_gives_its_logits(folder):
    module = model()
    batch = next(iter(data(folder).test_dataloader()))
    first = module.loss(batch)
    module._carry(batch, "test")
    assert torch.equal(module.loss(batch), first)
    logits = module(batch[0])
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[1].flatten(), ignore_index=IGNORED)
    torch.testing.assert_close(first, by_hand)
    assert module.num_samples(batch) == 80
    first.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_landscape_sees_the_weights_it_is_given_and_weighs_by_tokens(folder):
    """Recurrent layers keep references to their weights: values at another point are those of a module put there."""
    here, there = model(0), model(1)
    batches = list(data(folder, eval_streams=3, eval_steps=7).test_dataloader())
    landscape = ModelLandscape(here, batches, level_scale=torch.exp)
    points = torch.stack([flat(here), flat(there)])
    values = landscape.values(points)
    for module, value in ((here, values[0]), (there, values[1])):
        weights = [module.num_samples(batch) for batch in batches]
        mean = sum(w * module.loss(batch).detach() for w, batch in zip(weights, batches, strict=True)) / sum(weights)
        torch.testing.assert_close(value, mean.exp())
    _, gradient = landscape.gradient(points[1:], 0)
    there.loss(batches[0]).backward()
    torch.testing.assert_close(gradient[0], torch.cat([p.grad.flatten() for p in there.parameters()]))


def test_training_learns_and_weights_begin_uniform(folder):
    torch.manual_seed(0)
    network = LSTMNetwork(6, width=30, layers=3, dropout=0.1)
    assert 0.095 < float(network.lstm.weight_hh_l2.detach().abs().max()) <= 0.1
    assert not network.lstm.bias_ih_l0.any()
    module = LanguageModel(network, optimizer=partial(torch.optim.Adam, lr=0.02))
    trainer = Trainer(logger=False, max_epochs=30, **QUIET)
    trainer.fit(module, data(folder))
    # words alone: exp of the entropy of (7/32 four times, 1/8) is 4.9; that each eighth is an end: 4^(7/8) = 3.4
    assert float(trainer.callback_metrics["val/perplexity"]) < 4.2
    with pytest.raises(ValueError, match=r"LSTMNetwork\(num_tokens=6, width=0"):
        LSTMNetwork(6, width=0)


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_are_one(folder, tmp_path):
    """Five streams on two ranks, the last windows in three of them."""
    found = []
    for devices in (1, 2):
        more = {"devices": 2, "strategy": "ddp_spawn"} if devices == 2 else {}
        logger = CSVLogger(tmp_path / str(devices), name="", version="")
        trainer = Trainer(logger=logger, max_epochs=1, log_every_n_steps=1, **QUIET, **more)
        module = model(lr=0.5)
        options = {"eval_streams": 5, "eval_steps": 3}
        trainer.fit(module, data(folder, **options))
        trainer.test(module, data(folder, **options), verbose=False)
        with (tmp_path / str(devices) / "metrics.csv").open() as file:
            found.append({k: float(v) for row in csv.DictReader(file) for k, v in row.items() if v})
    assert {"train/loss", "val/perplexity", "test/perplexity"} <= set(found[0])
    assert found[1] == pytest.approx(found[0], rel=1e-5)
