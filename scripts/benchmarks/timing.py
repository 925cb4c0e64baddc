"""What all benchmarks share: interleaved times, peak memory of a process of its own, and the rows of the table."""

import contextlib
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["isolated", "median_times", "peak_bytes", "peak_growth", "row"]


def median_times(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time functions in turn, so that a slow moment of the machine hits all of them alike.

    Args:
        functions: What to time, by name.
        repeats: Number of rounds.

    Returns:
        Median seconds of a call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_growth(function: Callable[[], object]) -> int:
    """Call a function and give by how many bytes the resident memory of this process rose at its highest.

    Where the kernel cannot forget earlier peaks (outside Linux), only what exceeds them is seen: call it in a process
    of its own, by :func:`isolated`.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak becomes the present size
    before = peak_bytes()
    function()
    return peak_bytes() - before


def peak_bytes() -> int:
    """Give the largest resident memory of this process so far, in bytes."""
    with contextlib.suppress(OSError):
        # Not getrusage here: its peak is inherited from the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes but on macOS


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module-level function in a fresh process, so that its peak memory is its own.

    Raises:
        RuntimeError: The process ended without a result, e.g. killed for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, *arguments))
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        msg = f"{function.__module__}.{function.__name__} ended with code {process.exitcode} and no result"
        raise RuntimeError(msg) from None
    process.join()
    return result


def row(
    name: str, value: float, unit: str, *, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    """Make one row of the table: the bound in words, and whether it is met (``None`` without a bound)."""
    if at_least is not None:
        return {"name": name, "value": value, "unit": unit, "bound": f">= {at_least:g}", "met": value >= at_least}
    if at_most is not None:
        return {"name": name, "value": value, "unit": unit, "bound": f"<= {at_most:g}", "met": value <= at_most}
    return {"name": name, "value": value, "unit": unit, "bound": "", "met": None}


def _send(sender: Any, function: Callable[..., Any], *arguments: Any) -> None:
    sender.send(function(*arguments))
    sender.close()
