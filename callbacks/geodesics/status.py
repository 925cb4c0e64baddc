"""What a long search is doing, as one line on the terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["detail", "stage", "status_line"]

_line: ContextVar[Callable[..., None] | None] = ContextVar("status_line", default=None)


@contextmanager
def status_line(*, show: bool) -> Iterator[None]:
    """Show the line while the context is open; on a terminal only, and gone afterwards.

    Args:
        show: ``False`` shows nothing, e.g. on all ranks but the first.
    """
    columns = SpinnerColumn(), TextColumn("{task.description} {task.fields[detail]}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not show) as progress:
        task = progress.add_task("", total=None, detail="")
        token = _line.set(lambda **fields: progress.update(task, **fields))
        try:
            yield
        finally:
            _line.reset(token)


def stage(text: str) -> None:
    """Say what is done now."""
    if (line := _line.get()) is not None:
        line(description=text, detail="")


def detail(text: str) -> None:
    """Say how far it is."""
    if (line := _line.get()) is not None:
        line(detail=text)
