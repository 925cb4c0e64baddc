"""What a long search keeps on disk until its end, so that it goes on after a kill."""

import os
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, TypeVar

import torch

__all__ = ["once", "read", "write"]

_T = TypeVar("_T")


def write(path: FilePath, content: Any) -> None:
    """Write tensors, numbers and containers of them to a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    torch.save(content, partial)
    os.replace(partial, path)  # noqa: PTH105  # atomic: a killed process never leaves half a file


def read(path: FilePath | str, device: torch.device | str = "cpu") -> Any:
    """Read a file of tensors, numbers and containers of them onto a device.

    Raises:
        ValueError: If it is damaged, or holds something else.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # bytes that are no file of torch raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = f"{path} cannot be read: it is damaged, or holds more than tensors and numbers ({reason})"
        raise ValueError(msg) from error


def once(
    path: FilePath | None, compute: Callable[[], _T], device: torch.device | str = "cpu", *, writes: bool = True
) -> _T:
    """Give what was kept in a file, or compute it and keep it there.

    Args:
        path: The file; ``None`` to compute and keep nothing.
        compute: Gives tensors, numbers, or containers of them.
        device: Where kept tensors go.
        writes: Whether this process is the one that writes.
    """
    if path is not None and path.is_file():
        return read(path, device)
    result = compute()
    if path is not None and writes:
        write(path, result)
    return result
