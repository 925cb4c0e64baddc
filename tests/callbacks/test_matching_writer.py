"""The writer of matchings: names, objectives and gaps, on one and on two processes."""

import csv
import itertools

import numpy as np
import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks import MatchingWriter
from theodolite.datamodules import PairFileDataModule
from theodolite.modules.matching import FAQ, GraphMatching

SIZES = (4, 5, 4)


def problem_files(folder):
    """Write three QAPLIB problems with their optimal costs."""
    best = []
    for number, n in enumerate(SIZES):
        rng = np.random.default_rng(number)
        a, b = rng.integers(0, 9, (n, n)), rng.integers(0, 9, (n, n))
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


@pytest.mark.ddp
def test_two_processes_write_what_one_does(tmp_path):
    problem_files(tmp_path)
    one = predict(tmp_path / "one", PairFileDataModule(str(tmp_path)))
    two = predict(tmp_path / "two", PairFileDataModule(str(tmp_path)), devices=2, strategy="ddp_spawn")
    assert one == two
