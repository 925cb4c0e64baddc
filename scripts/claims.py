"""Published claims: read and check their YAML files, and judge measured values against their targets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .chains import in_order, needs
from .fields import fields_of, flag_of, list_of, number_of, optional_number, text_of

__all__ = [
    "CLAIMS",
    "CONFIGS",
    "Claim",
    "Row",
    "Run",
    "Target",
    "judge",
    "load_claim",
    "load_claims",
    "split_reference",
]

#: Folder of the claims that are shipped.
CLAIMS = Path(__file__).parent / "claims"
#: Folder of the experiments that claims run.
CONFIGS = Path(__file__).parent / "configs"

_COMMANDS = ("fit", "validate", "test")
_CRITERIA = ("at_least", "above", "at_most", "at_least_best_of", "above_all", "below_all")


@dataclass(frozen=True)
class Run:
    """One experiment of a claim: a config run by ``theodolite fit`` (which tests at the end), ``validate`` or ``test``.

    In the overrides ``{name}`` stands for the best checkpoint of another run of the claim, of the same seed,
    ``{name:last}`` for its last one, and ``{seed}`` for the seed.
    """

    name: str
    config: Path
    command: str = "fit"
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What a measured value must reach; every criterion that is given must hold.

    Args:
        at_least: The value must be >= this number.
        above: The value must be > this number.
        at_most: The value must be <= this number.
        at_least_best_of: The value must be >= the largest of these metrics, times ``times``, less ``minus``. A metric
            of another run of the claim is written ``run:metric``.
        times: Factor on the best of ``at_least_best_of``, > 0.
        minus: Slack under the best of ``at_least_best_of``, in the metric's unit; negative for a lead over it.
        above_all: The value must be > each of these metrics.
        below_all: The value must be < each of these metrics.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    at_least_best_of: tuple[str, ...] = ()
    times: float = 1.0
    minus: float = 0.0
    above_all: tuple[str, ...] = ()
    below_all: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """All metrics that the value is compared with."""
        return self.at_least_best_of + self.above_all + self.below_all


@dataclass(frozen=True)
class Row:
    """One line of a claim's table: a metric of a run beside the published value; without a target it is only shown."""

    run: str
    metric: str
    setting: str
    published: str | float | None = None
    published_error: float | None = None
    target: Target | None = None


@dataclass(frozen=True)
class Curves:
    """What a claim's page of figures shows of each run: the first of the metrics ``y`` that it logs, against ``x``."""

    x: str
    y: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """A published result: its source, the runs that measure it, and the rows that compare.

    ``seeds`` are those of the default run (each draws fresh training and test data); ``budget_minutes`` is the time all
    runs and seeds take together on 2 CPU cores, or on a GPU where the claim needs one (``gpu``).
    """

    id: str
    title: str
    source: str
    seeds: tuple[int, ...]
    budget_minutes: float
    runs: Mapping[str, Run]
    rows: tuple[Row, ...]
    figure: Curves | None = None
    gpu: bool = False


def load_claims(folder: Path = CLAIMS) -> dict[str, Claim]:
    """Load every claim of a folder, by id, in alphabetical order.

    Raises:
        ValueError: A claim is malformed.
    """
    claims = [load_claim(path) for path in sorted(folder.glob("*.yaml"))]
    return {claim.id: claim for claim in claims}


