"""Solutions kept beside the data: read where they are right, solved again wherever anything differs."""

import pytest
import torch
from pytorch_lightning import Trainer

from theodolite.callbacks import InterpolationBias, MarginBias
from theodolite.callbacks.reference_cache import cached
from theodolite.datamodules import SeparableDataModule, UnderdeterminedDataModule
from theodolite.modules.bias import Dense, ImplicitBias, SteepestDescent


def solver(value, calls):
    def solve():
        calls.append(value)
        return torch.tensor([value], dtype=torch.float64)

    return solve


def test_a_solution_is_read_again_and_no_other_input_is_taken_for_it(tmp_path):
    code = tmp_path / "solver.py"
    code.write_text("first")
    x, calls = torch.eye(2).double(), []
    near = x + torch.finfo(torch.float64).eps  # the last bit
    inputs = [
        (x, "l2", 2.0),
        (near, "l2", 2.0),
        (x, "l1", 2.0),
        (x, "l2", 3.0),
        (x.view(4, 1), "l2", 2.0),
        (x.float(), "l2", 2.0),
    ]
    for _ in range(2):
        for number, given in enumerate(inputs):
            assert float(cached(tmp_path / "kept", solver(float(number), calls), [code], *given)) == number
    assert calls == [0, 1, 2, 3, 4, 5]
    code.write_text("second")  # another solver
    assert float(cached(tmp_path / "kept", solver(7.0, calls), [code], *inputs[0])) == 7
    assert float(cached(None, solver(8.0, calls), [code], *inputs[0])) == 8
    assert len(list((tmp_path / "kept").iterdir())) == 7


@pytest.mark.parametrize("text", [b"", b"half a file"])
def test_a_damaged_file_is_written_again(tmp_path, text):
    calls = []
    for _ in range(3):
        assert float(cached(tmp_path, solver(1.0, calls), [], "problem")) == 1
        if len(calls) == 1:
            (path,) = tmp_path.iterdir()
            path.write_bytes(text)
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_costs_a_warning(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="could not be written"):
        assert float(cached(tmp_path / "file", solver(1.0, []), [], "problem")) == 1


@pytest.mark.parametrize(
    ("data", "callback", "solved"),
    [
        (SeparableDataModule, lambda: MarginBias("l1"), "theodolite.callbacks.margin_bias.max_margin"),
        (UnderdeterminedDataModule, lambda: InterpolationBias("l1"), "theodolite.callbacks.interpolation_bias.min_l1"),
    ],
)
def test_a_second_run_logs_the_same_and_solves_nothing(tmp_path, monkeypatch, data, callback, solved):
    results = []
    for _ in range(2):
        problems = data(problems=2, dimension=8, data_dir=str(tmp_path / "kept"))
        task = ImplicitBias(
            Dense(8, 2, init=0.1), "squared", steps=3, optimizer=lambda p: SteepestDescent(p, batch_dims=1)
        )
        trainer = Trainer(max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                          enable_model_summary=False, accelerator="cpu", callbacks=[callback()])  # fmt: skip
        trainer.fit(task, datamodule=problems)
        results.append(trainer.test(task, datamodule=problems, verbose=False)[0])
        monkeypatch.setattr(solved, None)
    assert results[0] == results[1]
