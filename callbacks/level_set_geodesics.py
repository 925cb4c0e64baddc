"""Train many pairs of a network to each of several levels, and connect them: length and beads against level."""

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from .comparison import mean_and_standard_error
from .geodesic_path import Metric, settings_of
from .geodesics.descent import snapshots
from .geodesics.kept import once
from .geodesics.landscape import LARGE, Landscape, ModelLandscape, as_measured, flat, loss_of, own_error, unflat
from .geodesics.memory import Remembered
from .geodesics.ranks import rank_and_size
from .geodesics.search import find_paths
from .geodesics.settings import Settings
from .geodesics.status import status_line
from .level_set_report import COLUMNS, agreements, show_levels
from .media import shows_progress
from .training_batches import EvaluatedBatches, away_from_inference, training_batches, training_loader

__all__ = ["LevelSetGeodesics"]

Convention = Literal["authors", "certified", "both"]


class LevelSetGeodesics(Callback):
    r"""Measure how long and crooked the paths between trained networks are, level by level.

    The experiment of `"Topology and Geometry of Half-Rectified Network Optimization"
    <https://arxiv.org/abs/1611.01540>`_, figure 1. In ``test``, copies of the module with fresh initial weights are
    trained on the training batches; each is kept when it is first seen below a level, so that one training serves all
    levels. At each level, pairs of networks are connected by dynamic string sampling, all pairs at once. The module
    itself is left as it was. Large networks are trained one after another, in the Trainer's precision and with dropout
    where they have it; what a level bounds is always measured in full precision, without dropout.

    With ``metric="loss"`` the level bounds the training loss. Otherwise it bounds a held-out quantity on all samples
    that the test loop evaluates, which train nothing: the ``error`` of the module (``error(batch)``, for a classifier
    the share of wrong labels), or the ``perplexity``, the exponential of its loss. A network is looked at every
    ``network_block`` steps; after every step where the step's loss is the quantity itself: all data are one batch.

    Logs, for each level L, over the pairs that were connected: ``test/geodesic/length/level_L`` (normalised length) and
    ``test/geodesic/beads/level_L`` (ends included), each with ``_stderr``; ``test/geodesic/connected/level_L`` (their
    share of the pairs) and ``test/geodesic/maximum/level_L`` (highest value on any of the paths on a refined grid, in
    units of the level). With the convention ``both`` these are the authors', and those of certified paths are under
    ``test/geodesic/certified/``. With published values also ``test/geodesic/length_agreement`` and
    ``.../beads_agreement``: the share of published levels at which the length is within two published error bars, and
    the beads within 20 %. Writes a table and a figure. On several ranks the networks, the beads and the
    points that are tested are shared out; a rank that has none left waits for the others, so give the strategy a
    ``timeout`` longer than the longest training of a bead.

    Args:
        levels: Levels, in units of the metric: an error is a share in [0, 1].
        pairs: Pairs of networks at each level, >= 1.
        networks: Networks trained, >= 2; 0 for two a pair. With fewer they are paired in a ring, 0-1, 1-2, ..., and
            pairs that share an end are not independent: their standard error is too small.
        convention: ``authors``: that of their code, which accepts 1.1 times the level; ``certified``; or ``both``,
            between the same networks.
        metric: What the level bounds.
        count: Parameters that lengths count.
        optimizer: Of networks and beads: ``adam``, or ``sgd`` without momentum.
        lr: Its rate.
        bead_lr: Its rate for beads; by default the same. The lower, the less a bead strays from the straight line.
        drop_steps: Steps of a network, or of a bead, after which its rate falls to a tenth; ``None`` for never.
        clip: Gradients are scaled to at most this norm; ``None`` for as they are.
        max_steps: Most steps of a network.
        network_block: Steps between two looks at a network.
        bead_steps: Most steps of a bead.
        block: Steps between two looks at a bead.
        bead: Beads are trained below this share of the level.
        accept: The authors' convention accepts this multiple of the level; infinite to test no segment.
        grid: Points tested first on a segment, both ends included.
        split: Where a segment that fails gets its bead: in the middle, or where it is highest.
        tolerance: Of certified maxima, as share of the level.
        max_passes: Most times that all open segments are split.
        published: Published points, each ``[level, length, error of the length, beads]``.
        mark: A level to be marked in the figure, e.g. that below which no constant function lies.
        resume: Folder, which all ranks see, in which networks, beads and levels that are done are kept until the end:
            a measurement that was killed and is started again goes on there. They lie in a folder named by a digest of
            the settings, the initial networks, what loss and quantity are there, and the data, so that they do not
            serve another measurement. ``None`` keeps nothing.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        levels: Sequence[float],
        pairs: int = 20,
        networks: int = 0,
        convention: Convention = "authors",
        metric: Metric = "loss",
        count: Literal["all", "weights"] = "weights",
        optimizer: Literal["adam", "sgd"] = "adam",
        lr: float = 1e-3,
        bead_lr: float | None = None,
        drop_steps: int | None = None,
        clip: float | None = None,
        max_steps: int = 60000,
        network_block: int = 100,
        bead_steps: int = 20000,
        block: int = 15,
        bead: float = 0.95,
        accept: float = 1.1,
        grid: int = 101,
        split: Literal["middle", "highest"] = "middle",
        tolerance: float = 1e-3,
        max_passes: int = 10,
        published: Sequence[Sequence[float]] = (),
        mark: float | None = None,
        resume: str | None = None,
    ) -> None:
        if not levels or min(levels) <= 0:
            msg = f"LevelSetGeodesics(levels={list(levels)}): give levels above 0, e.g. [0.1, 0.05]."
            raise ValueError(msg)
        if min(pairs, max_steps, network_block) < 1:
            msg = (
                f"LevelSetGeodesics(pairs={pairs}, max_steps={max_steps}, network_block={network_block}): each must be "
                "at least 1."
            )
            raise ValueError(msg)
        bead_lr = lr if bead_lr is None else bead_lr
        if not (lr > 0 and bead_lr > 0):
            msg = f"LevelSetGeodesics(lr={lr}, bead_lr={bead_lr}): rates must be positive, e.g. 0.001."
            raise ValueError(msg)
        if networks and not 2 <= networks <= 2 * pairs <= networks * (networks - 1):
            msg = (
                f"LevelSetGeodesics(networks={networks}): {pairs} different pairs take 2 to {2 * pairs} networks, "
                "and enough of them; 0 for two a pair."
            )
            raise ValueError(msg)
        for name, value, allowed in (
            ("convention", convention, get_args(Convention)),
            ("metric", metric, get_args(Metric)),
            ("count", count, ("all", "weights")),
        ):
            if value not in allowed:
                msg = f"LevelSetGeodesics({name}={value!r}): choose from {', '.join(allowed)}."
                raise ValueError(msg)
        if any(len(point) != 4 for point in published):
            msg = "LevelSetGeodesics(published=...): each point is [level, length, error of the length, beads]."
            raise ValueError(msg)
        self.levels = sorted((float(level) for level in levels), reverse=True)
        self.pairs = pairs
        self.networks = networks or 2 * pairs
        self.metric: Metric = metric
        clip = float("inf") if clip is None else clip
        drop = float("inf") if drop_steps is None else drop_steps
        shared = {"optimizer": optimizer, "lr": bead_lr, "drop_steps": drop, "clip": clip, "max_steps": bead_steps,
                  "block": block, "bead": bead, "split": split, "grid": grid, "tolerance": tolerance,
                  "max_passes": max_passes}  # fmt: skip
        theirs, ours = settings_of("authors", **shared, accept=accept), settings_of("certified", **shared)
        chosen = {"authors": theirs, "certified": ours}
        #: Settings of each search between the same networks.
        self.searches: dict[str, Settings] = chosen if convention == "both" else {convention: chosen[convention]}
        self.training = {"optimizer": optimizer, "lr": lr, "drop_steps": drop, "clip": clip, "max_steps": max_steps,
                         "block": network_block}  # fmt: skip
        self.count: Literal["all", "weights"] = count
        self.published = [list(map(float, point)) for point in published]
        self.mark = mark
        self.resume = FilePath(resume).expanduser() if resume is not None else None
        self._held_out = EvaluatedBatches()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module that has not what is measured, and a trainer without training batches."""
        if self.metric == "error" and not callable(getattr(pl_module, "error", None)):
            msg = f"{type(pl_module).__name__} has no error(batch), which LevelSetGeodesics(metric='error') measures."
            raise ValueError(msg)
        loss_of(pl_module, None)
        training_loader(trainer)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to keep what is evaluated."""
        del trainer, pl_module
        self._held_out = EvaluatedBatches()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep a batch that the level is measured on."""
        del pl_module, outputs, batch_idx
        if self.metric != "loss":
            self._held_out.add(trainer, batch, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train the networks, connect them, and report."""
        with away_from_inference(), as_measured(pl_module), status_line(show=shows_progress(trainer)):
            seed = trainer.strategy.broadcast(torch.initial_seed())
            starts = fresh_points(pl_module, self.networks, seed)
            landscape = self._landscape(trainer, pl_module, seed)
            kept = self._kept(trainer, landscape, starts)
            networks, reached = snapshots(landscape, starts, self.levels, **self.training, kept=kept)
            if starts.shape[1] >= LARGE:  # a value costs far more than recognising the point
                landscape = Remembered(landscape)
            rows = {
                name: [
                    self._connect(landscape, points[low], level, name, kept)
                    for level, points, low in zip(self.levels, networks, reached, strict=True)
                ]
                for name in self.searches
            }
        for name, part in rows.items():
            for row in part:
                self._log(pl_module, row, "certified/" if name == "certified" and len(rows) > 1 else "")
        for name, value in agreements(next(iter(rows.values())), self.published).items():
            pl_module.log(f"test/geodesic/{name}_agreement", value, sync_dist=True, batch_size=1)
        show_levels(trainer, rows, self.published, self.mark)
        self._held_out = EvaluatedBatches()
        trainer.strategy.barrier("LevelSetGeodesics")
        if kept is not None and trainer.is_global_zero:
            shutil.rmtree(kept, ignore_errors=True)

    def _landscape(self, trainer: Trainer, pl_module: LightningModule, seed: int) -> ModelLandscape:
        return ModelLandscape(
            pl_module,
            training_batches(trainer, pl_module, 0),
            level_fn=own_error if self.metric == "error" else None,
            level_batches=self._held_out.gather(pl_module) or None,
            level_scale=torch.exp if self.metric == "perplexity" else None,
            count=self.count,
            training=as_trained(trainer, pl_module, seed) if differs_in_training(trainer, pl_module) else None,
        )

    def _kept(self, trainer: Trainer, landscape: ModelLandscape, starts: Tensor) -> FilePath | None:
        """Give the folder of what this measurement has so far."""
        if self.resume is None:
            return None
        settings = (self.levels, self.pairs, self.metric, self.count, self.searches, self.training)
        digest = hashlib.blake2b(repr((settings, trainer.precision)).encode(), digest_size=8)
        digest.update(starts.cpu().numpy().tobytes())
        # what neither settings nor weights show: activations, the form of the loss; to digits that all machines give
        for shown in (landscape, ModelLandscape(landscape.module, landscape.batches[:1])):
            digest.update(f"{float(shown.values(starts[:1])):.2g} ".encode())
        for batches in (landscape.batches, landscape.level_batches):
            apply_to_collection(batches, Tensor, lambda part: digest.update(part.cpu().numpy().tobytes()))
        return self.resume / trainer.strategy.broadcast(digest.hexdigest())

    def _connect(
        self, landscape: Landscape, points: Tensor, level: float, name: str, kept: FilePath | None
    ) -> list[float]:
        """Connect networks two by two, or take the row of the level that was kept."""
        file = kept / f"{name}-{level:g}.pt" if kept else None
        state = file.with_suffix(".beads") if file else None
        search = partial(self._search, landscape, points, level, self.searches[name], state)
        return once(file, search, writes=rank_and_size()[0] == 0)

    def _search(
        self, landscape: Landscape, points: Tensor, level: float, settings: Settings, state: FilePath | None
    ) -> list[float]:
        """Connect networks two by two; gives the row of the level, NaN where no pair was connected."""
        first, second = pair_up(len(points), self.networks, self.pairs)
        pairs = len(first)
        if pairs < self.pairs:
            rank_zero_warn(
                f"level {level:g}: {pairs} of {self.pairs} pairs got there in {self.training['max_steps']} steps."
            )
        ends = points[first], points[second]
        paths = find_paths(landscape, *ends, level, "dss", settings, state=state) if pairs else []
        found = [path for path in paths if path.connected]
        if not found:
            return [level, pairs, 0.0, *[float("nan")] * 5]
        values = torch.tensor([[path.length, path.num_beads] for path in found], dtype=torch.float64)
        means, errors = mean_and_standard_error(values)
        highest = max(path.maximum for path in found) / level
        length, beads = zip(means.tolist(), errors.tolist(), strict=True)
        return [level, pairs, len(found) / pairs, *length, *beads, highest]

    def _log(self, pl_module: LightningModule, row: list[float], prefix: str) -> None:
        values = dict(zip(COLUMNS, row, strict=True))
        level = f"level_{values.pop('level'):g}"
        del values["pairs"]
        for name, value in values.items():
            quantity, stderr, _ = name.partition("_stderr")
            key = f"test/geodesic/{prefix}{quantity}/{level}{stderr}"
            pl_module.log(key, value, sync_dist=True, batch_size=1)


def as_trained(trainer: Trainer, module: LightningModule, seed: int) -> Callable[[int], AbstractContextManager[None]]:
    """Give what a step's gradients are taken in: training mode, the Trainer's precision, the step's random numbers.

    The masks of dropout are those of (seed, step), the same for all points: whichever rank trains a point, and with
    which others, its steps are the same.
    """

    @contextmanager
    def context(step: int) -> Iterator[None]:
        torch.manual_seed(seed + step)
        module.train()
        try:
            with trainer.precision_plugin.forward_context():
                yield
        finally:
            module.eval()

    return context


def differs_in_training(trainer: Trainer, module: LightningModule) -> bool:
    """Tell whether gradients may differ from those of evaluation; of small networks only by precision and dropout."""
    if trainer.precision not in {"32-true", "64-true"} or sum(p.numel() for p in module.parameters()) >= LARGE:
        return True
    return any(isinstance(part, _DropoutNd | nn.RNNBase) for part in module.modules())


def pair_up(reached: int, networks: int, pairs: int) -> tuple[list[int], list[int]]:
    """Pair the networks that reached a level: two by two where there are enough, else in a ring.

    Args:
        reached: How many reached it.
        networks: How many were trained.
        pairs: Pairs wanted.

    Returns:
        The numbers of the first and of the second network of each pair.
    """
    if networks == 2 * pairs:
        count = reached // 2
        return list(range(0, 2 * count, 2)), list(range(1, 2 * count, 2))
    ring = [(i, (i + step) % reached) for step in range(1, reached // 2 + 1) for i in range(reached)]
    different = list(dict.fromkeys(tuple(sorted(pair)) for pair in ring))[:pairs]
    return [pair[0] for pair in different], [pair[1] for pair in different]


def fresh_points(module: LightningModule, number: int, seed: int) -> Tensor:
    """Draw initial parameters ``number`` >= 2 times, (number, P), by the ``reset_parameters`` of the module's parts.

    Raises:
        ValueError: If that changes nothing.
    """
    own, buffers = flat(module), [(buffer, buffer.clone()) for buffer in module.buffers()]
    parts = [part for part in module.modules() if callable(getattr(part, "reset_parameters", None))]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        points = []
        for _ in range(number):
            for part in reversed(parts):  # what holds others decides last
                part.reset_parameters()  # pyright: ignore[reportCallIssue]
            points.append(flat(module))
        for name, value in unflat(own, module).items():
            module.get_parameter(name).copy_(value)
        for buffer, before in buffers:  # batch normalisation forgets its statistics too
            buffer.copy_(before)
    if torch.equal(points[0], points[1]):
        msg = f"{type(module).__name__}: none of its parts has a reset_parameters that draws initial weights anew."
        raise ValueError(msg)
    return torch.stack(points)
