"""The console command: answers help and version at once, and imports what a command needs only when it is called."""

import atexit
import ctypes
import gc
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

__all__ = ["main"]

#: Commands that train or evaluate through Lightning, with what they do.
RUN_COMMANDS = {
    "fit": "train a model; --test_after_fit true tests the best checkpoint at the end",
    "validate": "evaluate on the validation split",
    "test": "evaluate on the test split; also runs the baselines",
    "predict": "write predictions for your own data",
}
OTHER_COMMANDS = {
    "connect": "find the path between two checkpoints inside a level set of the loss",
    "reproduce": "run a published experiment and print published beside measured",
    "bench": "measure speed and memory as ratios within one run",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        args: The arguments after the program's name; ``None`` takes those of the process.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 the command or its settings are wrong, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    command = arguments[0] if arguments else "--help"
    if command in {"-h", "--help"}:
        print(_help())
        return 0
    if command == "--version":
        print(f"theodolite {version('theodolite')}")
        return 0
    try:
        if command == "connect":
            from .connect import as_test

            arguments = as_test(arguments[1:])
        if args is None:
            keep_memory()
            atexit.register(leave_group)
        if arguments[0] in RUN_COMMANDS:
            arguments = find_configs(arguments)
            with large_import(own_process=args is None):
                from .run import run

            return run(arguments)
        if command == "reproduce":
            from .reproduce import main as reproduce

            return reproduce(arguments[1:])
        if command == "bench":
            from .bench import main as bench

            return bench(arguments[1:])
        msg = f"unknown command {command!r}; choose from {', '.join([*RUN_COMMANDS, *OTHER_COMMANDS])}."
        raise ValueError(msg)
    except (ValueError, FileNotFoundError) as error:
        if os.environ.get("THEODOLITE_DEBUG"):
            raise
        name = f"theodolite {command}" if command in {**RUN_COMMANDS, **OTHER_COMMANDS} else "theodolite"
        print(f"{name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ntheodolite {command}: interrupted.", file=sys.stderr)
        return 130


@contextmanager
def large_import(own_process: bool) -> Iterator[None]:
    """Keep the garbage collector away from what PyTorch and Lightning define: half a million objects that stay.

    It would search them again and again while they are made, and once more when the process ends: a third of the time
    in which a wrong setting is reported. The price is some 10 MB that are never given back.

    Args:
        own_process: The process runs this one command; otherwise the caller's objects must stay collectable too.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.script.*")  # third parties, at import under torch 2.14
            yield
        if own_process:
            gc.freeze()
    finally:
        if collecting:
            gc.enable()


def keep_memory() -> None:
    """Keep what tensors free for the next ones, instead of giving it back to the system and faulting it in again.

    glibc gives the top of its heap back whenever a step has freed its activations; page faults are then a tenth of a
    small convolutional network's step on a CPU. Blocks beyond 32 MB are still given back. Elsewhere than with glibc
    nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    mallopt(mmap_threshold, 32 * 2**20)
    mallopt(trim_threshold, 2**31 - 1)


def leave_group() -> None:
    """Take leave of the other processes of the run.

    A process that ends while a thread of gloo still holds a tensor aborts now and then; Lightning only ends groups of
    NCCL.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def find_configs(arguments: Sequence[str]) -> list[str]:
    """Replace the name of a packaged config by its path, so that an installed package runs its own experiments.

    A ``--config`` that is a file stays as it is; otherwise it is looked up among the packaged configs, by its path
    there or its stem, with or without ``scripts/configs/`` in front.

    Raises:
        FileNotFoundError: If it is neither.
    """
    found = list(arguments)
    for i, argument in enumerate(found):
        option, equals, value = argument.partition("=")
        if option not in {"-c", "--config"}:
            continue
        if equals:
            found[i] = f"{option}={_find_config(value)}"
        elif i + 1 < len(found):
            found[i + 1] = _find_config(found[i + 1])
    return found


def _find_config(name: str) -> str:
    if Path(name).exists() or "\n" in name or "{" in name:
        return name
    folder = Path(__file__).parent / "configs"
    packaged = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    wanted = name.removeprefix("scripts/configs/").removesuffix(".yaml")
    for relative, path in packaged.items():
        if wanted in {relative.removesuffix(".yaml"), path.stem}:
            return str(path)
    msg = (
        f"--config {name}: there is no such file below {Path.cwd()}, and no packaged config of that name; "
        f"packaged: {', '.join(path.stem for path in packaged.values()) or 'none'}."
    )
    raise FileNotFoundError(msg)


def _help() -> str:
    commands = "\n".join(f"  {name:<10} {text}" for name, text in {**RUN_COMMANDS, **OTHER_COMMANDS}.items())
    return f"""theodolite {version("theodolite")}: measure the geometry of deep learning

usage: theodolite COMMAND [options]

commands:
{commands}

example:
  theodolite fit --config scripts/configs/community/quickstart.yaml
  theodolite fit --config scripts/configs/community/quickstart.yaml --ckpt_path last   (go on after a crash)
  theodolite test --config scripts/configs/community/quickstart.yaml --ckpt_path best

more help:
  theodolite fit --help                                   options of a command
  theodolite fit --model.help CommunityDetection          options of a model
  theodolite fit --data.help SBMDataModule                options of a datamodule
  theodolite fit --config FILE.yaml --print_config        the complete configuration

Set THEODOLITE_DEBUG=1 for full tracebacks."""


if __name__ == "__main__":
    sys.exit(main())
