"""What every test starts from and must leave behind: no account, no display, no leak."""

import hashlib
import os
import pickle
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from pytorch_lightning.strategies import StrategyRegistry

from .spawned import SpawnedDDP

matplotlib.use("Agg")
StrategyRegistry.register("ddp_spawn", SpawnedDDP, override=True, start_method="spawn")

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


@pytest.fixture
def image_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with MNIST and CIFAR-10 of 200 training and 60 test images, in torchvision's own formats.

    The colour of an image tells its class, so that a network learns them in a few steps.
    """
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()

    def write(name: str, content: dict[str, object]) -> str:
        data = pickle.dumps(content)
        (batches / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    lists = {}
    for mnist, cifar, count in (("train", "data_batch_1", 200), ("t10k", "test_batch", 60)):
        labels = np.arange(count, dtype=np.uint8) % 10
        noise = rng.integers(0, 40, (count, 3, 32, 32), dtype=np.uint8)
        colours = np.stack([labels * 20, 180 - labels * 20, labels % 3 * 70], axis=1).astype(np.uint8)
        pixels = noise + colours[:, :, None, None]
        grey = np.ascontiguousarray(pixels[:, 0, :28, :28])
        sizes = [np.array(size, ">i4").tobytes() for size in ([2051, count, 28, 28], [2049, count])]
        (raw / f"{mnist}-images-idx3-ubyte").write_bytes(sizes[0] + grey.tobytes())
        (raw / f"{mnist}-labels-idx1-ubyte").write_bytes(sizes[1] + labels.tobytes())
        lists[cifar] = [[cifar, write(cifar, {"data": pixels.reshape(count, -1), "labels": labels.tolist()})]]
    monkeypatch.setattr(CIFAR10, "train_list", lists["data_batch_1"])
    monkeypatch.setattr(CIFAR10, "test_list", lists["test_batch"])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    meta = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return folder


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
