import configparser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FOLDERS = ("modules", "datamodules", "callbacks", "scripts")
DATA = ("*/py.typed", "scripts/configs/**/*.yaml", "scripts/claims/*.yaml", "scripts/launch/*")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def source_files(pattern):
    return {path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob(pattern)}


def test_listed_packages_are_the_folders_with_python_files():
    folders = {"theodolite." + ".".join(path.parent.parts) for path in source_files("*.py")}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == folders


def test_every_folder_with_python_files_is_a_package():
    folders = {path.parent for path in source_files("*.py")}
    assert [folder for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []


def test_tests_have_no_init_files():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """Build a wheel from a copy: a build folder left in the sources would put removed files into it."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", "dist", "."]
    done = subprocess.run([*command, "--quiet"], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (copy / "dist").glob("theodolite-*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture
def run_installed(installed, tmp_path):
    """Run code with the wheel and the environment's libraries, but without its .pth files: no editable install."""

    def _run(code):
        paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
        prefix = f"import sys; sys.path[:0] = {paths!r}\n"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-I", "-S", "-W", "ignore", "-c", prefix + code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)

    return _run


def test_wheel_holds_the_sources_and_data_and_nothing_else(wheel):
    files = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    packaged = {path.relative_to("theodolite") for path in files if path.parts[0] == "theodolite"}
    data = {path.relative_to(ROOT) for pattern in DATA for path in ROOT.glob(pattern) if path.is_file()}
    assert packaged == source_files("*.py") | data
    assert {path.parts[0] for path in files} == {"theodolite", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert any(path.name == "LICENSE" for path in files)


def test_wheel_declares_the_command_and_the_python_it_needs(installed):
    (info,) = installed.glob("theodolite-*.dist-info")
    entry_points = configparser.ConfigParser()
    entry_points.read(info / "entry_points.txt")
    assert entry_points["console_scripts"]["theodolite"] == "theodolite.scripts.main:main"
    assert "Requires-Python: >=3.10" in (info / "METADATA").read_text()
    assert (installed / "bin" / "theodolite").is_file() or os.name == "nt"


def test_installed_help_starts_in_under_3_seconds_with_an_example(run_installed):
    code = "from theodolite.scripts.main import main\nmain(['--help'])\nprint('torch' in sys.modules)"
    start = time.monotonic()
    done = run_installed(code)
    assert time.monotonic() - start < 3
    assert done.returncode == 0, done.stderr
    assert "theodolite fit --config" in done.stdout
    assert done.stdout.endswith("False\n")


def test_installed_claims_are_listed_from_anywhere(run_installed):
    done = run_installed("from theodolite.scripts.main import main\nsys.exit(main(['reproduce', '--list', '--json']))")
    assert done.returncode == 0, done.stderr
    shipped = sorted(path.stem for path in (ROOT / "scripts" / "claims").glob("*.yaml"))
    assert sorted(claim["id"] for claim in json.loads(done.stdout)) == shipped


def test_installed_package_imports_whole_and_only_from_the_wheel(run_installed, installed):
    modules = [
        ".".join(["theodolite", *path.with_suffix("").parts]).removesuffix(".__init__")
        for path in sorted(source_files("*.py"))
        if path.parts[:2] != ("scripts", "benchmarks")  # these may import test-only peers
    ]
    code = f"""
import importlib, json
files = [importlib.import_module(name).__file__ for name in {modules!r}]
print(json.dumps(files))
"""
    done = run_installed(code)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout.splitlines()[-1])
    assert [file for file in files if not Path(file).is_relative_to(installed)] == []
