"""``theodolite bench``: ratios that must hold on any machine, each measured in one run."""

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .results import BENCH, Entry, number, update
from .versions import commit, threads

__all__ = ["BENCHMARKS", "main"]

#: The benchmarks: modules of scripts/benchmarks/ with ``run() -> list[dict]``, rows of name, value, unit, bound, met.
BENCHMARKS = (
    "sampler",
    "line_graph",
    "shell",
    "scale",
    "ddp",
    "matching",
    "matching_networks",
    "images",
    "attacks",
    "margins",
    "bias",
    "geodesics",
)


def main(argv: Sequence[str]) -> int:
    """Run the subcommand.

    Args:
        argv: The words after ``theodolite bench``.

    Returns:
        The exit code: 0 if every bound is met, 1 if one is missed or a benchmark failed, 2 for wrong arguments.
    """
    arguments = _parser().parse_args(argv)
    progress = Console(stderr=True)
    entries: list[Entry] = []
    failed = False
    names = list(dict.fromkeys(arguments.names)) or list(BENCHMARKS)
    for step, name in enumerate(names, start=1):
        progress.print(f"[{step}/{len(names)}] {name} ...", markup=False, highlight=False)
        start = time.monotonic()
        try:
            with _without_developers_warnings():
                rows = import_module(f".benchmarks.{name}", __package__).run()
        except (RuntimeError, ImportError) as error:
            progress.print(f"benchmark {name} failed: {error}", markup=False, highlight=False, soft_wrap=True)
            failed = True
            continue
        seconds = time.monotonic() - start
        entries += [_entry(name, row, seconds) for row in rows]
    if arguments.json:
        print(json.dumps(entries, indent=2))
    else:
        _print(entries)
    if arguments.write and entries:
        try:
            for path in update(Path.cwd(), entries, _same_benchmark):
                progress.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
        except (ValueError, FileNotFoundError) as error:
            progress.print(f"theodolite bench: error: {error}", markup=False, highlight=False, soft_wrap=True)
            return 2
    return int(failed or any(entry["met"] is False for entry in entries))


@contextmanager
def _without_developers_warnings() -> Iterator[None]:
    """Silence deprecations inside third parties, in the processes that benchmarks start too."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _entry(benchmark: str, row: dict[str, Any], seconds: float) -> Entry:
    """Complete a benchmark's row to an entry of RESULTS.json; the seconds are those of the whole benchmark."""
    return {
        "id": BENCH, "metric": row["name"], "setting": benchmark, "published": None, "measured": float(row["value"]),
        "stderr": None, "seeds": [], "met": None if row["met"] is None else bool(row["met"]),
        "seconds": round(seconds, 1), "threads": threads(), "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"), "unit": row["unit"], "bound": str(row["bound"]),
    }  # fmt: skip


def _print(entries: Sequence[Entry]) -> None:
    table = Table("benchmark", "what", "measured", "bound", "verdict")
    for entry in entries:
        verdict = "shown" if entry["met"] is None else "met" if entry["met"] else "missed"
        value = f"{number(entry['measured'])} {entry['unit']}"
        table.add_row(entry["setting"], entry["metric"], value, entry["bound"], verdict)
    Console().print(table)


def _same_benchmark(old: Entry, new: Entry) -> bool:
    """Say whether a figure is replaced: it is of a benchmark that ran again."""
    return old["id"] == BENCH and old["setting"] == new["setting"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="theodolite bench",
        description="Measure speed and memory as ratios within one run, and compare them with their bounds.",
        epilog="Example: theodolite bench line_graph ddp. Run it on an otherwise idle machine.",
    )
    parser.add_argument("names", nargs="*", type=_known, metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--write", action="store_true", help="update RESULTS.md and RESULTS.json of this checkout")
    return parser


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        msg = f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}"
        raise argparse.ArgumentTypeError(msg)
    return name
