"""Two processes of the console command are one run, and measure what one process measures."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from theodolite.scripts.main import main

CONFIG = """
model:
  class_path: CommunityDetection
  init_args:
    network:
      class_path: GNN
      init_args: {width: 4, depth: 2}
data:
  class_path: SBMDataModule
  # 5 test graphs and 3 validation graphs: neither can be shared out evenly
  init_args: {num_nodes: 40, num_classes: 2, pairs: [[9, 1]], train_graphs: 6, val_graphs: 3, test_graphs: 5}
trainer: {max_epochs: 2, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


def measured(run: Path) -> dict[str, float]:
    with (run / "metrics.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {key: float(value) for key, value in last.items() if key.startswith("test/")}


@pytest.mark.ddp
@pytest.mark.timeout(900)  # four imports of torch, on a busy machine
def test_two_ranks_fit_and_test_as_one_run_with_the_numbers_of_one_rank(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("two.yaml").write_text(CONFIG)
    command = [str(Path(sys.executable).parent / "theodolite"), "fit", "--config", "two.yaml"]
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--test_after_fit", "true"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    assert "distributed_backend=gloo" in result.stderr

    (run,) = Path("runs/two").iterdir()
    assert json.loads((run / "run.json").read_text())["ranks"] == 2
    assert result.stdout.count("run directory: ") == 1
    assert len(list(run.glob("wandb/offline-run-*"))) == 1
    two = measured(run)
    assert {"test/loss", "test/overlap"} <= two.keys()

    assert main(["test", "--config", "two.yaml", "--ckpt_path", "best", "--run_id", "one", "--wandb", "disabled"]) == 0
    one = measured(Path("runs/two/one"))
    assert one.keys() == two.keys()
    assert one == pytest.approx(two, rel=1e-6, abs=1e-7)


@pytest.mark.ddp
def test_a_signal_to_one_rank_ends_the_measurement_of_both(tiny):
    command = [str(Path(sys.executable).parent / "theodolite"), "test", "--config", "tiny.yaml", "--wandb", "disabled"]
    options = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    options += ["--trainer.callbacks+=tiny_run.TerminatedOnOneRank"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 143, result.stderr
    assert "theodolite test: terminated by a signal.\n" in result.stderr
    assert "Traceback" not in result.stderr