def load_claim(path: Path) -> Claim:
    """Load and check one claim.

    The file holds ``id`` (the file's name), ``title``, ``source`` (``paper`` and ``table``), ``seeds``,
    ``budget_minutes``, ``rows`` (the fields of :class:`Row`) and either one ``config`` (with ``command`` and
    ``overrides``) or ``runs``, a mapping from a name to these three; and perhaps ``figure``, the fields of
    :class:`Curves`, and ``gpu: true`` if it needs one. Configs are looked for beside the claim,
    then among the shipped ones.

    Args:
        path: The YAML file.

    Raises:
        FileNotFoundError: The file, or a config it names, is absent.
        ValueError: The file is no YAML mapping; a field is missing, unknown or of the wrong kind; a row or a target
            names a run that the claim does not have.
    """
    if not path.is_file():
        msg = f"no claim at {path}; `theodolite reproduce --list` shows those there are"
        raise FileNotFoundError(msg)
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        msg = f"{path.name} is no valid YAML: {' '.join(str(error).split())}"
        raise ValueError(msg) from None
    where = path.name
    required = ("id", "title", "source", "budget_minutes", "rows")
    fields = fields_of(content, where, required, ("seeds", "config", "command", "overrides", "runs", "figure", "gpu"))
    if fields["id"] != path.stem:
        msg = f"{where}: id is {fields['id']!r} but must be the file's name, {path.stem!r}"
        raise ValueError(msg)
    source = fields_of(fields["source"], f"{where}, source", ("paper",), ("table",))
    runs = _runs(fields, where, path.parent)
    seeds = list_of(fields.get("seeds", [0, 1, 2]), f"{where}, seeds")
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        msg = f"{where}: seeds is {seeds} but must list distinct integers >= 0, e.g. [0, 1, 2]"
        raise ValueError(msg)
    rows = tuple(
        _row(row, f"{where}, row {number}", runs)
        for number, row in enumerate(list_of(fields["rows"], f"{where}, rows"), start=1)
    )
    if not rows:
        msg = f"{where}: rows is empty but must list at least one metric to measure"
        raise ValueError(msg)
    return Claim(
        id=path.stem,
        title=text_of(fields["title"], f"{where}, title"),
        source=", ".join(str(part) for part in source.values()),
        seeds=tuple(seeds),
        budget_minutes=number_of(fields["budget_minutes"], f"{where}, budget_minutes"),
        runs=runs,
        rows=rows,
        figure=_curves(fields["figure"], f"{where}, figure") if "figure" in fields else None,
        gpu=flag_of(fields.get("gpu", False), f"{where}, gpu"),
    )


def judge(row: Row, measured: Mapping[tuple[str, str], float]) -> tuple[str, str]:
    """Compare a row's measured value with its target, unrounded.

    Args:
        row: The row to judge.
        measured: Mean over seeds by (run, metric), of this row and of those its target refers to.

    Returns:
        The verdict: ``met``, ``missed``, ``shown`` (no target) or ``failed`` (a value that is needed was not measured);
        and the target in words, with its numbers.
    """
    value = measured.get((row.run, row.metric))
    target = row.target
    if target is None:
        return ("failed" if value is None else "shown"), ""
    met, words, complete = [], [], value is not None
    value = math.nan if value is None else value
    if target.at_least is not None:
        met.append(value >= target.at_least)
        words.append(f">= {target.at_least:g}")
    if target.above is not None:
        met.append(value > target.above)
        words.append(f"> {target.above:g}")
    if target.at_most is not None:
        met.append(value <= target.at_most)
        words.append(f"<= {target.at_most:g}")
    if target.at_least_best_of:
        best = _best(row.run, target.at_least_best_of, measured)
        complete = complete and best is not None
        best = math.nan if best is None else best
        met.append(value >= target.times * best - target.minus)
        slack = f" {'-' if target.minus > 0 else '+'} {abs(target.minus):g}" if target.minus else ""
        factor = f"{target.times:g} x " if target.times != 1 else ""
        words.append(f">= {factor}best baseline {best:.3f}{slack}")
    if target.above_all:
        best = _best(row.run, target.above_all, measured)
        complete = complete and best is not None
        best = math.nan if best is None else best
        met.append(value > best)
        words.append(f"> every baseline, best {best:.3f}")
    if target.below_all:
        negated = {key: -number for key, number in measured.items()}
        least = _best(row.run, target.below_all, negated)
        complete = complete and least is not None
        least = math.nan if least is None else -least
        met.append(value < least)
        words.append(f"< every baseline, best {least:.3f}")
    verdict = ("met" if all(met) else "missed") if complete else "failed"
    return verdict, " and ".join(words)


def split_reference(reference: str, run: str) -> tuple[str, str]:
    """Split ``run:metric`` into its two parts; a metric alone belongs to ``run``."""
    other, colon, metric = reference.partition(":")
    return (other, metric) if colon else (run, reference)


def _best(run: str, references: Sequence[str], measured: Mapping[tuple[str, str], float]) -> float | None:
    """Give the largest of the referenced values (NaN if one is), or ``None`` if one was not measured."""
    values = [measured.get(split_reference(reference, run)) for reference in references]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return math.nan if any(math.isnan(value) for value in known) else max(known)


