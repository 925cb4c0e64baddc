"""Runs of a claim that use the checkpoints of others: what stands for them in the overrides, and their order."""

import re
from collections.abc import Callable, Mapping, Sequence

__all__ = ["changing", "fill", "in_order", "needs"]

#: The checkpoint of another run, ``{name}``, ``{name:best}`` or ``{name:last}``; or ``{seed}``.
_PLACEHOLDER = re.compile(r"\{([A-Za-z0-9_-]+)(?::(best|last))?\}")


def needs(overrides: Sequence[str]) -> list[str]:
    """List the runs whose checkpoints these overrides name."""
    names = [match[1] for word in overrides for match in _PLACEHOLDER.finditer(word)]
    return [name for name in dict.fromkeys(names) if name != "seed"]


def changing(overrides: Sequence[str]) -> list[str]:
    """List the overrides that contain something to be replaced."""
    return [word for word in overrides if _PLACEHOLDER.search(word)]


def fill(overrides: Sequence[str], seed: int, checkpoint: Callable[[str, str], str]) -> tuple[str, ...]:
    """Replace what stands for a checkpoint or the seed.

    Args:
        overrides: Words of a command line.
        seed: For ``{seed}``.
        checkpoint: Gives the words for ``{name}`` and ``{name:last}``, of (name, ``best`` or ``last``).
    """

    def value(match: re.Match[str]) -> str:
        return str(seed) if match[1] == "seed" else checkpoint(match[1], match[2] or "best")

    return tuple(_PLACEHOLDER.sub(value, word) for word in overrides)


def in_order(needed: Mapping[str, Sequence[str]], wanted: Sequence[str], where: str) -> list[str]:
    """Put the wanted runs, and those they need, into an order in which each comes after what it needs.

    Args:
        needed: The names that each run needs.
        wanted: The runs to end with.
        where: Who asks, for the message.

    Raises:
        ValueError: A run needs one that does not exist, or itself by way of others.
    """
    order: list[str] = []

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            msg = f"{where}: runs need each other's checkpoints in a circle: {' <- '.join((*above, name))}"
            raise ValueError(msg)
        if name not in needed:
            msg = (
                f"{where}, run {above[-1]}: {{{name}}} stands for the checkpoint of a run {name!r}, which does not "
                f"exist; the runs are {', '.join(needed)}"
            )
            raise ValueError(msg)
        for other in needed[name]:
            visit(other, (*above, name))
        if name not in order:
            order.append(name)

    for name in wanted:
        visit(name, ())
    return order
