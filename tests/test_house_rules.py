import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("modules", "datamodules", "callbacks", "scripts")
#: What each folder may import; nobody but itself imports scripts, and a callback never imports a datamodule.
ALLOWED = {
    "modules": {"modules"},
    "datamodules": {"datamodules", "modules"},
    "callbacks": {"callbacks", "modules"},
    "scripts": set(FOLDERS),
}
PACKAGE_FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
TEXTS = sorted(
    path
    for pattern in ("*.yaml", "*.yml", "*.md", "*.sh", "*.py")
    for folder in (*FOLDERS, "tests")
    for path in (ROOT / folder).rglob(pattern)
) + sorted([*ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile"])


def imports(path):
    """List (level, module, names) of every import of a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
    return found


def imported_folders(path, root=ROOT):
    """Give the top-level folders that a file imports relatively."""
    folders = set()
    for level, module, names in imports(path):
        if level == 0:
            continue
        base = path.parents[level - 1].joinpath(*module.split(".")) if module else path.parents[level - 1]
        if base == root:  # from .. import datamodules
            folders |= set(names)
        else:
            folders.add(base.relative_to(root).parts[0])
    return folders


def names(paths):
    return [path.relative_to(ROOT).as_posix() for path in paths]


def test_the_files_are_found():
    assert len(PACKAGE_FILES) > 20
    assert ROOT / "README.md" in TEXTS


@pytest.mark.parametrize("name", names([*PACKAGE_FILES, *TESTS]))
def test_lightning_is_pytorch_lightning(name):
    # two copies of the same classes: an object of one is no instance of the other
    assert [module for _, module, _ in imports(ROOT / name) if module.split(".")[0] == "lightning"] == []


@pytest.mark.parametrize("name", names(PACKAGE_FILES))
def test_package_imports_itself_relatively_and_in_one_direction(name):
    path = ROOT / name
    absolute = [module for level, module, _ in imports(path) if level == 0 and module.split(".")[0] in {
        *FOLDERS, "theodolite"}]  # fmt: skip
    assert absolute == []
    folder = path.relative_to(ROOT).parts[0]
    assert imported_folders(path) - ALLOWED[folder] == set()


@pytest.mark.parametrize("name", names(TESTS))
def test_tests_import_theodolite(name):
    # the repository's root may be on sys.path: `import modules` would be a second copy of every class;
    # one dot is a helper beside the test
    found = [(level, module) for level, module, _ in imports(ROOT / name)]
    assert [entry for entry in found if entry[0] > 1 or entry[1].split(".")[0] in FOLDERS] == []


def test_no_text_shows_imports_from_the_folders():
    pattern = re.compile(rf"^\W*(from|import) ({'|'.join(FOLDERS)})\b", re.MULTILINE)
    assert [path.name for path in TEXTS if pattern.search(path.read_text())] == []


def test_no_file_names_a_place_on_one_machine():
    pattern = re.compile(r"(?<![\w./])/(work|root|home|Users|mnt)/")
    assert [path.name for path in TEXTS if path != Path(__file__) and pattern.search(path.read_text())] == []


def test_direction_is_seen_in_every_form_of_import(tmp_path):
    path = tmp_path / "modules" / "community" / "net.py"
    path.parent.mkdir(parents=True)
    path.write_text("from ...callbacks.media import x\nfrom .base import y\ndef f():\n    from ... import scripts\n")
    assert imported_folders(path, tmp_path) == {"callbacks", "modules", "scripts"}
