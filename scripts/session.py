"""From the first hook of a run to its last line: what goes wrong becomes one line and an exit code."""

import shlex
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from ..callbacks import NonFiniteLossError
from .errors import Stopped, UserError
from .loggers import RunWandbLogger
from .run_callback import RunDirectoryCallback, end_at_sigterm

__all__ = ["CONFIGURATION_ERRORS", "session"]

#: What a wrong configuration raises before any data flow, in ours or in Lightning.
CONFIGURATION_ERRORS = (ValueError, TypeError, OSError, MisconfigurationException)


@contextmanager
def session(
    trainer: Trainer,
    callback: RunDirectoryCallback,
    wandb_logger: RunWandbLogger | None,
    resume_command: Callable[[], str],
) -> Iterator[None]:
    """Run the body, a call of the Trainer; afterwards end the W&B run and say where the results are.

    Args:
        trainer: Runs the body.
        callback: Knows the run directory, and whether data flowed yet.
        wandb_logger: The W&B logger of the run.
        resume_command: Gives the command that goes on with this run.

    Raises:
        UserError: For an error of the configuration; the directory that was made for the run is removed.
        Stopped: For a loss that is not finite, an interrupt or a termination signal.
    """
    exit_code = 1
    try:
        with _interrupt_handler_restored(), _ends_at_sigterm(trainer, callback.command):
            yield
        exit_code = 0
    except SIGTERMException as error:
        exit_code = 143
        raise Stopped(exit_code, _interrupted("terminated by a signal", callback, resume_command)) from error
    except (KeyboardInterrupt, SystemExit) as error:  # Lightning turns an interrupt into SystemExit
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        exit_code = 130
        raise Stopped(exit_code, _interrupted("interrupted", callback, resume_command)) from error
    except NonFiniteLossError as error:
        raise Stopped(1, str(error)) from error
    except (*CONFIGURATION_ERRORS, RuntimeError) as error:
        if callback.running:
            raise
        if isinstance(error, RuntimeError) and "loading state_dict" not in str(error):
            raise
        raise UserError(str(error)) from error
    finally:
        url = wandb_logger.url if wandb_logger is not None else None
        if wandb_logger is not None:
            wandb_logger.finish(exit_code)
        if exit_code and callback.created and not callback.running:
            shutil.rmtree(callback.run.path, ignore_errors=True)
    _say_where(callback, wandb_logger, url)


@rank_zero_only
def _say_where(callback: RunDirectoryCallback, wandb_logger: RunWandbLogger | None, url: str | None) -> None:
    if not callback.run.path.is_dir():  # fast_dev_run
        return
    print(f"run directory: {callback.run.path}")
    if wandb_logger is not None and wandb_logger.mode == "offline":
        print(f"to send it to Weights & Biases: wandb sync {shlex.quote(str(callback.run.path))}/wandb/offline-run-*")
    elif url:
        print(f"Weights & Biases: {url}")


def _interrupted(what: str, callback: RunDirectoryCallback, resume_command: Callable[[], str]) -> str:
    if callback.running and callback.command == "fit":
        return f"{what}; go on by: {resume_command()}"
    return f"{what}."


@contextmanager
def _interrupt_handler_restored() -> Iterator[None]:
    """Undo that Lightning ignores Ctrl-C after the first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _ends_at_sigterm(trainer: Trainer, command: str) -> Iterator[None]:
    """End at a termination signal at once: Lightning waits for the next batch, and a measurement is after the last.

    Training is left to Lightning, which ends it after a step.
    """
    if command == "fit" or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    end_at_sigterm(trainer)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
