"""How well examples made against one model fool another."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..modules.attacks import Attack, MaskedGradientsWarning
from ..modules.attacks.norms import steepest_direction
from ..modules.noise import sample_generators, sample_normal
from .classification import ClassifierMeasurement, Samples
from .media import log_figure, log_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The module that the Trainer tests.
_TESTED = "tested"
_RESERVED = (_TESTED, "noise", "clean")


class Transferability(ClassifierMeasurement):
    """Measure the accuracy of every model on the examples made against every other: a matrix over checkpoints.

    The entry of row A and column B is B's accuracy on examples made against A, over the samples that A and B both get
    right without an attack; on the diagonal each model is attacked itself. The last row is a control: random noise of
    the attack's norm (l2: a random direction; linf: random signs), over the samples that B gets right. An entry below
    the diagonal's of its column means that B's own gradients mislead the attack; a warning says so.

    Which modules, batches and ranks: see :class:`ClassifierMeasurement`.

    Logs ``<stage>/transfer_accuracy/<A>_to_<B>``, ``.../noise_to_<B>`` and ``.../clean_to_<B>``, where the module that
    the Trainer tests is called ``tested``. Writes the matrix as table and figure ``<stage>/transfer_accuracy``.

    Cost: for M models, M attacks and about M^2 forward passes.

    Args:
        attack: Untargeted, of finite radius.
        checkpoints: Further models: name and file of each, of the tested module's class.
        seed: Of the noise, >= 0.
        every_n_epochs: Measure also in the validation within ``fit``, every so many epochs; 0 for never.
        max_samples: Measure so many samples at most, evenly spread over the set; ``None`` for all.

    Raises:
        ValueError: If an argument is out of range, or a name is taken or has a slash.
        FileNotFoundError: If a checkpoint does not exist.

    Example::

        measure = Transferability(PGD(norm="l2", eps=0.5), {"seed_1": "a.ckpt", "seed_2": "b.ckpt"})
        Trainer(callbacks=[measure]).test(module, loader)
    """

    def __init__(
        self,
        attack: Attack,
        checkpoints: dict[str, str],
        seed: int = 0,
        every_n_epochs: int = 0,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(every_n_epochs, max_samples)
        if getattr(attack, "targeted", False) or not attack.eps < float("inf"):
            msg = f"Transferability: the attack {attack.name} must be untargeted and of finite radius."
            raise ValueError(msg)
        if seed < 0:
            msg = f"Transferability(seed={seed}): must be >= 0."
            raise ValueError(msg)
        for name, path in checkpoints.items():
            if name in _RESERVED or not name or "/" in name:
                msg = f"Transferability: {name!r} cannot be a name; avoid {', '.join(_RESERVED)}, and slashes."
                raise ValueError(msg)
            if not Path(path).is_file():
                msg = f"Transferability(checkpoints): {name} is said to be in {path}, but there is no such file."
                raise FileNotFoundError(msg)
        self.attack = attack
        self.checkpoints = dict(checkpoints)
        self.seed = seed
        self._models: dict[str, LightningModule] = {}

    @property
    def names(self) -> list[str]:
        """Names of all models, the tested one first."""
        return [_TESTED, *self.checkpoints]

    def _require(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._loaded(pl_module)
        if trainer.state.fn == "fit" and not self.every_n_epochs:  # only checked: they are not needed for long
            self._models = {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the models of the checkpoints go."""
        del trainer, pl_module, stage
        self._models = {}

    def check_samples(self, pl_module: LightningModule, x: Tensor, y: Tensor) -> None:
        """Refuse what cannot be attacked."""
        self.check_attackable(pl_module, x, y, [self.attack])

    def measure(self, pl_module: LightningModule, samples: Samples) -> Tensor:
        """Say which models are right on the samples, on the examples of each model, and on noise.

        Returns:
            float (N, models x (models + 2)): models right on the clean samples, on the examples of the first model,
            of the second, ..., on noise.
        """
        models = [pl_module, *self._loaded(pl_module).values()]
        x, y = samples.x, samples.y

        def right(images: Tensor) -> Tensor:
            return torch.stack([self.predict(model, images, y) == y for model in models], dim=1)

        blocks = [right(x)]
        blocks += [right(self.attack(model, x, y, samples.sample_id)) for model in models]
        noise = sample_normal(sample_generators(self.seed, samples.sample_id.tolist()), x.shape[1:]).to(x)
        low, high = getattr(self.attack, "bounds", (0.0, 1.0))
        moved = (x + self.attack.eps * steepest_direction(noise, self.attack.norm)).clamp(low, high)
        return torch.cat([*blocks, right(moved)], dim=1).float()

    def summarise(self, trainer: Trainer, pl_module: LightningModule, stage: str, detail: str, rows: Tensor) -> None:
        """Log, store and draw the matrix."""
        names, size = self.names, len(self.checkpoints) + 1
        right = rows[:, 2:].view(len(rows), size + 2, size).bool()
        clean, by_source, noise = right[:, 0], right[:, 1:-1], right[:, -1]
        matrix: list[list[float]] = []
        for a, source in enumerate(names):
            matrix.append([])
            for b, target in enumerate(names):
                both = clean[:, a] & clean[:, b]
                own, other = by_source[both, b, b].double().mean(), by_source[both, a, b].double().mean()
                matrix[a].append(float(other))
                if own - other > 0.02:
                    line = (
                        f"Examples made against {source} fool {target} more often than its own: its accuracy is "
                        f"{other:.3f} on the former, {own:.3f} on the latter ({self.attack.name}); its gradients may "
                        "be masked, or the attack too weak."
                    )
                    rank_zero_warn(line, category=MaskedGradientsWarning)
        controls = [float(noise[clean[:, b], b].double().mean()) for b in range(size)]
        table = {
            "clean": clean.double().mean(0).tolist(),
            **dict(zip(names, matrix, strict=True)),
            "noise": controls,
        }
        for source, row in table.items():
            for target, value in zip(names, row, strict=True):
                key = f"{stage}/transfer_accuracy/{source}_to_{target}{detail}"
                pl_module.log(key, value, sync_dist=True, batch_size=1)
        self._show(trainer, f"{stage}{detail}/transfer_accuracy", table, len(rows))

    def _loaded(self, pl_module: LightningModule) -> Mapping[str, LightningModule]:
        """Load the models of the checkpoints, once, to where the tested module is."""
        if not self._models and self.checkpoints:
            with torch.inference_mode(False), isolate_rng():  # initial weights are drawn before they are replaced
                for name, path in self.checkpoints.items():
                    self._models[name] = _load(type(pl_module), path).to(pl_module.device).eval()
        return self._models

    @rank_zero_only
    def _show(self, trainer: Trainer, key: str, table: Mapping[str, list[float]], number: int) -> None:
        columns = ["made against", *self.names]
        log_table(trainer, key, columns, [[source, *row] for source, row in table.items()])
        path = log_figure(trainer, key, _draw(table, self.names, self.attack.name))
        if trainer.state.fn != "fit":
            shown = Table(*columns, title=f"accuracy on transferred {self.attack.name}, {number} samples")
            for source, row in table.items():
                shown.add_row(source, *(f"{value:.3f}" for value in row))
            Console(width=max(Console().width, 100)).print(shown)
            print(f"Figure: {path}")


def _load(kind: type[LightningModule], path: str) -> LightningModule:
    """Load a module from a checkpoint."""
    try:
        if not zipfile.is_zipfile(path):
            msg = "the file is damaged, or no checkpoint"
            raise ValueError(msg)
        return kind.load_from_checkpoint(path, map_location="cpu")
    except (TypeError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = f"Transferability: {path} does not give a {kind.__name__}: {reason}"
        raise ValueError(msg) from error


def _draw(table: Mapping[str, list[float]], names: list[str], attack: str) -> "Figure":
    """Draw the matrix, with its numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 * len(names) + 2, 0.8 * len(table) + 1.5))
    axes: Any = figure.subplots()
    axes.imshow(list(table.values()), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for i, row in enumerate(table.values()):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
    axes.set_yticks(range(len(table)), list(table))
    axes.set_xlabel("accuracy of")
    axes.set_ylabel(f"on {attack} made against")
    return figure
