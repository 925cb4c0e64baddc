"""Pictures and tables land in the run directory, whole or not at all, and never end a run."""

import csv

import matplotlib.pyplot as plt
import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks.media import log_figure, log_table, run_directory


@pytest.fixture
def figure():
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    yield figure
    plt.close(figure)


def trainer(tmp_path, **arguments):
    defaults = {"logger": CSVLogger(tmp_path, name="", version=""), "accelerator": "cpu", "enable_checkpointing": False}
    return Trainer(**{**defaults, "enable_progress_bar": False, "enable_model_summary": False, **arguments})


def test_run_directory_is_the_csv_loggers_else_the_default_root(tmp_path):
    assert run_directory(trainer(tmp_path)) == tmp_path
    assert run_directory(trainer(tmp_path, logger=False, default_root_dir=tmp_path / "root")) == tmp_path / "root"


def test_figure_and_table_are_written_under_their_keys(tmp_path, figure):
    run = trainer(tmp_path)
    path = log_figure(run, "test/curve", figure)
    assert path == tmp_path / "figures/test/curve.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    path = log_table(run, "test/table", ["a", "b"], [[1, "x"], [2, "y"]])
    with path.open() as file:
        assert list(csv.reader(file)) == [["a", "b"], ["1", "x"], ["2", "y"]]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["curve.png", "table.csv"], "no partial file"


def test_what_cannot_be_written_warns_and_goes_on(tmp_path, figure):
    (tmp_path / "figures").write_text("in the way")
    (tmp_path / "tables").write_text("in the way")
    with pytest.warns(UserWarning, match="could not be written"):
        assert log_figure(trainer(tmp_path), "curve", figure) is None
    with pytest.warns(UserWarning, match="could not be written"):
        assert log_table(trainer(tmp_path), "table", ["a"], [[1]]) is None
