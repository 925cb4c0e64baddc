"""Read the fields of a YAML file; what is wrong is said in one line that names the place."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["fields_of", "flag_of", "list_of", "number_of", "optional_number", "text_of"]


def fields_of(content: Any, where: str, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """Check that ``content`` is a mapping with all required fields and no unknown ones."""
    if not isinstance(content, Mapping):
        msg = f"{where} is {content!r} but must be a mapping with {', '.join((*required, *optional))}"
        raise ValueError(msg)
    missing = [name for name in required if content.get(name) is None]
    unknown = [str(name) for name in content if name not in (*required, *optional)]
    if missing or unknown:
        parts = [f"misses {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        msg = (
            f"{where} {' and '.join(parts)}; required: {', '.join(required) or 'none'}; optional: {', '.join(optional)}"
        )
        raise ValueError(msg)
    return dict(content)


def list_of(value: Any, where: str) -> list[Any]:
    """Check that a value is a list."""
    if not isinstance(value, list):
        msg = f"{where} is {value!r} but must be a list"
        raise ValueError(msg)
    return value


def flag_of(value: Any, where: str) -> bool:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        msg = f"{where} is {value!r} but must be true or false"
        raise ValueError(msg)
    return value


def text_of(value: Any, where: str) -> str:
    """Check that a value is text, and strip it."""
    if not isinstance(value, str) or not value.strip():
        msg = f"{where} is {value!r} but must be text"
        raise ValueError(msg)
    return value.strip()


def number_of(value: Any, where: str) -> float:
    """Check that a value is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{where} is {value!r} but must be a number"
        raise ValueError(msg)
    return float(value)


def optional_number(fields: Mapping[str, Any], name: str, where: str) -> float | None:
    """Read a number that may be left out."""
    return None if fields.get(name) is None else number_of(fields[name], f"{where}, {name}")
