"""Errors of the user's making, said in one line."""

import collections.abc
import inspect
import re
import typing
from importlib import import_module
from typing import Any

__all__ = ["Stopped", "UserError", "load_class", "one_line"]

#: Lines of a jsonargparse report that say nothing of what is wrong.
_NOISE = re.compile(
    r"Does not validate against any|Subtypes: |Errors:$|Given value|Expected a <class 'NoneType'>|Expected a path but "
    r"|Not a valid subclass|Subclass types expect|a class path \(str\)|a dict with"
)

#: Reports of others that name the fault but not the way out, by their first words.
_REMEDIES = {
    "unrecognized arguments": "; `theodolite fit --help` and the like list the options.",
    "Invalid learning rate": "; lr of the optimizer must be >= 0, e.g. --model.optimizer.lr 0.001.",
    "optimizer got an empty parameter list": ": the network has nothing to train; run it by `theodolite test`.",
}


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
    leaves that say what is wrong. Any other message loses its line breaks, and a few get the remedy they lack.

    Example:
        >>> one_line("Parser key \"a\":\n  Errors:\n    - Expected a <class 'int'>\n  Given value: x")
        'a: expected int, given x'
    """
    if "Parser key" not in message and "Subtypes: " not in message:
        text = " ".join(message.split())
        remedy = next((remedy for start, remedy in _REMEDIES.items() if text.startswith(start)), "")
        return text + remedy
    keys: list[str] = []
    owner = base = given = ""
    leaves: list[str] = []
    for raw in message.splitlines():
        line = re.sub(r"^\s*(- )?", "", raw)
        if match := re.match(r'Parser key "(.+?)":\s*(.*)', line):
            keys.append(match[1])
            line = match[2]
        elif match := re.match(r"Problem with given class_path '(.+?)':\s*(.*)", line):
            owner, line = match[1], match[2]
        elif match := re.match(r"Subtypes: .*?((?:\w+\.)+[A-Z]\w+)", line):
            base = match[1]
        elif match := re.match(r"Given value: (\S{1,60})$", line):
            given = given or match[1]
        if line and not _NOISE.match(line):
            leaves.append(_say(line, owner, keys[-1] if owner and keys else "", base))
    # of a list of callbacks jsonargparse also tries the base class, which has no options at all
    leaves = [leaf for leaf in leaves if not leaf.endswith(_NONE)] or leaves
    text = "; ".join(dict.fromkeys(leaves)) or " ".join(message.split())
    field = f"{'.'.join(keys)}: " if keys else ""
    return f"{field}{text}" + (f", given {given}" if given and given not in text else "")


def _say(leaf: str, owner: str, key: str, base: str) -> str:
    """Say one leaf of the tree in the user's words, with what is allowed."""
    if match := re.search(r"Option '(.+?)' is not accepted(?:.*class_path='([\w.]+)')?", leaf):
        owner = match[2] or owner
        allowed = [name for name in inspect.signature(load_class(owner)).parameters if name not in _HIDDEN]
        return f"{owner.rpartition('.')[2]} has no option {match[1]!r}; it has {', '.join(allowed) or 'none'}"
    if match := re.match(r"Expected a dot import path string: (.+)", leaf):
        bases = _annotated(load_class(owner), key) if owner else [load_class(base)]
        known = ", ".join(sorted({name for cls in bases for name in _subclasses(cls)}))
        return f"there is no class {match[1]}; " + (f"choose from {known}, or " if known else "") + _IMPORT
    if match := re.match(r"Expected a (?:typing\.)?Literal\[(.+)\]\. Got value: (.+)", leaf):
        return f"expected one of {match[1]}, given {match[2]}"
    return re.sub(r"^Expected an? <class '(.+?)'>(?:\. Got value: (.+))?", _expected, leaf)


#: Arguments that belong to the caller of a class, not to its user.
_HIDDEN = {"self", "args", "kwargs", "params", "optimizer"}
_NONE = "; it has none"
_IMPORT = "give package.module.Class of an installed package"


def _expected(match: re.Match[str]) -> str:
    return f"expected {match[1]}" + (f", given {match[2]}" if match[2] else "")


def load_class(path: str) -> type:
    """Import a class by its full name; ``object`` where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return object
    return found if inspect.isclass(found) else object


def _annotated(owner: type, argument: str) -> list[type]:
    """Give the classes an argument of a class may be; of a callable, those it may return."""
    stack: list[Any] = [typing.get_type_hints(owner.__init__).get(argument)]
    classes: list[type] = []
    while stack:
        hint = stack.pop()
        arguments = typing.get_args(hint)
        if typing.get_origin(hint) is collections.abc.Callable:
            stack.append(arguments[-1])
        elif arguments:
            stack.extend(arguments)
        elif inspect.isclass(hint) and hint is not type(None):
            classes.append(hint)
    return classes


def _subclasses(base: type) -> list[str]:
    """List the concrete, public classes below a base: ours if there are any, but every optimizer and scheduler."""
    found: set[type] = set()
    stack = [base] if base is not object else []
    while stack:
        cls = stack.pop()
        stack.extend(cls.__subclasses__())
        if not inspect.isabstract(cls) and cls is not base and not cls.__name__.startswith("_"):
            found.add(cls)
    ours = {cls for cls in found if cls.__module__.startswith("theodolite.")}
    return [cls.__name__ for cls in (found if base.__module__.startswith("torch.optim") else ours) or found]
