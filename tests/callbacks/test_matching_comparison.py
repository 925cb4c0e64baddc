"""The comparison of matchings: right numbers, on one and on two processes, nothing left behind."""

import csv

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks import MatchingComparison
from theodolite.datamodules import QAPDataModule
from theodolite.modules.matching import (
    FAQ,
    GraduatedAssignment,
    GraphMatching,
    HandmadeFeatures,
    Refined,
    SiameseGNN,
    assign,
    assignment_accuracy,
    common_edges,
)


def data():
    # 3 levels x 5 pairs: 15 samples in batches of 2, not divisible by two ranks
    return QAPDataModule(
        num_nodes=12,
        edge_probability=0.5,
        noises=[0.0, 0.1, 0.2],
        train_pairs=4,
        val_pairs=3,
        test_pairs=5,
        batch_size=2,
    )


def model():
    torch.manual_seed(0)
    return GraphMatching(SiameseGNN(width=4, depth=2, power=2))


def callback(**arguments):
    defaults = {
        "refinements": [[FAQ()], [GraduatedAssignment(steps=3), FAQ(restarts=2)]],
        "solvers": [FAQ(), HandmadeFeatures(), Refined(HandmadeFeatures(), [FAQ()])],
        "metrics": ["accuracy", "common_edges", "argmax_accuracy", "exact_recovery"],
        "planted": True,
        "published_accuracy": {"SDP": [[0.0, 1.0], [0.1, 0.5]]},
    }
    return MatchingComparison(**{**defaults, **arguments})


def trainer(tmp_path, comparison, **arguments):
    defaults = {
        "accelerator": "cpu",
        "logger": CSVLogger(tmp_path, name="", version=""),
        "callbacks": [comparison],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
        "log_every_n_steps": 1,
    }
    return Trainer(**{**defaults, **arguments})


def test_numbers_are_those_of_a_loop_over_single_pairs(tmp_path):
    module, dataset = model(), data().dataset("test")
    result = trainer(tmp_path, callback()).test(module, data(), verbose=False)[0]
    values = {}
    for index in range(len(dataset)):
        pair = dataset[index]
        noise = f"noise_{float(pair.noise):g}"
        for name, scores in (
            ("", module(pair)),
            ("_faq", FAQ()(pair)),
            ("_module_faq", FAQ().refine(pair, module(pair))),
            ("_handmade_features_faq", FAQ().refine(pair, HandmadeFeatures()(pair))),
        ):
            matching = assign(scores, pair)
            values.setdefault(f"test/accuracy{name}/{noise}", []).append(assignment_accuracy(matching, pair).item())
            values.setdefault(f"test/common_edges{name}/{noise}", []).append(common_edges(matching, pair).item())
        planted = common_edges(pair.permutation, pair).item()
        values.setdefault(f"test/common_edges_planted/{noise}", []).append(planted)
    assert len(values) == 27
    for key, numbers in values.items():
        assert len(numbers) == 5
        assert result[key] == pytest.approx(sum(numbers) / 5, abs=1e-5), key
        deviation = torch.tensor(numbers).double().std().item()
        assert result[f"{key}_stderr"] == pytest.approx(deviation / 5**0.5, abs=1e-5), key
    assert result["test/accuracy_planted/noise_0.2"] == 1
    assert "test/exact_recovery_module_graduated_assignment_faq_2_starts/noise_0.1" in result


def test_tables_have_the_published_values_beside_and_a_figure_each(tmp_path, capsys):
    trainer(tmp_path, callback(metrics=["accuracy", "common_edges"])).test(model(), data(), verbose=False)
    with (tmp_path / "tables/test/accuracy.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["noise"] for row in rows] == ["0", "0.1", "0.2"]
    assert [row["SDP"] for row in rows] == ["1.0", "0.5", ""]
    assert rows[0]["samples"] == "5"
    for metric in ("accuracy", "common_edges"):
        assert (tmp_path / f"figures/test/{metric}.png").stat().st_size > 5000
    with (tmp_path / "tables/test/common_edges.csv").open() as file:
        assert "SDP" not in next(csv.reader(file))
    assert "Siamese GNN" in capsys.readouterr().out


def test_measuring_changes_nothing_in_training(tmp_path):
    weights = []
    for comparison in (callback(every_n_epochs=1), MatchingComparison()):
        module = model()
        torch.manual_seed(1)
        trainer(tmp_path / str(len(weights)), comparison, max_epochs=2).fit(module, data())
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
        assert two[key] == pytest.approx(value, abs=1e-5), key


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(ValueError, match="'acc'"):
        MatchingComparison(metrics=["acc"])
    with pytest.raises(ValueError, match="group_by='snr'"):
        MatchingComparison(group_by="snr")
    with pytest.raises(ValueError, match="every_n_epochs=-1"):
        MatchingComparison(every_n_epochs=-1)
