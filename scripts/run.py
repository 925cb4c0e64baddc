"""Run a command of the command line and give its exit code."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jsonargparse._deprecated import JsonargparseDeprecationWarning

from .cli import TheodoliteCLI, global_rank
from .errors import Stopped, UserError, one_line
from .session import CONFIGURATION_ERRORS

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run one command with third parties' notices filtered, and give the exit code.

    Args:
        arguments: The command and its options.
    """
    command = arguments[0]
    debug = bool(os.environ.get("THEODOLITE_DEBUG"))
    with quiet():
        try:
            cli = TheodoliteCLI(arguments)
        except (argparse.ArgumentError, *CONFIGURATION_ERRORS) as error:
            if debug:
                raise
            return _report(f"theodolite {command}: error: {one_line(str(error))}", 2)
        except SystemExit as end:  # --help and --print_config
            return end.code if isinstance(end.code, int) else 0
        try:
            cli.execute()
        except UserError as error:
            if debug:
                raise
            return _report(f"theodolite {command}: error: {one_line(str(error))}", 2)
        except Stopped as stopped:
            if debug:
                raise
            if global_rank() != 0:
                return 0  # rank zero reports: Lightning would kill it the moment another rank fails
            return _report(f"theodolite {command}: {stopped}", stopped.exit_code)
    return 0


def _report(text: str, exit_code: int) -> int:
    print(text, file=sys.stderr)
    return exit_code


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what third parties say to developers and to customers, and nothing else."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    with warnings.catch_warnings():
        # Lightning 2.6.6 calls what jsonargparse deprecates (Lightning issue 21900) and what torch 2.14 does
        warnings.filterwarnings("ignore", category=JsonargparseDeprecationWarning)
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        warnings.filterwarnings("ignore", ".*torch.jit.script.*")
        # small data are loaded in the main process on purpose
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        # our tasks log once an epoch
        warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
        # that is what going on in the same run directory means
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        logger.addFilter(_is_no_advertisement)
        try:
            yield
        finally:
            logger.removeFilter(_is_no_advertisement)


def _is_no_advertisement(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()
