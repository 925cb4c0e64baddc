import contextlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from theodolite.scripts.main import main

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "scripts" / "launch"
QUICKSTART = "scripts/configs/community/quickstart.yaml"


def dry_run(script, *words, cwd=ROOT, **variables):
    """Give the words of the command that a launch script would start."""
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1", **variables}
    done = subprocess.run(["bash", LAUNCH / script, *words], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def config_of(words):
    """Give the full config that `theodolite` makes of these words: a flag it does not know fails here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--print_config"])
    assert code == 0, err.getvalue()
    return yaml.safe_load(out.getvalue())


@pytest.fixture
def in_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


SLURM = {"SLURM_JOB_ID": "71", "SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS_PER_NODE": "8", "ACCELERATOR": "cpu"}


def test_slurm_command_takes_its_sizes_from_the_job(in_repository):
    words = dry_run("slurm.sh", "--config", QUICKSTART, "--trainer.max_epochs", "3", **SLURM)
    assert words[0] == "srun"
    config = config_of(words[words.index("theodolite") + 1 :])
    trainer = config["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["max_epochs"]) == (3, 8, 3)
    assert (trainer["strategy"], trainer["accelerator"]) == ("ddp", "cpu")
    assert "--run_id slurm-71" in " ".join(words)
    assert "--ckpt_path" not in words


def test_requeued_slurm_job_goes_on_in_its_run(tmp_path):
    (tmp_path / "my runs" / "quickstart" / "slurm-71" / "checkpoints").mkdir(parents=True)
    words = dry_run("slurm.sh", "--config", "x.yaml", cwd=tmp_path, RUNS_DIR="my runs", **SLURM)
    assert words[words.index("--runs_dir") + 1] == "my runs"
    assert words[-2:] == ["--ckpt_path", "last"]
    other = dry_run(
        "slurm.sh", "--config", "x.yaml", cwd=tmp_path, RUNS_DIR="my runs", **{**SLURM, "SLURM_JOB_ID": "7"}
    )
    assert "--ckpt_path" not in other


def test_slurm_script_asks_for_one_task_a_gpu():
    header = dict(
        line.removeprefix("#SBATCH --").split("=", 1) for line in (LAUNCH / "slurm.sh").read_text().splitlines()
        if line.startswith("#SBATCH") and "=" in line
    )  # fmt: skip
    assert header["ntasks-per-node"] == header["gpus-per-node"]
    assert int(header["nodes"]) > 1


@pytest.mark.parametrize("code", [0, 3])
def test_slurm_script_ends_as_the_run_does_and_requeues_on_the_signal(tmp_path, code):
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "srun").write_text(f"#!/bin/bash\nkill -USR1 $PPID\nsleep 0.3\nexit {code}\n")
    (binaries / "scontrol").write_text('#!/bin/bash\necho "$@" > requeued\n')
    for binary in binaries.iterdir():
        binary.chmod(0o755)
    environment = {**SLURM, "PATH": f"{binaries}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", LAUNCH / "slurm.sh", "--config", "x.yaml"], cwd=tmp_path, env=environment)
    assert done.returncode == code
    assert (tmp_path / "requeued").read_text() == "requeue 71\n"


def test_slurm_script_outside_a_job_says_how_to_submit_it(tmp_path):
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", LAUNCH / "slurm.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "submit this script by sbatch" in done.stderr


def test_torchrun_command_reaches_every_node(in_repository):
    words = dry_run("torchrun.sh", "--config", QUICKSTART, NODES="2", NODE_RANK="1", MASTER_ADDR="node0", PROCESSES="4")
    launcher = words[: words.index("--module")]
    options = dict(zip(launcher[1::2], launcher[2::2], strict=True))
    assert options == {"--nnodes": "2", "--node_rank": "1", "--nproc_per_node": "4", "--master_addr": "node0",
                       "--master_port": "29500"}  # fmt: skip
    trainer = config_of(words[words.index("theodolite.scripts.main") + 1 :])["trainer"]
    assert (trainer["num_nodes"], int(trainer["devices"]), trainer["strategy"]) == (2, 4, "ddp")


@pytest.mark.slow
@pytest.mark.ddp
def test_torchrun_script_trains_on_two_processes(tmp_path):
    binaries = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "PROCESSES": "2", "ACCELERATOR": "cpu"}
    environment |= {"OMP_NUM_THREADS": "1", "MASTER_PORT": "29541", "MASTER_ADDR": "127.0.0.1"}
    words = ["--config", ROOT / QUICKSTART, "--trainer.fast_dev_run", "1", "--wandb", "disabled"]
    done = subprocess.run(
        ["bash", LAUNCH / "torchrun.sh", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr


def expand_sweep(**chosen):
    """Give the sweep's command as an agent expands it, with the first or smallest value of each parameter."""
    sweep = yaml.safe_load((LAUNCH / "sweep.yaml").read_text())
    first = {name: spec["values"][0] if "values" in spec else spec["min"] for name, spec in sweep["parameters"].items()}
    arguments = [f"--{name}={value}" for name, value in (first | chosen).items()]
    return [word for part in sweep["command"] for word in (arguments if part == "${args}" else [part])], first


def test_sweep_runs_fit_with_parameters_that_it_knows(in_repository, tmp_path):
    stub = tmp_path / "theodolite"
    stub.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WANDB_RUN_ID": "abc123"}
    command, first = expand_sweep()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[-2:] == ["--run_id", "abc123"]
    config = config_of(words)
    for name, value in first.items():
        found = config
        for key in name.split("."):
            found = found[key]
        assert found == value, name


def test_sweep_optimises_a_metric_that_the_task_logs():
    from theodolite.modules.community import CommunityDetection

    sweep = yaml.safe_load((LAUNCH / "sweep.yaml").read_text())
    assert sweep["metric"]["name"] == CommunityDetection.monitor
    assert sweep["metric"]["goal"][:3] == CommunityDetection.mode
