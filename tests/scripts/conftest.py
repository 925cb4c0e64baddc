"""The command line, called in-process on a task of a second."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from theodolite.scripts.main import main

TINY = """
model:
  class_path: tiny_run.TinyTask
data:
  class_path: tiny_run.TinyData
trainer:
  max_epochs: 3
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command with the tiny configuration in an empty folder, W&B off unless asked for."""
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH")))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)

    def run(command: str, *options: str, wandb: str = "disabled") -> int:
        return main([command, "--config", "tiny.yaml", "--wandb", wandb, *options])

    return run
