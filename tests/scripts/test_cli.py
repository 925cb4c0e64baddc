"""The console command: help at once, wrong settings in one line, what is configured arrives."""

import gc
import platform
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from theodolite.modules.community import GNN
from theodolite.scripts import cli
from theodolite.scripts.errors import one_line
from theodolite.scripts.main import find_configs, large_import, main

SBM = """
model:
  class_path: CommunityDetection
  init_args:
    network:
      class_path: GNN
      init_args: {width: 4, depth: 2}
    optimizer:
      class_path: torch.optim.Adamax
      init_args: {lr: 0.004}
data:
  class_path: SBMDataModule
  init_args: {num_nodes: 30, num_classes: 3, pairs: [[9, 1]], train_graphs: 4, val_graphs: 3, test_graphs: 3}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
wandb: disabled
"""


@pytest.fixture
def sbm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("sbm.yaml").write_text(SBM)
    return lambda *options: main(["fit", "--config", "sbm.yaml", *options])


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_shows_commands_and_an_example(args, capsys):
    assert main(args) == 0
    text = capsys.readouterr().out
    for command in ("fit", "validate", "test", "predict", "reproduce", "bench"):
        assert f"\n  {command} " in text
    assert "theodolite fit --config" in text


@pytest.mark.parametrize(("flags", "precision"), [("avx2", "32-true"), ("avx512f avx512_bf16", "bf16-mixed")])
def test_bfloat16_is_not_emulated(tiny, monkeypatch, tmp_path, caplog, flags, precision):
    (tmp_path / "cpuinfo").write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(cli, "has_bfloat16", partial(cli.has_bfloat16, tmp_path / "cpuinfo"))
    caplog.set_level("INFO")
    assert tiny("fit", "--experiment=e", "--run_id=r", "--trainer.precision=bf16-mixed") == 0
    saved = yaml.safe_load(Path("runs/e/r/config.yaml").read_text())
    assert saved["trainer"]["precision"] == precision
    assert ("32-true is used" in caplog.text) == (precision == "32-true")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from theodolite.scripts.main import main; main(['--help']); main(['--version']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'pytorch_lightning', 'wandb')))"
    )
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 3


def test_large_import_pauses_the_collector_and_freezes_nothing_of_a_caller():
    frozen = gc.get_freeze_count()
    with large_import(own_process=False):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    with large_import(own_process=True):
        pass
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()


def test_a_process_leaves_its_group_when_it_ends():
    code = """
import atexit, sys
import torch.distributed as dist
from theodolite.scripts.main import main
atexit.register(lambda: print("group:", dist.is_initialized()))
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
sys.argv = ["theodolite", "reproduce", "--list"]
print(dist.is_initialized(), main())
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.endswith("True 0\ngroup: False\n")


def test_what_large_tensors_free_is_not_faulted_in_again():
    code = """
import resource, sys
from theodolite.scripts.main import keep_memory
if sys.argv[1:]:
    keep_memory()
faults = []
for _ in range(4):
    blocks = [bytearray(20 * 2**20) for _ in range(4)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""

    def faults(*arguments):
        return int(subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=True).stdout)

    if "glibc" not in platform.libc_ver():
        pytest.skip("only glibc's heap is told to")
    assert faults("keep") < 0.1 * faults()


