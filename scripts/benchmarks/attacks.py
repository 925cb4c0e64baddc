"""PGD beside bare gradient passes, foolbox and torchattacks; RobustAccuracy on two processes beside one."""

import copy
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ...callbacks import RobustAccuracy
from ...modules.attacks import PGD, cross_entropy, pgd
from ...modules.classification import Adversarial, ImageClassifier
from ..main import keep_memory, leave_group
from .timing import isolated, median_times, row

__all__ = ["evaluate", "run"]

_BATCH, _STEPS, _EPS, _STEP = 128, 20, 0.5, 0.0625
_ROUNDS = 5
#: Samples whose images are compared, in double precision.
_FEW = 16


def run() -> list[dict[str, Any]]:
    """Attack untrained networks on 128 random images of 3 x 32 x 32 (l2, 20 steps, no random start), labels their own.

    The last iterates of all libraries are compared; against bare passes the default is timed, which keeps the best. The
    bound on two processes needs two free cores.
    """
    import torchvision

    torch.manual_seed(0)
    networks = {"small CNN": _small_cnn(), "ResNet-18 (torchvision)": torchvision.models.resnet18(num_classes=10)}
    rows = [_training_step(_small_cnn())]
    rows += [entry for name, network in networks.items() for entry in _compare(name, network.eval())]
    ratios = []
    for _ in range(_ROUNDS):
        one, two = (isolated(evaluate, devices) for devices in (1, 2))
        ratios.append(one / two)
    speed = statistics.median(ratios)
    return [*rows, row("RobustAccuracy on 1,024 images, throughput of 2 processes over 1", speed, "x", at_least=1.8)]


def _training_step(network: nn.Module) -> dict[str, Any]:
    """Time a step of adversarial training with seven steps of PGD beside the same, written out."""
    x, y = torch.rand(_BATCH, 3, 32, 32), torch.randint(10, (_BATCH,))
    task = ImageClassifier(copy.deepcopy(network), 10, objective=Adversarial(PGD(steps=7, step_size=0.1, keep="last")))
    ours, theirs = torch.optim.SGD(task.parameters(), lr=0.01), torch.optim.SGD(network.parameters(), lr=0.01)

    def shipped() -> None:
        ours.zero_grad()
        task.loss((x, y)).backward()
        ours.step()

    def bare() -> None:
        noise = torch.randn_like(x)
        changed = (x + _EPS * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
        for _ in range(7):
            leaf = changed.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), y).sum(), leaf)
            move = changed + 0.1 * gradient / (gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-10) - x
            length = move.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            changed = (x + move * (_EPS / length).clamp(max=1)).clamp(0, 1)
        theirs.zero_grad()
        cross_entropy(network(changed), y).mean().backward()
        theirs.step()

    seconds = median_times({"shipped": shipped, "bare": bare}, 2 * _ROUNDS)
    what = "adversarial training step (PGD-7), small CNN, batch 128, time over the bare loop"
    return row(what, seconds["shipped"] / seconds["bare"], "x", at_most=1.05)


def _compare(name: str, network: nn.Module) -> list[dict[str, Any]]:
    """Time 20 steps by every side in turn, and compare what they find."""
    x = torch.rand(_BATCH, 3, 32, 32)
    y = network(x).argmax(1)
    found: dict[str, Tensor] = {}

    def bare() -> None:
        for _ in range(_STEPS):
            leaf = x.detach().requires_grad_()
            torch.autograd.grad(cross_entropy(network(leaf), y).sum(), leaf)

    def keeping(side: str, attack: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: found.update({side: attack()})

    sides = {side: keeping(side, attack) for side, attack in _sides(network, x, y).items()}
    seconds = median_times({"bare": bare, **sides}, _ROUNDS)
    standing = {side: int((network(changed).argmax(1) == y).sum()) for side, changed in found.items()}
    # in double precision: in single, rounding grows along the path and every library goes its own way
    doubled = copy.deepcopy(network).double()
    images = {side: attack() for side, attack in _sides(doubled, x[:_FEW].double(), y[:_FEW]).items()}
    what = f"PGD-20, {name}, batch {_BATCH}"
    rows = [row(f"{what}, time over bare passes", seconds["best"] / seconds["bare"], "x", at_most=1.05)]
    for peer in [side for side in sides if side not in ("last", "best")]:
        apart = float((images["last"] - images[peer]).abs().max())
        rows += [
            row(f"{what}, time over {peer}'s", seconds["last"] / seconds[peer], "x", at_most=1),
            row(f"PGD-20, {name}, largest difference of a pixel from {peer}'s", apart, "", at_most=1e-3),
            row(f"{what}, standing samples beside {peer}'s", abs(standing["last"] - standing[peer]), "", at_most=0),
        ]
    return rows


def _sides(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Give PGD that keeps the last and the best iterate, and the former by the libraries that are installed."""
    settings: dict[str, Any] = {"eps": _EPS, "step_size": _STEP, "steps": _STEPS, "random_start": False}
    sides: dict[str, Callable[[], Tensor]] = {
        "last": lambda: pgd(network, x, y, keep="last", **settings),
        "best": lambda: pgd(network, x, y, keep="best", **settings),
    }
    if importlib.util.find_spec("foolbox"):
        import foolbox

        model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")  # pyright: ignore[reportPrivateImportUsage]
        theirs = foolbox.attacks.L2PGD(abs_stepsize=_STEP, steps=_STEPS, random_start=False)
        sides["foolbox"] = lambda: theirs(model, x, y, epsilons=_EPS)[1]
    if importlib.util.find_spec("torchattacks"):  # installed by `make bench`: it pins an old requests
        import torchattacks  # pyright: ignore[reportMissingImports]  # installed by `make bench` alone

        attack = torchattacks.PGDL2(network, eps=_EPS, alpha=_STEP, steps=_STEPS, random_start=False)
        sides["torchattacks"] = lambda: attack(x, y)
    return sides


def evaluate(devices: int) -> float:
    """Measure robust accuracy of 1,024 samples on so many processes of one thread each: seconds of the epoch."""
    with tempfile.TemporaryDirectory() as folder:
        clock = _Clock(str(Path(folder) / "seconds"))
        trainer = Trainer(
            accelerator="cpu",
            devices=devices,
            strategy="ddp_spawn" if devices > 1 else "auto",
            callbacks=[RobustAccuracy(PGD(steps=_STEPS), checks=0, num_images=0), clock],
            logger=False,
            default_root_dir=folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = _Classifier()
        x = torch.rand(8 * _BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            data = TensorDataset(x, module(x).argmax(1))
        trainer.test(module, DataLoader(data, 64), verbose=False)
        return float(Path(clock.path).read_text())


class _Classifier(LightningModule):
    """A small network that is tested and does nothing by itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = _small_cnn()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Leave the work to the callback."""


class _Clock(Callback):
    """Write the seconds of the test epoch, on one thread, to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del trainer, pl_module, stage
        keep_memory()  # as in every process of `theodolite test`
        torch.set_num_threads(1)
        # the process ends after this; `bench --json` wants no tables
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        trainer.strategy.barrier()
        self._start = time.perf_counter()

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        del pl_module
        if trainer.is_global_zero:
            Path(self.path).write_text(str(time.perf_counter() - self._start))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        del trainer, pl_module, stage
        leave_group()


def _small_cnn() -> nn.Sequential:
    """Two convolutions and a linear layer, 10 classes."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10),
    )  # fmt: skip
