"""The comparison of matchings: right numbers, on one and on two processes, nothing left behind."""

import csv

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from theodolite.callbacks import MatchingComparison
from theodolite.datamodules import QAPDataModule
from theodolite.modules.matching import (
    FAQ,
    GRAMPA,
    GraduatedAssignment,
    GraphMatching,
    GraphPairs,
    HandmadeFeatures,
    MatchingNetwork,
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


def test_without_noise_levels_there_is_one_group(tmp_path):
    pairs = list(data().test_dataloader())
    for batch in pairs:
        batch.noise = None
    loader = DataLoader(pairs, batch_size=None)
    result = trainer(tmp_path, callback(group_by=None)).test(model(), loader, verbose=False)[0]
    with (tmp_path / "tables/test/accuracy.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["samples"] == "15"
    assert float(row["Siamese GNN"]) == pytest.approx(result["test/accuracy"], abs=1e-6)  # logged by the module itself
    assert float(row["FAQ"]) == pytest.approx(result["test/accuracy_faq"], abs=1e-6)
    assert "test/accuracy_stderr" in result
    with pytest.raises(ValueError, match="the pairs have no noise level; give group_by=null"):
        trainer(tmp_path / "grouped", callback()).test(model(), loader, verbose=False)


class Identity(MatchingNetwork):
    """Match every node to its own number."""

    def forward(self, pairs):
        return torch.eye(pairs.first.max_size).expand(pairs.num_pairs, -1, -1)


def test_gap_and_solved_of_problems_without_a_planted_matching(tmp_path):
    """The identity costs sum A B: a tenth above the best known, as much, and below it."""
    a, b = (torch.randint(1, 9, (3, 4, 4), generator=torch.Generator().manual_seed(i)).double() for i in range(2))
    cost = (a * b).sum((1, 2))
    best = cost / torch.tensor([1.1, 1.0, 0.8]).double()
    loader = DataLoader([GraphPairs.from_dense(a, b, minimize=True, best_known=best)], batch_size=None)

    def result(name, **arguments):
        comparison = MatchingComparison(group_by=None, **arguments)
        return trainer(tmp_path / name, comparison).test(GraphMatching(Identity()), loader, verbose=False)[0]

    logged = result("gap", metrics=["gap", "solved"])
    assert logged["test/gap"] == pytest.approx((10 + 0 - 20) / 3, abs=1e-5)  # logged as float32
    assert logged["test/solved"] == pytest.approx(2 / 3)
    for name, wrong in (("accuracy", {}), ("planted", {"metrics": ["gap"], "planted": True})):
        with pytest.raises(ValueError, match="no planted matching; leave planted out and measure gap"):
            result(name, **wrong)


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
    def measured(folder, **arguments):  # two metrics: Lightning's ddp_spawn hangs if a rank's metrics exceed a pipe
        comparison = callback(metrics=["accuracy", "common_edges"])
        return trainer(tmp_path / folder, comparison, **arguments).test(model(), data(), verbose=False)[0]

    one, two = measured("one"), measured("two", devices=2, strategy="ddp_spawn")
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
    with pytest.raises(ValueError, match="2 methods are called 'FAQ'"):
        MatchingComparison(solvers=[FAQ(), GRAMPA(), FAQ()])
    with pytest.raises(ValueError, match="2 methods are called 'module \\+ FAQ'"):
        MatchingComparison(refinements=[[FAQ()], [FAQ()]])
    MatchingComparison(solvers=[FAQ(), FAQ(restarts=2)], refinements=[[FAQ()], [FAQ(restarts=2)]])