def test_fit_help_lists_the_run_arguments(capsys):
    assert main(["fit", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("--experiment", "--run_id", "--wandb", "--test_after_fit", "--ckpt_path", "--trainer.max_epochs"):
        assert option in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.network.depht", "3"], ["model.network", "GNN has no option 'depht'", "depth"]),
        (["--model", "CommunityDetectin"], ["model", "no class CommunityDetectin", "choose from CommunityDetection"]),
        (["--model.network", "GNNN"], ["model.network", "no class GNNN", "GNN", "LGNN", "BetheHessian"]),
        (["--model.network", "SBMDataModule"], ["model.network", "SBMDataModule"]),
        (["--model.optimizer", "Adma"], ["model.optimizer", "no class Adma", "Adamax"]),
        (["--model.optimizer.lrr", "3"], ["model.optimizer", "Adamax has no option 'lrr'", "lr"]),
        (["--model.optimizer.lr", "-3"], ["learning rate", "-3"]),
        (["--model.num_classes", "4"], ["model.num_classes is 4", "num_classes=3"]),
        (["--trainer.max_epoch", "3"], ["unrecognized", "--trainer.max_epoch"]),
        (["--data.structure", "assoc"], ["data.structure", "'associative', 'disassociative'", "assoc"]),
        (["--data.num_nodes", "many"], ["data.num_nodes", "int", "many"]),
        (["--data.pairs", "[[-5, 1]]"], ["-5"]),
        (["--data.train_graphs", "0"], ["train_graphs=0"]),
        (["--trainer.max_epochs", "soon"], ["trainer.max_epochs", "int", "soon"]),
        (["--trainer.accelerator", "tpuu"], ["tpuu", "cpu", "cuda"]),
        (["--trainer.limit_train_batches", "1"], ["--trainer.limit_train_batches 1", "2 or more"]),
        (["--trainer.callbacks+=EarlyStopping"], ["trainer.callbacks", "required: monitor"]),
        (["--wandb", "perhaps"], ["wandb", "'auto', 'online', 'offline', 'disabled'", "perhaps"]),
        (["--nope", "3"], ["--nope"]),
        (["--experiment", "a/b"], ["--experiment 'a/b'"]),
        (["--ckpt_path", "absent.ckpt"], ["absent.ckpt", "no such file"]),
        (["--config", "absent.yaml"], ["absent.yaml", "no such file"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_wrong_setting_is_one_line_and_leaves_nothing(sbm, capsys, options, words):
    start = time.perf_counter()
    assert sbm(*options) == 2
    assert time.perf_counter() - start < 10
    error = capsys.readouterr().err
    assert error.startswith("theodolite fit: error: ")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (
            ["--trainer.callbacks.lrr", "3"],
            "trainer.callbacks: GeodesicPath has no option 'lrr'; it has reference, level",
        ),
        (["--trainer.callbacks.lr", "fast"], "trainer.callbacks.lr: expected float, given fast\n"),
    ],
)
def test_a_wrong_option_of_a_callback_is_said_of_that_callback_alone(sbm, capsys, option, line):
    Path("other.ckpt").touch()
    assert sbm("--trainer.callbacks+=GeodesicPath", "--trainer.callbacks.reference", "other.ckpt", *option) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"theodolite fit: error: {line}")
    assert "none" not in error


def test_error_of_the_data_setup_is_one_line_and_leaves_nothing(tiny, capsys):
    assert tiny("fit", "--data.fail_in_setup", "true", wandb="offline") == 2
    assert capsys.readouterr().err == ("theodolite fit: error: no data in /nowhere; download them from there.\n")
    assert not list(Path().glob("runs/*/*"))


def test_unknown_command_is_one_line(capsys):
    assert main(["fot"]) == 2
    assert capsys.readouterr().err.startswith("theodolite: error: unknown command 'fot'; choose from fit, validate")


def test_debug_shows_the_traceback(sbm, monkeypatch):
    monkeypatch.setenv("THEODOLITE_DEBUG", "1")
    with pytest.raises(ValueError, match="-5"):
        sbm("--data.pairs", "[[-5, 1]]")


def test_console_command_fails_in_one_line(tmp_path):
    (tmp_path / "sbm.yaml").write_text(SBM)
    command = [str(Path(sys.executable).parent / "theodolite"), "fit", "--config", "sbm.yaml", "--data.num_nodes", "-1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("Seed set to")]
    assert line.startswith("theodolite fit: error: ")
    assert "num_nodes" in line
    assert result.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sbm.yaml"]


def test_linked_sizes_and_short_names_arrive(sbm, monkeypatch):
    built = []
    monkeypatch.setattr(cli.TheodoliteCLI, "execute", lambda self: built.append(self))
    assert sbm("--data.num_classes", "4") == 0
    (command,) = built
    assert isinstance(command.model.network, GNN)
    assert command.model.num_classes == command.model.network.num_classes == command.datamodule.num_classes == 4
    assert command.model(next(iter(_train_loader(command)))).shape[1] == 4


def _train_loader(command):
    command.datamodule.setup("fit")
    return command.datamodule.train_dataloader()


def test_checkpoint_rebuilds_its_model_with_the_linked_sizes(sbm):
    from theodolite.modules.community import CommunityDetection

    assert sbm() == 0
    (path,) = Path().glob("runs/sbm/*/checkpoints/best.ckpt")
    model = CommunityDetection.load_from_checkpoint(path)
    assert model.num_classes == model.network.num_classes == 3
    assert len(model.network.state_dict()) == len([k for k in torch.load(path)["state_dict"] if "network" in k])


def _weights(experiment):
    (path,) = Path("runs", experiment).glob("*/checkpoints/last.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def test_print_config_and_saved_config_give_the_same_run(sbm, capsys):
    options = ["--model.optimizer.lr", "0.01", "--seed_everything", "7", "--experiment", "first"]
    assert sbm(*options) == 0
    (saved,) = Path("runs/first").glob("*/config.yaml")
    assert not {"run_id", "ckpt_path", "config"}.intersection(yaml.safe_load(saved.read_text()))
    capsys.readouterr()
    assert sbm(*options, "--print_config") == 0
    Path("printed.yaml").write_text(capsys.readouterr().out)
    for config in ("printed.yaml", str(saved)):
        assert main(["fit", "--config", config, "--experiment", "again"]) == 0
        (again,) = Path("runs/again").iterdir()
        assert _weights("first").keys() == _weights("again").keys()
        assert all(torch.equal(value, _weights("again")[key]) for key, value in _weights("first").items())
        assert (again / "metrics.csv").read_text() == (saved.parent / "metrics.csv").read_text()
        again.rename(Path(config).stem)


def test_experiment_is_named_by_the_config_or_the_model(tiny):
    assert tiny("fit", "--trainer.max_epochs", "1") == 0
    options = ["--model", "tiny_run.TinyTask", "--data", "tiny_run.TinyData", "--trainer.max_epochs", "1"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]
    assert main(["fit", *options, *quiet, "--wandb", "disabled"]) == 0
    assert {path.name for path in Path("runs").iterdir()} == {"tiny", "TinyTask"}


def test_evaluation_without_a_checkpoint_says_so(tiny):
    with pytest.warns(UserWarning, match="uses the model's initial weights"):
        assert tiny("validate") == 0
    assert len(list(Path("runs/tiny").iterdir())) == 1
    assert tiny("fit") == 0
    with pytest.warns(UserWarning, match="no callback that writes the predictions") as warned:
        assert tiny("predict", "--ckpt_path", "last") == 0
    assert not any("initial weights" in str(warning.message) for warning in warned)


def test_checkpoint_of_another_model_is_one_line(tiny, capsys):
    assert tiny("fit") == 0
    capsys.readouterr()
    assert tiny("test", "--ckpt_path", "best", "--model.width", "5") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("theodolite test: error: ")
    assert "size mismatch" in error
    assert len(list(Path("runs/tiny").iterdir())) == 1


def test_non_finite_loss_stops_with_the_last_good_checkpoint(tiny, capsys):
    assert tiny("fit", "--model.explode_at", "8") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("theodolite fit: ")]
    assert "loss is nan at step 8, epoch 1" in line
    (last,) = Path().glob("runs/tiny/*/checkpoints/last.ckpt")
    assert str(last) in line
    state = torch.load(last, weights_only=True)
    assert state["global_step"] == 6
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_interrupt_ends_with_the_command_that_goes_on(tiny, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
    assert tiny("fit", "--trainer.callbacks+=tiny_run.PressesCtrlC") == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    (run,) = Path("runs/tiny").iterdir()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("theodolite fit: interrupted; go on by: theodolite fit --config tiny.yaml ")
    assert line.endswith(f"--run_id {run.name} --ckpt_path last")
    command = line.partition("theodolite fit --config tiny.yaml")[2].split()
    assert tiny("fit", *[word for word in command if "PressesCtrlC" not in word]) == 0


@pytest.mark.filterwarnings("ignore:theodolite .* without --ckpt_path", "ignore:theodolite predict has no callback")
@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_termination_signal_ends_a_measurement_at_once(tiny, capsys, command):
    handler = signal.getsignal(signal.SIGTERM)
    assert tiny(command, "--trainer.callbacks+=tiny_run.Terminated") == 143
    assert capsys.readouterr().err.splitlines()[-1] == f"theodolite {command}: terminated by a signal."
    assert signal.getsignal(signal.SIGTERM) is handler


def test_packaged_config_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(cli.__file__).parent / "configs"
    for path in folder.rglob("*.yaml"):
        relative = path.relative_to(folder).as_posix()
        for name in (relative, f"scripts/configs/{relative}", path.stem):
            assert find_configs(["fit", "--config", name, "--x=1"]) == ["fit", "--config", str(path), "--x=1"]
            assert find_configs(["fit", f"--config={name}"]) == ["fit", f"--config={path}"]


def test_one_line_keeps_any_other_message():
    assert one_line("first\n   second") == "first second"