def _runs(fields: Mapping[str, Any], where: str, folder: Path) -> dict[str, Run]:
    """Read ``runs``, or the single run given by ``config``, ``command`` and ``overrides``."""
    if ("config" in fields) == ("runs" in fields):
        msg = f"{where}: give either config (one run) or runs (a mapping of several)"
        raise ValueError(msg)
    if "runs" in fields:
        extra = sorted({"command", "overrides"} & set(fields))
        if extra:
            msg = f"{where}: {', '.join(extra)} must stand inside each of runs"
            raise ValueError(msg)
        entries = fields["runs"]
        if not isinstance(entries, Mapping) or not entries:
            msg = f"{where}: runs is {entries!r} but must map names to config, command, overrides"
            raise ValueError(msg)
    else:
        entries = {"main": {key: fields[key] for key in ("config", "command", "overrides") if key in fields}}
    runs = {str(name): _run(str(name), entry, f"{where}, run {name}", folder) for name, entry in entries.items()}
    in_order({name: needs(run.overrides) for name, run in runs.items()}, list(runs), where)
    return runs


def _run(name: str, entry: Any, where: str, folder: Path) -> Run:
    """Read one run and find its config."""
    fields = fields_of(entry, where, ("config",), ("command", "overrides"))
    if not name.replace("_", "").replace("-", "").isalnum() or name == "seed":
        msg = f"{where}: a run's name is part of a folder's: letters, digits, - and _ only; {{seed}} is the seed"
        raise ValueError(msg)
    command = fields.get("command", "fit")
    if command not in _COMMANDS:
        msg = f"{where}: command is {command!r} but must be one of {', '.join(_COMMANDS)}"
        raise ValueError(msg)
    config = text_of(fields["config"], f"{where}, config")
    candidates = [folder / config, CONFIGS / config]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        msg = f"{where}: no config at {' or '.join(str(path) for path in candidates)}"
        raise FileNotFoundError(msg)
    overrides = tuple(str(word) for word in list_of(fields.get("overrides", []), f"{where}, overrides"))
    return Run(name=name, config=found, command=command, overrides=overrides)


def _row(entry: Any, where: str, runs: Mapping[str, Run]) -> Row:
    """Read one row and check the runs it names."""
    fields = fields_of(entry, where, ("metric", "setting"), ("run", "published", "published_error", "target"))
    if "run" not in fields and len(runs) > 1:
        msg = f"{where}: run is missing but must be one of {', '.join(runs)}"
        raise ValueError(msg)
    published = fields.get("published")
    if isinstance(published, bool) or not isinstance(published, str | int | float | None):
        msg = f"{where}, published is {published!r} but must be a number or text"
        raise ValueError(msg)
    row = Row(
        run=str(fields.get("run", next(iter(runs)))),
        metric=text_of(fields["metric"], f"{where}, metric"),
        setting=text_of(fields["setting"], f"{where}, setting"),
        published=published,
        published_error=optional_number(fields, "published_error", where),
        target=_target(fields["target"], f"{where}, target") if fields.get("target") is not None else None,
    )
    named = {row.run}
    if row.target is not None:
        named |= {split_reference(name, row.run)[0] for name in row.target.references}
    unknown = sorted(named - set(runs))
    if unknown:
        msg = f"{where}: run {unknown[0]!r} does not exist; the runs are {', '.join(runs)}"
        raise ValueError(msg)
    return row


def _curves(entry: Any, where: str) -> Curves:
    """Read what the page of figures shows."""
    fields = fields_of(entry, where, ("x", "y"), ())
    y = tuple(text_of(name, f"{where}, y") for name in list_of(fields["y"], f"{where}, y"))
    return Curves(text_of(fields["x"], f"{where}, x"), y)


def _target(entry: Any, where: str) -> Target:
    """Read a target; at least one criterion must be given."""
    fields = fields_of(entry, where, (), (*_CRITERIA, "times", "minus"))
    empty = not any(fields.get(name) not in (None, []) for name in _CRITERIA)
    if empty or ({"times", "minus"} & set(fields) and not fields.get("at_least_best_of")):
        msg = (
            f"{where}: give at_least, above, at_most, at_least_best_of (with times, minus), above_all or below_all; "
            "leave target out to show only"
        )
        raise ValueError(msg)
    return Target(
        at_least=optional_number(fields, "at_least", where),
        above=optional_number(fields, "above", where),
        at_most=optional_number(fields, "at_most", where),
        at_least_best_of=tuple(map(str, list_of(fields.get("at_least_best_of", []), f"{where}, at_least_best_of"))),
        times=1.0 if fields.get("times") is None else number_of(fields["times"], f"{where}, times"),
        minus=optional_number(fields, "minus", where) or 0.0,
        above_all=tuple(map(str, list_of(fields.get("above_all", []), f"{where}, above_all"))),
        below_all=tuple(map(str, list_of(fields.get("below_all", []), f"{where}, below_all"))),
    )
