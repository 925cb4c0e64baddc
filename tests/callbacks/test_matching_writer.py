"""The writer of matchings: names, objectives and gaps, on one and on two processes."""

import csv
import itertools

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from theodolite.callbacks import MatchingWriter
from theodolite.callbacks.prediction_writer import join_parts
from theodolite.datamodules import PairFileDataModule
from theodolite.modules.matching import FAQ, GraphMatching, GraphPairs, Graphs

SIZES = (4, 5, 4)


def matrices(number):
    rng = np.random.default_rng(number)
    n = SIZES[number]
    return rng.integers(0, 9, (n, n)), rng.integers(0, 9, (n, n))


def problem_files(folder):
    """Write three QAPLIB problems with their optimal costs."""
    best = []
    for number, n in enumerate(SIZES):
        a, b = matrices(number)
        lines = [str(n), *(" ".join(map(str, row)) for row in [*a, *b])]
        (folder / f"p{number}.dat").write_text("\n".join(lines))
        costs = {p: int((a * b[np.ix_(p, p)]).sum()) for p in itertools.permutations(range(n))}
        p = min(costs, key=costs.get)
        (folder / f"p{number}.sln").write_text(f"{n} {costs[p]}\n{' '.join(str(i + 1) for i in p)}\n")
        best.append(costs[p])
    return best


def predict(tmp_path, data, **arguments):
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[MatchingWriter()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.predict(GraphMatching(FAQ(restarts=30)), data, return_predictions=False)
    with (tmp_path / "predictions/matching.csv").open() as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "tables/predict/objectives.csv").open() as file:
        objectives = list(csv.DictReader(file))
    return rows, objectives


def test_cost_and_gap_of_quadratic_assignment_problems(tmp_path, capsys):
    best = problem_files(tmp_path)
    rows, objectives = predict(tmp_path / "run", PairFileDataModule(str(tmp_path)))
    assert [row["instance"] for row in objectives] == ["p0", "p1", "p2"]
    for number, (row, known) in enumerate(zip(objectives, best)):
        assert float(row["best known"]) == known
        gap = 100 * (float(row["objective"]) - known) / known
        assert float(row["gap %"]) == pytest.approx(gap)
        assert gap >= 0
        p = [int(r["second"]) - 1 for r in rows if r["instance"] == f"p{number}"]
        a, b = matrices(number)
        assert float(row["objective"]) == (a * b[np.ix_(p, p)]).sum()
        own = [r for r in rows if r["instance"] == f"p{number}"]
        assert [r["first"] for r in own] == [str(i + 1) for i in range(SIZES[number])]
        assert sorted(r["second"] for r in own) == [str(i + 1) for i in range(SIZES[number])]
    assert "gap of 3 instances" in capsys.readouterr().out


