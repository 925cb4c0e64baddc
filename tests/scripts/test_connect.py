"""`theodolite connect`: two trained checkpoints, one path that reloads."""

import csv

import pytest

from theodolite.callbacks.geodesics import Path
from theodolite.scripts.connect import as_test
from theodolite.scripts.main import main

CONFIG = """
model:
  class_path: Regression
  init_args:
    network: {class_path: theodolite.modules.regression.FeedForward}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.05}}
data:
  class_path: RegressionDataModule
  init_args: {num_samples: 20}
trainer: {max_epochs: 30, accelerator: cpu, precision: 64-true, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Two runs of different seeds; gives their checkpoints."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.yaml").write_text(CONFIG)
    for seed in ("1", "2"):
        words = ["fit", "--config", "line.yaml", "--wandb", "disabled", "--run_id", seed, "--seed_everything", seed]
        assert main(words) == 0
    return [f"runs/line/{seed}/checkpoints/last.ckpt" for seed in ("1", "2")]


def test_two_checkpoints_are_connected(trained, tmp_path, capsys):
    words = ["--config", "runs/line/1/config.yaml", "--wandb", "disabled", "--run_id", "path", "--level", "0.3"]
    assert main(["connect", *trained, *words, "--method=linear"]) == 0
    path = Path.load(tmp_path / "runs/line/path/paths/test.pt")
    assert path.method == "linear"
    assert path.level == 0.3
    assert path.length == 1
    with (tmp_path / "runs/line/path/metrics.csv").open() as file:
        (row,) = list(csv.DictReader(file))
    assert float(row["test/geodesic/maximum"]) == pytest.approx(path.maximum)
    assert float(row["test/loss"]) == pytest.approx(float(path.values[0]), rel=1e-5)  # of the first checkpoint
    assert "linear, level 0.3" in capsys.readouterr().out
    figures = sorted(path.name for path in (tmp_path / "runs/line/path/figures/test").iterdir())
    assert figures == ["geodesic_plane.png", "geodesic_profile.png"]


def test_mistakes_are_one_line(trained, capsys):
    assert main(["connect", trained[0], "absent.ckpt", "--config", "line.yaml"]) == 2
    assert "there is no checkpoint absent.ckpt" in capsys.readouterr().err
    words = ["--config", "line.yaml", "--wandb", "disabled"]
    assert main(["connect", *trained, *words, "--method", "string"]) == 2
    assert "method" in capsys.readouterr().err
    assert main(["connect", *trained, *words, "--level", "1e-9"]) == 2
    assert "an end has the value" in capsys.readouterr().err


def test_options_of_the_callback_and_of_test_are_told_apart(tmp_path):
    first, second = (tmp_path / name for name in ("a.ckpt", "b.ckpt"))
    first.touch()
    second.touch()
    words = as_test([str(first), str(second), "--config", "c.yaml", "--lr", "0.1", "--data.seed", "3"])
    assert words == ["test", "--config", "c.yaml", "--data.seed", "3", "--ckpt_path", str(first),
                     "--trainer.callbacks+=GeodesicPath", "--trainer.callbacks.reference", str(second),
                     "--trainer.callbacks.lr", "0.1"]  # fmt: skip


def test_a_configuration_may_stand_anywhere(tmp_path):
    """Before, between or behind the checkpoints: it is never taken for one."""
    for name in ("a.ckpt", "b.ckpt"):
        (tmp_path / name).touch()
    first, second = str(tmp_path / "a.ckpt"), str(tmp_path / "b.ckpt")
    for words in (["--config", "c.yaml", first, second], [first, "--config", "c.yaml", second]):
        found = as_test([*words, "--level", "0.1"])
        assert found[found.index("--config") + 1] == "c.yaml"
        assert found[found.index("--ckpt_path") + 1] == first
        assert found[found.index("--trainer.callbacks.reference") + 1] == second
