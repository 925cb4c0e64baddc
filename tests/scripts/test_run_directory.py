"""Run directories never collide, and appear only for runs that start."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from theodolite.scripts import run_directory
from theodolite.scripts.run_directory import RunDirectory, find_run


def _create(folder: str) -> str:
    """Make a directory whose name is not random, so that everyone wants the same one first."""
    names = iter(f"same-second-{i}" for i in range(100))
    run_directory.new_run_id = lambda: next(names)
    run = RunDirectory(Path(folder), "e", run_directory.new_run_id())
    run.create({}, trains=True)
    return run.run_id


def test_processes_that_start_in_the_same_second_get_different_directories(tmp_path):
    with get_context("fork").Pool(4) as pool:
        names = pool.map(_create, [str(tmp_path)] * 12, chunksize=1)
    assert sorted(names) == sorted(set(names))
    assert {path.name for path in (tmp_path / "e").iterdir()} == set(names)


def test_named_run_is_made_by_one_of_many(tmp_path):
    runs = [RunDirectory(tmp_path, "e", "mine", named=True) for _ in range(8)]

    def create(run: RunDirectory) -> bool:
        try:
            run.create({}, trains=False)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(create, runs)) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".hidden", "a b"])
def test_names_that_are_no_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="--run_id"):
        RunDirectory(tmp_path, "e", name)
    with pytest.raises(ValueError, match="--experiment"):
        RunDirectory(tmp_path, name, "r")


def test_find_run_survives_a_kill_before_the_record(tmp_path):
    RunDirectory(tmp_path, "e", "old").create({}, trains=True)
    new = tmp_path / "e" / "new"
    (new / "checkpoints").mkdir(parents=True)
    os.utime(new, (time.time() + 1, time.time() + 1))  # file systems stamp a few ms behind the clock
    assert find_run(tmp_path, "e").name == "new"


def test_everything_of_a_run_is_in_its_directory(tiny, tmp_path):
    assert tiny("fit", "--test_after_fit", "true", wandb="offline") == 0
    (run,) = Path("runs/tiny").iterdir()
    assert {path.name for path in run.iterdir()} == {"checkpoints", "config.yaml", "metrics.csv", "run.json", "wandb"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "tiny.yaml"}
    assert json.loads((run / "run.json").read_text())["command"] == "fit"


def test_existing_run_id_is_refused_and_untouched(tiny, capsys):
    assert tiny("fit", "--run_id", "mine") == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert tiny("fit", "--run_id", "mine") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "runs/tiny/mine exists already" in error
    assert before == {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}


def test_fast_dev_run_keeps_nothing(tiny):
    assert tiny("fit", "--trainer.fast_dev_run", "1", "--test_after_fit", "true") == 0
    assert not Path("runs").exists()