def test_graphs_are_matched_by_name(tmp_path):
    (tmp_path / "a.csv").write_text("x y\ny z\nz w\nz v\n")
    (tmp_path / "b.csv").write_text("B A\nC B\nC D\nC E\nC F\n")
    data = PairFileDataModule(str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    rows, objectives = predict(tmp_path / "run", data)
    assert {row["first"] for row in rows} == set("xyzwv")
    assert len({row["second"] for row in rows}) == 5
    assert {row["first"]: row["second"] for row in rows}["z"] == "C"
    assert (float(objectives[0]["objective"]), objectives[0]["best known"]) == (4, "")


def gml(path, edges):
    names = sorted({name for edge in edges for name in edge.split()})
    lines = [f' node [ id {number} label "{name}" ]' for number, name in enumerate(names)]
    for edge in edges:
        source, target = (names.index(name) for name in edge.split())
        lines.append(f" edge [ source {source} target {target} ]")
    path.write_text("graph [\n" + "\n".join(lines) + "\n]\n")
    return str(path)


def test_graphs_in_gml_are_matched_by_label_the_smaller_into_the_larger(tmp_path):
    """A triangle with a tail fits into a triangle with a longer tail, in two ways: all four edges are kept."""
    small = gml(tmp_path / "small.gml", ["a b", "b c", "c a", "c d"])
    large = gml(tmp_path / "large.gml", ["P Q", "Q R", "R S", "S T", "T R"])
    rows, (objectives,) = predict(tmp_path / "run", PairFileDataModule(small, large))
    assert {row["instance"] for row in rows} == {"small-large"}
    matched = {row["first"]: row["second"] for row in rows}
    assert (matched["c"], matched["d"], {matched["a"], matched["b"]}) == ("R", "Q", {"S", "T"})
    assert (float(objectives["objective"]), objectives["n"], objectives["best known"]) == (4, "4", "")


class Failing(LightningModule):
    """Match everything to itself, look for the file meanwhile, and fail at one pair."""

    def __init__(self, folder, fails_at):
        super().__init__()
        self.folder, self.fails_at, self.seen = folder, fails_at, []

    def predict_step(self, batch, batch_idx):
        self.seen.append([path.name for path in self.folder.glob("*.csv")])
        if batch_idx == self.fails_at:
            raise RuntimeError("out of luck")
        return torch.eye(batch.first.max_size).expand(batch.num_pairs, -1, -1)


def test_the_file_appears_when_all_pairs_are_matched(tmp_path):
    problem_files(tmp_path)
    folder = tmp_path / "run/predictions"

    def run(fails_at):
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            default_root_dir=tmp_path / "run",
            callbacks=[MatchingWriter()],
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Failing(folder, fails_at)
        data = PairFileDataModule(str(tmp_path))
        if fails_at is None:
            trainer.predict(module, data)
        else:
            with pytest.raises(RuntimeError, match="out of luck"):
                trainer.predict(module, data)
        return module.seen

    assert run(2) == [[], [], []]
    assert not list(folder.glob("*.csv"))
    assert run(None) == [[], [], []]
    assert [path.name for path in folder.iterdir()] == ["matching.csv"]  # what the failed run left is gone
    with (folder / "matching.csv").open() as file:
        rows = [(row["instance"], row["first"], row["second"]) for row in csv.DictReader(file)]
    assert rows == [(f"p{i}", str(k), str(k)) for i, n in enumerate(SIZES) for k in range(1, n + 1)]


def test_a_join_that_fails_leaves_the_file_as_it_was(tmp_path):
    parts, path = tmp_path / "parts", tmp_path / "all.csv"
    (parts / "2.csv").mkdir(parents=True)  # cannot be read
    (parts / "1.csv").write_text("new,row\n")
    path.write_text("old")
    with pytest.raises(IsADirectoryError):
        join_parts(parts, path, ["a", "b"])
    assert path.read_text() == "old"


def test_pairs_of_ones_own_are_numbered(tmp_path):
    """Without a datamodule that knows names; the pairs of a batch differ in size."""
    sizes = torch.tensor([2, 3])
    side = Graphs(sizes, dense=torch.zeros(2, 3, 3))
    pairs = [GraphPairs(side, side, sample_id=torch.tensor(ids)) for ids in ([11, 2], [7, 5])]
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[MatchingWriter("mine.csv")],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.predict(Failing(tmp_path, None), DataLoader(pairs, batch_size=None, collate_fn=None))
    with (tmp_path / "predictions/mine.csv").open() as file:
        rows = [(int(row["instance"]), int(row["first"]), int(row["second"])) for row in csv.DictReader(file)]
    assert rows == [(i, k, k) for i, n in ((2, 3), (5, 3), (7, 2), (11, 2)) for k in range(n)]


def test_bad_file_names_are_refused():
    with pytest.raises(ValueError, match=r"MatchingWriter\(file_name='a/b.csv'\)"):
        MatchingWriter("a/b.csv")


@pytest.mark.ddp
def test_two_processes_write_what_one_does(tmp_path):
    problem_files(tmp_path)
    one = predict(tmp_path / "one", PairFileDataModule(str(tmp_path)))
    two = predict(tmp_path / "two", PairFileDataModule(str(tmp_path)), devices=2, strategy="ddp_spawn")
    assert one == two
