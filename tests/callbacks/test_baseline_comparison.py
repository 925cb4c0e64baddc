"""The comparison callback: right numbers in every loop, on one and on two processes, nothing left behind."""

import csv

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks import BaselineComparison
from theodolite.callbacks.comparison import mean_and_standard_error
from theodolite.callbacks.held_out import gather_rows
from theodolite.datamodules import SBMDataModule
from theodolite.modules.community import GNN, BetheHessian, CommunityDetection, RandomLabels, SingleLabel, overlap


def data():
    # 3 laws x 7 graphs: 21 samples in batches of 3, not divisible by two ranks
    return SBMDataModule(
        num_nodes=60, pairs=[(12, 1), (8, 4), (6, 6)], train_graphs=4, val_graphs=3, test_graphs=7, batch_size=3
    )


def model():
    torch.manual_seed(0)
    return CommunityDetection(GNN(2, width=4, depth=2), 2)


def trainer(tmp_path, callback, **arguments):
    defaults = {
        "accelerator": "cpu",
        "logger": CSVLogger(tmp_path, name="", version=""),
        "callbacks": [callback],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
        "max_epochs": 1,
    }
    return Trainer(**{**defaults, **arguments})


def callback(**arguments):
    return BaselineComparison(baselines=[BetheHessian(2), SingleLabel(2), RandomLabels(2)], **arguments)


def test_numbers_are_those_of_a_loop_over_single_graphs(tmp_path):
    datamodule, module = data(), model()
    result = trainer(tmp_path, callback()).test(module, datamodule, verbose=False)[0]
    values = {}
    dataset = datamodule.test_dataloader().dataset
    for index in range(len(dataset)):
        graph = dataset[index]
        for name, network in (("", module), ("_bethe_hessian", BetheHessian(2))):
            accuracy = module.graph_accuracy(network(graph), graph)
            key = f"test/overlap{name}/snr_{float(graph.snr):.2f}"
            values.setdefault(key, []).append(overlap(accuracy, 2).item())
    assert len(values) == 6
    for key, numbers in values.items():
        numbers = torch.tensor(numbers).double()
        assert len(numbers) == 7
        assert result[key] == pytest.approx(numbers.mean().item(), abs=1e-6)
        assert result[f"{key}_stderr"] == pytest.approx(numbers.std().item() / 7**0.5, abs=1e-6)
    assert result["test/overlap_single_label/snr_4.65"] == pytest.approx(0, abs=1e-6)


def test_table_and_figure_are_written(tmp_path, capsys):
    trainer(tmp_path, callback()).test(model(), data(), verbose=False)
    with (tmp_path / "tables/test/comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["SNR"] for row in rows] == ["4.65", "0.67", "0.00"]
    assert rows[0]["samples"] == "7"
    assert (tmp_path / "figures/test/comparison.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "Bethe Hessian" in printed
    assert "comparison.png" in printed


def test_validation_within_fit_only_when_asked(tmp_path):
    silent = trainer(tmp_path / "a", callback())
    silent.fit(model(), data())
    assert not any("bethe" in key for key in silent.callback_metrics)
    asked = trainer(tmp_path / "b", callback(every_n_epochs=1))
    asked.fit(model(), data())
    assert "val/overlap_bethe_hessian/snr_4.65" in asked.callback_metrics
    result = trainer(tmp_path / "c", callback()).validate(model(), data(), verbose=False)[0]
    assert "val/overlap/snr_0.67" in result


def test_measuring_changes_nothing_in_training(tmp_path):
    weights = []
    for callbacks in (callback(every_n_epochs=1), BaselineComparison()):
        module = model()
        torch.manual_seed(1)
        trainer(tmp_path / str(len(weights)), callbacks, max_epochs=2).fit(module, data())
        assert module.training
        weights.append((torch.cat([p.flatten() for p in module.parameters()]), torch.get_rng_state()))
    assert torch.equal(weights[0][0], weights[1][0])
    assert torch.equal(weights[0][1], weights[1][1])


@pytest.mark.ddp
def test_two_processes_measure_what_one_does(tmp_path):
    one = trainer(tmp_path / "one", callback()).test(model(), data(), verbose=False)[0]
    two = trainer(tmp_path / "two", callback(), devices=2, strategy="ddp_spawn").test(model(), data(), verbose=False)[0]
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-6), key


def test_without_groups_there_is_one_row(tmp_path):
    result = trainer(tmp_path, callback(group_by=None, metric="accuracy")).test(model(), data(), verbose=False)[0]
    assert result["test/accuracy_single_label"] == pytest.approx(0.5, abs=1e-6)
    assert "test/accuracy_stderr" in result


def test_gather_drops_repeats_of_a_sample_but_not_unnumbered_rows():
    rows = torch.tensor([[2.0, 5.0], [0.0, 1.0], [2.0, 5.0]])
    assert gather_rows(rows).tolist() == [[0, 1], [2, 5]]
    assert len(gather_rows(torch.full((3, 2), torch.nan))) == 3


def test_standard_error_of_one_row_is_zero():
    mean, error = mean_and_standard_error(torch.tensor([[3.0, 4.0]]))
    assert (mean.tolist(), error.tolist()) == ([3, 4], [0, 0])


def test_bad_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="metric='acc'"):
        BaselineComparison(metric="acc")
    with pytest.raises(ValueError, match="every_n_epochs=-1"):
        BaselineComparison(every_n_epochs=-1)
    with pytest.raises(ValueError, match="no such attribute"):
        trainer(tmp_path, BaselineComparison(group_by="temperature")).test(model(), data(), verbose=False)
