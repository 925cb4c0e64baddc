"""Keep the solutions of convex programs beside the data, so that no run solves what another has solved."""

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

__all__ = ["cached"]


def cached(folder: str | Path | None, solve: Callable[[], Tensor], sources: list[Path], *inputs: Any) -> Tensor:
    """Give what a solver gives, from the file of an earlier run or else by solving.

    The file's name is a hash of all that the solution depends on: the problem to the last bit, the options, and the
    text of the solvers. So a file is never stale, and never changes once it is there; it appears only when it is
    complete. One that cannot be read is written again; a folder that cannot be written to costs a warning.

    Args:
        folder: Where the files are, a few kB each; ``None`` to solve.
        solve: The solver.
        sources: Files of the code that the solution comes from.
        inputs: Tensors, strings and numbers that the solver is given.

    Returns:
        The solution, on the CPU where it was read.
    """
    if folder is None:
        return solve()
    digest = hashlib.sha256()
    for part in (*(path.read_bytes() for path in sources), *map(_bytes, inputs)):
        digest.update(len(part).to_bytes(8, "big") + part)
    path = Path(folder).expanduser() / f"reference-{digest.hexdigest()[:24]}.npy"
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        solution = solve()
    partial = path.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, solution.cpu().numpy(), allow_pickle=False)
        partial.replace(path)
    except OSError as error:
        rank_zero_warn(f"The reference solution {path} could not be written ({error}); the next run solves again.")
    return solution


def _bytes(value: Any) -> bytes:
    if isinstance(value, Tensor):
        return repr((value.dtype, tuple(value.shape))).encode() + value.detach().cpu().contiguous().numpy().tobytes()
    return repr(value).encode()
