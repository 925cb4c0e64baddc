"""``theodolite reproduce``: run published experiments and print published and measured side by side."""

import argparse
import dataclasses
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Column, Table

from .chains import changing, fill, in_order, needs
from .claim_figure import draw_claim
from .claims import Claim, Run, judge, load_claim, load_claims, split_reference
from .measure import CHILD, Measurement, compose, measure
from .results import Entry, number, update
from .versions import cache_key, threads

__all__ = ["main", "reproduce"]


def main(argv: Sequence[str]) -> int:
    """Run the subcommand.

    Args:
        argv: The words after ``theodolite reproduce``.

    Returns:
        The exit code: 0 if everything was measured (targets missed or not), 1 if a run failed, 2 for wrong arguments,
        130 if interrupted.
    """
    arguments = _parser().parse_args(argv)
    progress = Console(stderr=True)
    try:
        if arguments.list or not arguments.ids:
            return _list(as_json=arguments.json, asked=arguments.list)
        claims = [_find(name) for name in arguments.ids]
        _check_gpu(claims)
        if arguments.jobs > 1:
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, threads() // arguments.jobs)))
        if arguments.write:
            update(Path.cwd(), [], same=_same_claim)  # what would fail then fails now, not after hours
        entries: list[Entry] = []
        for claim in claims:
            done = reproduce(
                claim, seeds=arguments.seeds, runs_dir=arguments.runs_dir, jobs=arguments.jobs, progress=progress
            )
            if not arguments.json:
                _print(claim, done)
            failed = any(entry["verdict"] == "failed" for entry in done)
            if arguments.write and failed:
                progress.print(f"not written: {claim.id}, not all of it was measured", markup=False, highlight=False)
            elif arguments.write:  # at once: what comes after may be interrupted
                for path in update(Path.cwd(), done, same=_same_claim):
                    progress.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)
            entries += done
        if arguments.json:
            print(json.dumps(entries, indent=2))
    except (ValueError, FileNotFoundError) as error:
        progress.print(f"theodolite reproduce: error: {error}", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        progress.print("interrupted: the same command goes on where this one stopped")
        return 130
    return int(any(entry["verdict"] == "failed" for entry in entries))


def _same_claim(old: Entry, new: Entry) -> bool:
    return old["id"] == new["id"]


def reproduce(
    claim: Claim,
    *,
    seeds: int | None = None,
    runs_dir: Path = Path("runs"),
    jobs: int = 1,
    progress: Console | None = None,
    child: Sequence[str] | None = None,
    composer: Callable[[Run], str] | None = None,
) -> list[Entry]:
    """Measure a claim: every run with every seed, resumed or taken from the cache where possible.

    Args:
        claim: The claim.
        seeds: How many seeds: the claim's first ones, then the integers that follow; ``None`` for the claim's own.
        runs_dir: Where run directories are kept; those of a claim are in ``reproduce-<id>/``.
        jobs: How many runs at once, each after those that it needs.
        progress: Where progress and failures are written.
        child: The command that is started for each run, before ``fit``, ``validate`` or ``test``.
        composer: Gives the composed config of a run; by default :func:`compose`.

    Returns:
        One entry a row of the claim, in its order. A row whose value could not be measured has the verdict ``failed``.
    """
    progress = progress or Console(stderr=True)
    chosen = _seeds(claim, seeds)
    needed = _needed(claim)
    folder = runs_dir / f"reproduce-{claim.id}"
    plans = _plan(claim, needed, composer or compose)
    order = [(name, seed) for name in needed for seed in chosen]
    directories = {(name, seed): folder / f"{name}-{plans[name][0]}-seed{seed}" for name, seed in order}
    results: dict[tuple[str, int], Measurement | None] = {}

    def say(text: str) -> None:
        progress.print(text, markup=False, highlight=False, soft_wrap=True)

    def others(name: str, seed: int) -> list[tuple[str, int]]:
        return [(other, seed) for other in needs(claim.runs[name].overrides)]

    def job(name: str, seed: int) -> Measurement | None:
        label = f"[{order.index((name, seed)) + 1}/{len(order)}] {claim.id} {name}, seed {seed}"
        try:
            finished = {pair[0]: directories[pair] for pair in others(name, seed) if results[pair]}
            say(f"{label}: {directories[name, seed]}")
            run = _chained(claim.runs[name], seed, finished)
            result = measure(run, directories[name, seed], seed, child or CHILD, seeds_data=plans[name][1])
        except RuntimeError as error:
            say(f"{label} failed: {error}")
            return None
        say(f"{label}: {f'cached, measured {result.date}' if result.cached else f'done in {result.seconds:.0f} s'}")
        return result

    where = "a GPU" if claim.gpu else "2 CPU cores"
    progress.print(
        f"[bold]{claim.id}[/]: {len(order)} runs, about {_budget(claim, chosen):g} minutes on {where}", highlight=False
    )
    start = time.monotonic()
    _run_all(order, others, job, results, jobs)
    say(f"{claim.id}: {(time.monotonic() - start) / 60:.1f} minutes")
    measured = {name: [found for seed in chosen if (found := results[name, seed])] for name in needed}
    drawn = {name: [directories[name, seed] for seed in chosen if results[name, seed]] for name in needed}
    page = folder / "figure.png"
    if claim.figure is not None and draw_claim(claim, drawn, page):
        say(f"Figure: {page}")
    return _entries(claim, chosen, measured, progress)


def _run_all(
    order: Sequence[tuple[str, int]],
    others: Callable[[str, int], list[tuple[str, int]]],
    job: Callable[[str, int], Measurement | None],
    results: dict[tuple[str, int], Measurement | None],
    jobs: int,
) -> None:
    """Fill in the results: whenever a worker is free, it takes the first run whose others are done."""
    if jobs == 1:  # in this process's own thread; the order has each run after its others
        for pair in order:
            results[pair] = job(*pair)
        return
    pool = ThreadPoolExecutor(jobs)
    waiting, running = list(order), dict[Future[Measurement | None], tuple[str, int]]()
    try:
        while waiting or running:
            ready = [pair for pair in waiting if all(other in results for other in others(*pair))]
            for pair in ready[: jobs - len(running)]:
                waiting.remove(pair)
                running[pool.submit(job, *pair)] = pair
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                results[running.pop(future)] = future.result()
    finally:  # interrupted: what runs was interrupted too
        pool.shutdown()


def _entries(
    claim: Claim, seeds: Sequence[int], measured: dict[str, list[Measurement]], progress: Console
) -> list[Entry]:
    """Average over seeds and judge every row."""
    means: dict[tuple[str, str], float] = {}
    errors: dict[tuple[str, str], float | None] = {}
    for name, results in measured.items():
        if len(results) < len(seeds):
            continue
        for metric in set.intersection(*(set(result.metrics) for result in results)):
            values = [result.metrics[metric] for result in results]
            means[name, metric] = statistics.fmean(values)
            errors[name, metric] = (
                statistics.stdev(values) / math.sqrt(len(values))
                if len(values) > 1
                else results[0].metrics.get(f"{metric}_stderr")
            )
    entries = []
    for row in claim.rows:
        results = measured[row.run]
        verdict, target = judge(row, means)
        value = means.get((row.run, row.metric))
        if value is None and len(results) == len(seeds):
            known = sorted(metric for name, metric in means if name == row.run and not metric.endswith("_stderr"))
            progress.print(
                f"{claim.id}: run {row.run} has no {row.metric}; it has {', '.join(known)}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
        entries.append({
            "id": claim.id, "metric": row.metric, "setting": row.setting, "published": row.published,
            "measured": value, "stderr": errors.get((row.run, row.metric)), "seeds": list(seeds),
            "met": {"met": True, "missed": False}.get(verdict),
            "seconds": round(sum(result.seconds for result in results), 1),
            "threads": max((result.threads for result in results), default=threads()),
            "commit": ", ".join(sorted({result.commit for result in results})),
            "date": max((result.date for result in results), default=""),
            "published_error": row.published_error, "target": target, "verdict": verdict,
            "run": row.run, "title": claim.title, "source": claim.source,
        })  # fmt: skip
    return entries


def _print(claim: Claim, entries: Sequence[Entry]) -> None:
    """Print a claim's table."""
    table = Table(title=f"{claim.title}\npublished: {claim.source}", title_justify="left")
    for head in ("setting", "published", "measured +- standard error", "target", "verdict", "seconds"):
        table.add_column(head, justify="right" if head == "seconds" else "left", no_wrap=head in {"verdict", "seconds"})
    for entry in entries:
        table.add_row(
            entry["setting"],
            number(entry["published"], entry["published_error"]),
            number(entry["measured"], entry["stderr"]),
            entry["target"],
            entry["verdict"],
            f"{entry['seconds']:.0f}",
        )
    Console().print(table)


def _list(*, as_json: bool, asked: bool) -> int:
    """Print the claims there are; asked for nothing, say how to go on too."""
    claims = load_claims()
    if as_json:
        print(json.dumps([{"id": claim.id, "title": claim.title, "source": claim.source, "seeds": list(claim.seeds),
                           "runs": list(claim.runs), "minutes": claim.budget_minutes, "gpu": claim.gpu}
                          for claim in claims.values()], indent=2))  # fmt: skip
        return 0
    table = Table(Column("id", no_wrap=True), "title", "runs x seeds", "minutes")
    for claim in claims.values():
        size = f"{len(_needed(claim))} x {len(claim.seeds)}"
        minutes = f"{claim.budget_minutes:g}{' on a GPU' if claim.gpu else ''}"
        table.add_row(claim.id, claim.title, size, minutes)
    Console().print(table)
    if not asked:
        print("give the ids to measure, e.g. theodolite reproduce " + next(iter(claims), "ID"))
    return 0 if asked else 2


def _find(name: str) -> Claim:
    """Load a shipped claim by its id, or anyone's by the path of its YAML file."""
    if name.endswith((".yaml", ".yml")):
        return load_claim(Path(name))
    claims = load_claims()
    if name not in claims:
        msg = f"no claim is called {name!r}; there are {', '.join(claims) or 'none'} (or give the path of a .yaml file)"
        raise ValueError(msg)
    return claims[name]


def _needed(claim: Claim) -> list[str]:
    """List the runs that rows or their targets refer to, in the claim's order, each after those that it needs."""
    used = {row.run for row in claim.rows}
    for row in claim.rows:
        if row.target is not None:
            used |= {split_reference(reference, row.run)[0] for reference in row.target.references}
    needed = {name: needs(run.overrides) for name, run in claim.runs.items()}
    return in_order(needed, [name for name in claim.runs if name in used], claim.id)


def _plan(claim: Claim, names: Sequence[str], composer: Callable[[Run], str]) -> dict[str, tuple[str, bool]]:
    """Give each run's cache key, which depends on those of the runs that it needs, and whether its data take a seed.

    Args:
        claim: The claim.
        names: Its runs, each after those that it needs.
        composer: Gives the composed config of a run.
    """
    plans: dict[str, tuple[str, bool]] = {}
    for name in names:
        run = claim.runs[name]
        stands_for = {other: f"{other}-{plans[other][0]}.ckpt" for other in needs(run.overrides)}
        composed = composer(
            dataclasses.replace(run, overrides=fill(run.overrides, 0, lambda other, _, known=stands_for: known[other]))
        )
        chained = [*stands_for.values(), *changing(run.overrides)]
        data = yaml.safe_load(composed).get("data") or {}
        plans[name] = cache_key(composed, run.command, chained=chained), "seed" in (data.get("init_args") or {})
    return plans


def _chained(run: Run, seed: int, finished: Mapping[str, Path]) -> Run:
    """Put the seed, and the checkpoints of the runs that it needs, into a run.

    Raises:
        RuntimeError: A run that it needs has not finished or has no such checkpoint.
    """

    def checkpoint(name: str, kind: str) -> str:
        from .run_directory import best_checkpoint, last_checkpoint  # late: `reproduce --list` needs no torch

        if name not in finished:
            msg = f"it needs a checkpoint of the run {name}, which failed"
            raise RuntimeError(msg)
        try:
            path = best_checkpoint(finished[name]) if kind == "best" else last_checkpoint(finished[name])
        except FileNotFoundError:
            path = None
        if path is None:
            msg = f"it needs the {kind} checkpoint of the run {name}, but {finished[name]} has none; remove that folder"
            raise RuntimeError(msg)
        return str(path.resolve())

    return dataclasses.replace(run, overrides=fill(run.overrides, seed, checkpoint))


def _check_gpu(claims: Sequence[Claim]) -> None:
    """Refuse claims that need a GPU where there is none.

    Raises:
        ValueError: Naming them.
    """
    names = [claim.id for claim in claims if claim.gpu]
    if not names:
        return
    import torch  # late: the others need it only in the processes that they start

    if not torch.cuda.is_available():
        msg = (
            f"{', '.join(names)} would take days without a GPU, and none is found here; run it on a machine with one, "
            "or a smaller experiment by `theodolite fit`"
        )
        raise ValueError(msg)


def _seeds(claim: Claim, count: int | None) -> list[int]:
    """Give the claim's seeds, cut or continued to ``count``."""
    more = range(max(claim.seeds) + 1, max(claim.seeds) + 1 + (count or 0))
    return [*claim.seeds, *more][: count or len(claim.seeds)]


def _budget(claim: Claim, seeds: Sequence[int]) -> float:
    return round(claim.budget_minutes * len(seeds) / len(claim.seeds), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="theodolite reproduce",
        description="Run published experiments and print published and measured values side by side.",
        epilog="Example: theodolite reproduce --list; theodolite reproduce sbm5-dissociative --seeds 1",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="claims to measure: ids, or paths of claim files")
    parser.add_argument("--list", action="store_true", help="show the claims there are")
    parser.add_argument("--seeds", type=_positive, metavar="N", help="how many seeds (default: the claim's own)")
    parser.add_argument(
        "--jobs", type=_positive, metavar="N", default=1, help="how many runs at once, sharing the cores (default: 1)"
    )
    parser.add_argument("--write", action="store_true", help="update RESULTS.md and RESULTS.json of this checkout")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--runs_dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")
    return parser


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        msg = f"{text!r} must be an integer >= 1"
        raise argparse.ArgumentTypeError(msg)
    return value
