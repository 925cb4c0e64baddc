"""The functions to fit: known integrals, samples that depend on their number alone."""

import pytest
import torch
from pytorch_lightning import Trainer

from theodolite.datamodules import RegressionDataModule
from theodolite.datamodules.regression_datamodule import RegressionDataset
from theodolite.modules.regression import FeedForward, Regression


@pytest.mark.parametrize(("function", "median", "error"), [("quadratic", 0.35, 0.1875), ("cubic", 0.140625, 0.158203)])
def test_best_constant_has_the_known_error(function, median, error):
    """The error of the best constant, by the midpoint rule; no other constant is better."""
    _, y, _ = RegressionDataset(function, 20000).__getitems__(list(range(20000)))
    errors = [(y - constant).abs().mean() for constant in (median, median - 0.01, median + 0.01)]
    assert errors[0] == pytest.approx(error, abs=2e-6)
    assert errors[0] < min(errors[1:])


def test_midpoints():
    x, y, index = RegressionDataset("cubic", 4).__getitems__([0, 3])
    assert x.tolist() == [[0.125], [0.875]]
    assert y[1].item() == pytest.approx(8 * 0.875**3 - 10 * 0.875**2 + 3 * 0.875)
    assert index.tolist() == [0, 3]


def test_samples_depend_on_seed_split_and_number_alone():
    def sample(i, split="train", seed=0, size=10):
        return RegressionDataset("teacher", size, split, seed=seed)[i][0]

    assert torch.equal(sample(3), sample(3, size=100))
    assert not torch.equal(sample(3), sample(3, "test"))
    assert not torch.equal(sample(3), sample(3, seed=1))
    assert not torch.equal(sample(3), sample(4))
    uniform = RegressionDataset("quadratic", 1000, sampling="uniform").__getitems__(list(range(1000)))[0]
    assert 0 <= uniform.min() < 0.02
    assert 0.98 < uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / 1000) ** 0.5)


def test_a_student_with_the_teachers_weights_has_no_error():
    dataset = RegressionDataset("teacher", 50, inputs=3, teacher_units=5, seed=2)
    x, y, _ = dataset.__getitems__(list(range(50)))
    student = FeedForward([3, 5, 1], activation="relu", bias=False)
    with torch.no_grad():
        student.layers[0].weight.copy_(torch.from_numpy(dataset.hidden.T))
        student.layers[1].weight.copy_(torch.from_numpy(dataset.outer.T))
    torch.testing.assert_close(student(x), y, rtol=1e-4, atol=1e-5)


def test_batches_and_training(tmp_path):
    data = RegressionDataModule("cubic", num_samples=30)
    (batch,) = data.train_dataloader()
    assert sorted(batch[2].tolist()) == list(range(30))
    assert [len(x) for x, _, _ in RegressionDataModule(num_samples=5, batch_size=2).test_dataloader()] == [2, 2, 1]
    task = Regression(FeedForward(), "squared")
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(task, data)
    result = trainer.test(task, data, verbose=False)[0]
    (batch,) = data.test_dataloader()
    assert result["test/loss"] == pytest.approx(float(task.loss(batch).detach()), rel=1e-6)
    assert result["test/mae"] == pytest.approx(float((task(batch[0]) - batch[1]).abs().mean().detach()), rel=1e-6)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match=r"function='sine'.*quadratic, cubic, teacher"):
        RegressionDataModule("sine")
    with pytest.raises(ValueError, match=r"sampling='grid'"):
        RegressionDataModule(sampling="grid")
    with pytest.raises(ValueError, match=r"num_samples=0"):
        RegressionDataModule(num_samples=0)
