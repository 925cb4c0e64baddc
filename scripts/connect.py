"""``theodolite connect``: the path between two checkpoints, as a test of the first with a GeodesicPath."""

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["as_test"]

#: Options that are the callback's own, with what they say.
_OPTIONS = {
    "level": "the level, in units of the metric (default: the higher end)",
    "method": "dss, linear, bezier or neb (default: dss)",
    "metric": "what the level bounds: loss, error or perplexity (default: loss)",
    "quantity": "on which batches: training or evaluated (default: training)",
    "convention": "certified or authors (default: certified)",
    "count": "parameters that lengths count: all or weights (default: all)",
    "align": "exchange hidden units of B first, to bring its weights close to A's: true or false (default: false)",
    "num_batches": "training batches that beads are trained on (default: all)",
    "lr": "Adam's rate for beads (default: 0.001)",
    "max_steps": "most steps of a bead (default: 20000)",
    "max_passes": "most times that all open segments are split (default: 10)",
    "resume": "file in which the search keeps what it has, and goes on from",
}


def as_test(words: Sequence[str]) -> list[str]:
    """Translate the words after ``theodolite connect`` into those of ``theodolite test``.

    Args:
        words: Two checkpoints, ``--config`` of their run, options of :class:`GeodesicPath`, and any of ``test``.

    Raises:
        FileNotFoundError: If a checkpoint is absent.
        SystemExit: For ``--help``, and if the checkpoints are not given.
    """
    known, others = _parser().parse_known_args(words)
    others = [word for config in known.config for word in ("--config", config)] + others
    for checkpoint in (known.first, known.second):
        if not Path(checkpoint).is_file():
            msg = f"there is no checkpoint {checkpoint}; give two files, then --config of their run."
            raise FileNotFoundError(msg)
    arguments = ["test", *others, "--ckpt_path", known.first, "--trainer.callbacks+=GeodesicPath"]
    arguments += ["--trainer.callbacks.reference", known.second]
    for name in _OPTIONS:
        if getattr(known, name) is not None:
            arguments += [f"--trainer.callbacks.{name}", getattr(known, name)]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="theodolite connect",
        description="Find the path between two checkpoints of one architecture on which the loss, or another metric, "
        "stays below a level; writes paths/test.pt, a table of its numbers and two figures to a new run directory.",
        epilog="All options of `theodolite test` are taken too. Example: theodolite connect A/checkpoints/last.ckpt "
        "B/checkpoints/last.ckpt --config A/config.yaml --level 0.05",
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="A.ckpt", help="checkpoint of the first end")
    parser.add_argument("second", metavar="B.ckpt", help="checkpoint of the second end")
    parser.add_argument("--config", "-c", action="append", default=[], help="configuration of their run")
    for name, text in _OPTIONS.items():
        parser.add_argument(f"--{name}", help=text)
    return parser
