"""What the report says of a relabeled set is counted again by hand."""

import csv

import matplotlib.image
import numpy as np
import pytest
import torch

from tests.datamodules.images.made_by_hand import Dots, robustified, write_linear_checkpoint
from theodolite.callbacks import RelabeledReport
from theodolite.callbacks.adversarial_figures import Example, draw_examples
from theodolite.datamodules import RelabeledDataModule
from theodolite.modules.attacks import PGD
from theodolite.modules.classification import ImageClassifier, LinearNetwork

from .classifiers import trainer


def fit(tmp_path, *callbacks, devices=1, **arguments):
    write_linear_checkpoint(tmp_path / "model.ckpt")
    attack = PGD(norm="l2", eps=0.5, steps=5, random_start=False)
    data = RelabeledDataModule(
        Dots(val_samples=23), str(tmp_path / "model.ckpt"), attack, "predicted", "fooled",
        data_dir=str(tmp_path / "sets"), **arguments,
    )  # fmt: skip
    strategy = "ddp_spawn" if devices > 1 else "auto"
    run = trainer(tmp_path / "run", *callbacks, devices=devices, strategy=strategy)
    run.fit(ImageClassifier(LinearNetwork(3, (1, 6, 6)), 3), datamodule=data)
    return data, run


def table(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_tables_and_numbers_are_those_of_the_set(tmp_path):
    data, run = fit(tmp_path, RelabeledReport(num_images=3))
    numbers = data.numbers("train")
    new, old = torch.from_numpy(data.field("label"))[numbers], data.source_labels[numbers]
    rows = table(tmp_path / "run/tables/train/relabeled_labels.csv")
    assert rows[0] == ["class", "original", "new", "fooled", "still correct"]
    assert [row[0] for row in rows[1:]] == ["left", "middle", "right"]
    assert [int(row[1]) for row in rows[1:]] == old.bincount(minlength=3).tolist()
    assert [int(row[2]) for row in rows[1:]] == new.bincount(minlength=3).tolist()
    present = [row for row in rows[1:] if row[1] != "0"]
    assert all((float(row[3]), float(row[4])) == (1, 0) for row in present)  # only those that fool are kept
    lengths = np.sort(data.field("moved")[numbers.numpy()])
    rows = table(tmp_path / "run/tables/train/relabeled_lengths.csv")
    assert float(rows[1][1]) == pytest.approx(lengths[0])
    assert float(rows[-1][1]) == pytest.approx(lengths[-1])
    logged = run.logged_metrics
    for name, value in data.statistics().items():
        assert float(logged[f"train/relabeled/{name}"]) == pytest.approx(value)
    assert (tmp_path / "run/figures/train/relabeled_examples.png").is_file()


@pytest.mark.ddp
def test_two_processes_write_what_one_does(tmp_path):
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        data, run = fit(folder, RelabeledReport(num_images=3), devices=devices)
        tables = {path.name: table(path) for path in (folder / "run/tables/train").iterdir()}
        assert (folder / "run/figures/train/relabeled_examples.png").is_file()
        logged = {name: float(value) for name, value in run.callback_metrics.items() if "/relabeled/" in name}
        found.append((tables, logged))
        if devices == 1:
            assert len(data.records) == 123
    assert found[0] == found[1]
    assert len(found[0][0]) == 2
    assert len(found[0][1]) > 3


def test_no_figure_where_none_is_asked_for(tmp_path):
    fit(tmp_path, RelabeledReport(num_images=0), control="noise")
    assert not (tmp_path / "run/figures").exists()


def test_changes_are_enlarged_by_the_factor(tmp_path):
    original, changed = torch.full((1, 2, 2), 0.5), torch.tensor([[[0.5, 0.52], [0.48, 0.9]]])
    figure = draw_examples([Example(original, changed, 0, 1)], "any", factor=10)
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(shown, [[0.5, 0.7], [0.3, 1.0]], atol=1e-6)
    assert [axes.get_title() for axes in figure.axes] == ["0", "x 10", "1"]
    figure.savefig(tmp_path / "figure.png")
    assert matplotlib.image.imread(tmp_path / "figure.png").std() > 0


def test_user_errors_are_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"RelabeledReport\(num_images=-1, factor=10\): needs"):
        RelabeledReport(num_images=-1)
    for data in (Dots(val_samples=23), robustified(tmp_path)):
        with pytest.raises(ValueError, match=f"needs a RelabeledDataModule; the data are {type(data).__name__}"):
            trainer(tmp_path / type(data).__name__, RelabeledReport()).fit(
                ImageClassifier(LinearNetwork(3, (1, 6, 6)), 3), datamodule=data
            )
