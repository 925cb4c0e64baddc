"""Pictures and tables land in the run directory, whole or not at all, and never end a run."""

import csv
import json
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, WandbLogger

from theodolite.callbacks.media import log_figure, log_histogram, log_table, run_directory


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


def test_a_histogram_goes_to_wandb_with_its_counts_and_edges(tmp_path):
    logger = WandbLogger(save_dir=tmp_path, mode="offline")
    run = trainer(tmp_path, logger=logger)
    log_histogram(run, "val/nothing", [], [])  # nothing finite: no picture
    log_histogram(run, "val/histogram", [1, 0, 3], [0.0, 1.0, 2.0, 3.0])
    logger.experiment.finish()
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    tool = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    text = subprocess.run(tool, check=True, capture_output=True, text=True).stdout
    records = [json.loads(line) for line in text.splitlines()]
    (logged,) = [record["history"]["item"] for record in records if record["type"] == "history"]
    assert logged["val/histogram.values"] == [1, 0, 3]
    assert logged["val/histogram.bins"] == [0, 1, 2, 3]
    assert not any("nothing" in key for key in logged)


def test_a_histogram_without_wandb_is_no_file(tmp_path):
    log_histogram(trainer(tmp_path), "val/histogram", [1], [0.0, 1.0])
    assert list(tmp_path.rglob("*")) == []
