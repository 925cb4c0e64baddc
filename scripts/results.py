"""The results beside the code: RESULTS.json (a list of objects) and RESULTS.md, which is written from it alone."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .versions import checkout

__all__ = ["BENCH", "Entry", "number", "render", "update"]

#: One measured figure: id, metric, setting, published, measured, stderr, seeds, met, seconds, threads, commit, date;
#: and published_error, target, verdict, title, source for its table (bench: unit, bound).
Entry = dict[str, Any]
#: The id of all bench figures.
BENCH = "bench"

_HEAD = """# Results

Measured beside published, written by `theodolite reproduce --write` and `theodolite bench --write`; the same figures
as objects: [RESULTS.json](RESULTS.json). Targets are compared unrounded; a missed one stays here as missed. `+-` is the
standard error over seeds (over test graphs where there is one seed); seconds are of all seeds of the row's run.
"""


def update(folder: Path, entries: Sequence[Entry], same: Callable[[Entry, Entry], bool]) -> list[Path]:
    """Put new entries into the results of the checkout that a folder lies in; all others are kept as they were.

    Args:
        folder: Any folder of the checkout.
        entries: The new entries.
        same: Says of (old, new) whether the new one replaces the old one.

    Returns:
        The two files written.

    Raises:
        FileNotFoundError: The folder is in no git checkout.
        ValueError: The RESULTS.json there is unreadable.
    """
    root = checkout(folder)
    if root is None:
        msg = f"--write updates RESULTS.md of a git checkout, but {folder} is in none; change into the repository"
        raise FileNotFoundError(msg)
    data, text = root / "RESULTS.json", root / "RESULTS.md"
    try:
        old = json.loads(data.read_text()) if data.exists() else []
    except json.JSONDecodeError as error:
        msg = f"{data} is no valid JSON ({error}); restore it, e.g. with `git checkout RESULTS.json`"
        raise ValueError(msg) from None
    kept = [entry for entry in old if not any(same(entry, new) for new in entries)]
    ids = list(dict.fromkeys(entry["id"] for entry in [*old, *entries]))
    ids = sorted(name for name in ids if name != BENCH) + [BENCH] * (BENCH in ids)
    merged = [entry for name in ids for entry in [*kept, *entries] if entry["id"] == name]
    _replace(data, json.dumps(merged, indent=2) + "\n")
    _replace(text, render(merged))
    return [text, data]


def render(entries: Sequence[Entry]) -> str:
    """Write all entries as Markdown: one section a claim, then the section "Speed"."""
    parts = [_HEAD]
    for name in dict.fromkeys(entry["id"] for entry in entries):
        rows = [entry for entry in entries if entry["id"] == name]
        parts.append(_speed(rows) if name == BENCH else _section(name, rows))
    return "\n".join(parts)


def number(value: Any, error: Any = None) -> str:
    """Write a value (number, text or ``None``) with its error in the same form, which its size decides."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    size = abs(value)
    form = ".1e" if 0 < size < 0.0005 else ".3f" if size < 100 else ".1f" if size < 1000 else ".0f"
    return f"{value:{form}}" if error is None else f"{value:{form}} +- {error:{form}}"


def _section(name: str, rows: Sequence[Entry]) -> str:
    first = rows[0]
    lines = [f"## {name}", "", f"{first.get('title', '')}. Published: {first.get('source', '')}.", ""]
    lines += _table(
        ["setting", "metric", "published", "measured", "target", "verdict", "seconds"],
        [
            [
                row["setting"],
                f"`{row['metric']}`",
                number(row["published"], row.get("published_error")),
                number(row["measured"], row["stderr"]),
                row.get("target", ""),
                row.get("verdict", ""),
                f"{row['seconds']:.0f}",
            ]
            for row in rows
        ],
    )
    measured = {(tuple(row["seeds"]), row["threads"], row["commit"], row["date"]) for row in rows}
    for seeds, count, revision, date in sorted(measured):
        lines.append(f"Seeds {', '.join(map(str, seeds))}; {count} threads; commit {revision}; {date}.")
    lines += ["", f"`theodolite reproduce {name}`", ""]
    return "\n".join(lines)


def _speed(rows: Sequence[Entry]) -> str:
    lines = ["## Speed", "", "Ratios measured in one run; `make bench`.", ""]
    lines += _table(
        ["what", "measured", "unit", "bound", "verdict", "threads", "commit", "date"],
        [
            [
                row["metric"],
                number(row["measured"]),
                row.get("unit", ""),
                row.get("bound", ""),
                "shown" if row["met"] is None else "met" if row["met"] else "missed",
                str(row["threads"]),
                row["commit"],
                row["date"],
            ]
            for row in rows
        ],
    )
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [*("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines), ""]


def _replace(path: Path, text: str) -> None:
    """Write a file at once: never half a file."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
