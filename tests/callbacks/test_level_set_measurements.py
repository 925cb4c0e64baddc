"""Callbacks that measure level sets of trained networks: components by level, and energy gaps by width."""

import csv

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks import EnergyGap, LevelSetComponents
from theodolite.callbacks.geodesics import flat
from theodolite.datamodules import RegressionDataModule
from theodolite.modules.regression import FeedForward, Regression

pytestmark = pytest.mark.filterwarnings("ignore:Experiment logs directory")
GAP = {"dimensions": [2], "widths": [2, 4, 8], "pairs": 3, "num_samples": 21, "train_steps": 30, "path_steps": 5}


def task():
    torch.manual_seed(0)
    return Regression(FeedForward((1, 3, 1), output="sigmoid", bias=False, initial="uniform")).double()


def measure(folder, callback, **options):
    """Test with the callback; gives what was logged."""
    trainer = Trainer(accelerator="cpu", precision="64-true", logger=CSVLogger(folder, name="", version=""),
                      callbacks=[callback], enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, **options)  # fmt: skip
    module = task()
    before = flat(module)
    trainer.test(module, datamodule=RegressionDataModule(num_samples=9), verbose=False)
    assert torch.equal(flat(module), before)
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: float(value) for row in rows for key, value in row.items() if value}


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_networks_at_an_easy_level_are_one_component(tmp_path):
    """At the level .25 the constants are low, and every network reaches them."""
    logged = measure(tmp_path, LevelSetComponents([0.25, 0.2], networks=3, lr=0.02, max_steps=400, bead_steps=2000))
    for level in ("0.25", "0.2"):
        assert logged[f"test/components/number/level_{level}"] == 1
        assert logged[f"test/components/connected/level_{level}"] >= 2 / 3
    rows = table(tmp_path / "tables/test/components.csv")
    assert len(rows) == 6
    share = sum(int(row["connected"]) for row in rows if row["level"] == "0.2") / 3
    assert logged["test/components/connected/level_0.2"] == pytest.approx(share)
    assert (tmp_path / "figures/test/components.png").is_file()


def test_without_a_budget_each_network_is_its_own_component(tmp_path):
    callback = LevelSetComponents([0.1], networks=4, lr=0.02, max_steps=900, max_passes=0)
    logged = measure(tmp_path, callback)
    rows = table(tmp_path / "tables/test/components.csv")
    joined = sum(int(row["connected"]) for row in rows)
    assert logged["test/components/number/level_0.1"] >= 4 - joined
    assert joined < len(rows)


def test_a_level_that_not_all_reach_is_reported(tmp_path):
    with pytest.warns(UserWarning, match=r"level 1e-09: 0 of 2 networks got there"):
        logged = measure(tmp_path, LevelSetComponents([1e-9], networks=2, max_steps=2))
    assert logged["test/components/number/level_1e-09"] == 0


def test_gaps_are_logged_with_their_slope(tmp_path):
    logged = measure(tmp_path, EnergyGap(**GAP))
    rows = table(tmp_path / "tables/test/energy_gap.csv")
    assert [(row["n"], row["m"]) for row in rows] == [("2", "2"), ("2", "4"), ("2", "8")]
    for row in rows:
        assert logged[f"test/energy_gap/n_2/m_{row['m']}"] == pytest.approx(float(row["gap"]), rel=1e-5)
        assert float(row["gap"]) >= 0
    slope, error = logged["test/energy_gap/slope/n_2"], logged["test/energy_gap/slope/n_2_stderr"]
    assert logged["test/energy_gap/slope_upper/n_2"] == pytest.approx(slope + 2 * error, rel=1e-5)
    assert (tmp_path / "figures/test/energy_gap.png").is_file()


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [lambda: EnergyGap(**GAP), lambda: LevelSetComponents([0.2], networks=3, lr=0.02, max_steps=400)]
)
def test_two_processes_measure_what_one_does(tmp_path, make):
    one = measure(tmp_path / "1", make())
    two = measure(tmp_path / "2", make(), devices=2, strategy="ddp_spawn")
    assert set(one) == set(two)
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-6, abs=1e-12), key


def test_mistakes_are_one_clear_line():
    with pytest.raises(ValueError, match=r"LevelSetComponents\(levels=\[\]\): give levels above 0"):
        LevelSetComponents([])
    with pytest.raises(ValueError, match=r"LevelSetComponents\(networks=1, max_steps=60000\)"):
        LevelSetComponents([0.1], networks=1)
    with pytest.raises(ValueError, match=r"EnergyGap\(activation='tanh'\): choose from relu, square"):
        EnergyGap("tanh")
    with pytest.raises(ValueError, match=r"widths=\[4, 4\]\): .* at least two different widths"):
        EnergyGap(widths=[4, 4])
    with pytest.raises(ValueError, match=r"EnergyGap\(pairs=1"):
        EnergyGap(pairs=1)
