"""What a measured number depends on beside its config: the code, the libraries, the threads and the commit."""

import ast
import hashlib
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

__all__ = ["cache_key", "checkout", "class_names", "commit", "sources", "threads"]

#: Folder of the package: it holds modules/, datamodules/, callbacks/ and scripts/.
PACKAGE = Path(__file__).parent.parent
_FOLDERS = ("modules", "datamodules", "callbacks")
_LIBRARIES = ("torch", "pytorch-lightning", "torch-geometric")
#: Settings that say where a run is kept, not what it computes.
_PLACES = (
    "experiment",
    "run_id",
    "runs_dir",
    "wandb",
    "seed_everything",
    "config",
    "ckpt_path",
    "wandb_project",
    "log_checkpoints",
)


def cache_key(composed: str, command: str, package: Path = PACKAGE, chained: Sequence[str] = ()) -> str:
    """Hash everything that a run's figures depend on, its seed apart.

    That is: the composed config, the command, the text of those files under modules/, datamodules/ and callbacks/ that
    the classes named in the config need, and the versions of torch, pytorch-lightning and torch-geometric.

    Args:
        composed: Output of ``theodolite fit --print_config`` with all overrides.
        command: ``fit``, ``validate`` or ``test``.
        package: The folder that holds the four source folders.
        chained: What it depends on beside: options with a seed in them, the keys of runs whose checkpoints it takes.

    Returns:
        Twelve hexadecimal digits.
    """
    config = yaml.safe_load(composed)
    config = {key: value for key, value in config.items() if key not in _PLACES}
    digest = hashlib.sha256(yaml.safe_dump([command, config], sort_keys=True).encode())
    for path in sources(class_names(config), package):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(repr([(name, version(name)) for name in _LIBRARIES]).encode())
    if chained:
        digest.update(repr(list(chained)).encode())
    return digest.hexdigest()[:12]


def class_names(config: Any) -> set[str]:
    """Collect the class names (last part of each ``class_path``) anywhere in a config."""
    if isinstance(config, Mapping):
        own = {str(config["class_path"]).rpartition(".")[2]} if config.get("class_path") else set()
        return own.union(*(class_names(value) for value in config.values()))
    if isinstance(config, list):
        return set().union(*(class_names(value) for value in config))
    return set()


def sources(names: Iterable[str], package: Path = PACKAGE) -> list[Path]:
    """List the source files that define some classes, and all that these import from the package, sorted.

    A package's ``__init__.py`` only hands names on, so it is followed to the file that a name comes from and is not
    itself part of the list: adding a network does not make results of the others stale.
    """
    trees = {
        path: ast.parse(path.read_bytes()) for folder in _FOLDERS for path in sorted((package / folder).rglob("*.py"))
    }
    wanted = set(names)
    pending = [
        path
        for path, tree in trees.items()
        if any(isinstance(node, ast.ClassDef) and node.name in wanted for node in tree.body)
    ]
    found: set[Path] = set()
    while pending:
        path = pending.pop()
        if path not in found:
            found.add(path)
            pending += [target for target in _imports(path, trees) if target not in found]
    return sorted(found)


def _imports(path: Path, trees: Mapping[Path, ast.Module], only: str | None = None) -> list[Path]:
    """List the files of the package that one file imports relatively (``only`` for one of the names it binds)."""
    targets: list[Path] = []
    for node in ast.walk(trees[path]):
        if not isinstance(node, ast.ImportFrom) or node.level == 0:
            continue
        base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for alias in node.names:
            if only is not None and only not in (alias.asname or alias.name, alias.name):
                continue
            places = [base.with_suffix(".py"), base / f"{alias.name}.py", base / alias.name / "__init__.py"]
            target = next((place for place in places if place in trees), None)
            if target is not None:
                targets.append(target)
            elif base / "__init__.py" in trees:
                targets += _imports(base / "__init__.py", trees, only=alias.name) or [base / "__init__.py"]
    return targets


def checkout(folder: Path) -> Path | None:
    """Give the root of the git checkout that a folder lies in, or ``None``."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    return Path(root) if root else None


def commit() -> str:
    """Name the commit of the running code, with ``-dirty`` if a tracked file differs (the results' own files apart).

    Installed from a wheel there is no commit: then it is the version.
    """
    head = _git(PACKAGE, "rev-parse", "--short=12", "HEAD") if (PACKAGE / "pyproject.toml").is_file() else None
    if not head:
        try:
            return f"theodolite {version('theodolite')}"
        except PackageNotFoundError:
            return "unknown"
    own = (":(exclude)RESULTS.md", ":(exclude)RESULTS.json")
    changed = _git(PACKAGE, "status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    return f"{head}-dirty" if changed else head


def threads() -> int:
    """Count the threads that PyTorch's processes take: ``OMP_NUM_THREADS`` if set, else the cores they may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder; ``None`` if there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
