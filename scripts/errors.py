"""Errors of the user's making, said in one line."""

import inspect
import re
from importlib import import_module

__all__ = ["Stopped", "UserError", "load_class", "one_line"]

_NOISE = re.compile(
    r"Does not validate against any of the Union|Subtypes: |Errors:$|Given value type: |Expected a <class 'NoneType'>$"
    r"|Expected a path but "
)


class UserError(Exception):
    """A wrong command, setting or file: printed as one line, without a traceback."""


class Stopped(Exception):
    """A run that ended early for a reason that needs no traceback.

    Args:
        exit_code: The exit code of the process.
        message: One line.
    """

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def one_line(message: str) -> str:
    r"""Shorten an error message to one line that names the field, the value and what is allowed.

    jsonargparse reports a wrong value as a tree of the types it tried; this keeps the path of keys and classes, and the
    leaves that say what is wrong.

    Example:
        >>> one_line("Parser key \\"a\\":\\n  Errors:\\n    - Expected a <class 'int'>\\n  Given value: x")
        'a: expected a int, given x'
    """
    keys: list[str] = []
    owner = ""
    leaves: list[str] = []
    given = ""
    base = ""
    for raw in message.splitlines():
        line = re.sub(r"^[\s-]+", "", raw).strip()
        if match := re.match(r'Parser key "(.+?)":\s*(.*)', line):
            keys.append(match[1])
            line = match[2]
        if match := re.match(r"Problem with given class_path '(.+?)':\s*(.*)", line):
            owner, line = match[1], match[2]
        if match := re.match(r"Given value: (.*)", line):
            given = given or match[1]
            continue
        if match := re.match(r"Subtypes: \[?<class '(.+?)'>", line):
            base = base or match[1]
        if line and not _NOISE.match(line):
            leaves.append(line)
    text = "; ".join(dict.fromkeys(_say(leaf, owner, base) for leaf in leaves)) or " ".join(message.split())
    field = ".".join(keys)
    simple = given and len(given) < 80 and not given.startswith(("Namespace", "NestedArg", "{"))
    return f"{field + ': ' if field else ''}{text}{f', given {given}' if simple and given not in text else ''}"


def _say(leaf: str, owner: str, base: str) -> str:
    """Say one leaf of the tree in the user's words, with what is allowed."""
    if match := re.match(r"Option '(.+?)' is not accepted", leaf):
        allowed = _arguments(owner)
        return f"{owner.rpartition('.')[2]} has no option {match[1]!r}" + (f"; it has {allowed}" if allowed else "")
    if match := re.match(r"Expected a dot import path string: (.+)|.*No module named.*|.*not a valid class.*", leaf):
        known = _subclasses(base)
        name = match[1] or "this class"
        return f"there is no class {name}" + (f"; choose from {known}, or give package.module.Class" if known else "")
    return re.sub(r"<class '(?:builtins\.)?(.+?)'>", r"\1", leaf[0].lower() + leaf[1:] if leaf[1:2].islower() else leaf)


def load_class(path: str) -> type:
    """Import a class by its full name; ``object`` where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return object
    return found if inspect.isclass(found) else object


def _arguments(class_path: str) -> str:
    found = load_class(class_path)
    return ", ".join(name for name in inspect.signature(found).parameters if name not in {"self", "args", "kwargs"})


def _subclasses(class_path: str) -> str:
    """List the concrete classes of ours below a base class, which their packages export."""
    found = load_class(class_path)
    names: set[str] = set()
    stack = [found] if found is not object else []
    while stack:
        cls = stack.pop()
        stack.extend(cls.__subclasses__())
        if cls.__module__.startswith("theodolite.") and not inspect.isabstract(cls) and cls is not found:
            names.add(cls.__name__)
    return ", ".join(sorted(names))
