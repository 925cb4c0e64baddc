"""What every test starts from and must leave behind: no account, no display, no leak."""

import os
import sys
from pathlib import Path

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

#: Set by Lightning and torch while they run; removed after each test.
ALLOWED = {
    "CUDA_MODULE_LOADING",
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "MASTER_PORT",
    "PL_GLOBAL_SEED",
    "PL_SEED_WORKERS",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
}


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: ``THEODOLITE_TEST_DATA``, else ``shared/data`` beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("THEODOLITE_TEST_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real data: {path} is missing; set THEODOLITE_TEST_DATA")
    return path


@pytest.fixture(autouse=True)
def _no_leaks():
    """Fail a test that leaves environment variables, a process group or a W&B run behind; clean up after it."""
    before = dict(os.environ)
    yield
    kept = {"PYTEST_CURRENT_TEST", "WANDB_SERVICE"}  # W&B's background process serves all tests
    leaked = {key for key in os.environ if key not in before} - ALLOWED - kept
    changed = {key for key in before if os.environ.get(key) != before[key]} - kept
    for key in leaked | ALLOWED.intersection(os.environ):
        if key not in before:
            del os.environ[key]
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    if group:
        torch.distributed.destroy_process_group()
    wandb = sys.modules.get("wandb")
    run = getattr(wandb, "run", None)
    if run is not None:
        run.finish()
    assert not leaked, f"left environment variables {sorted(leaked)} behind"
    assert not changed, f"changed environment variables {sorted(changed)}"
    assert not group, "left a process group behind"
    assert run is None, "left a W&B run open"


@pytest.fixture(autouse=True)
def _no_account(_no_leaks: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B offline and out of the home folder, whatever the machine is logged in to."""
    folder = tmp_path_factory.getbasetemp() / "wandb_home"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv(name, str(folder / name))
