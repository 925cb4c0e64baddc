"""Every shipped experiment runs, at a tiny size, and logs what the claims about it read."""

import csv

import pytest
import torch
import yaml

from theodolite.modules.bias import ImplicitBias
from theodolite.modules.classification import ImageClassifier
from theodolite.modules.community import CommunityDetection
from theodolite.modules.matching import GraphMatching
from theodolite.scripts.claims import CONFIGS, judge, load_claims
from theodolite.scripts.main import main

ALL = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
#: Those that are run by `theodolite predict` or `test`, and have tests of their own.
UNTRAINED = ["community/predict.yaml", "matching/qaplib.yaml", "matching/solve.yaml"]
UNTRAINED += ["geodesics/cubic.yaml", "geodesics/quadratic.yaml", "geodesics/theorems.yaml"]
UNTRAINED += [f"geodesics/{name}.yaml" for name in ("mnist", "cifar10", "cifar10_deep", "ptb", "ptb_deep")]
UNTRAINED += ["geodesics/components.yaml", "geodesics/energy_gap.yaml"]
UNTRAINED += ["mnist/linf_attacks.yaml"]
#: Those that need the checkpoint of another experiment, and that.
GENERATED = {
    "cifar/airplane_vs_cat_linear_relabeled.yaml": "cifar/airplane_vs_cat_linear.yaml",
    "cifar/dogs_vs_cats_relabeled.yaml": "cifar/dogs_vs_cats_standard.yaml",
    "cifar/dogs_vs_cats_robustified.yaml": "cifar/dogs_vs_cats_adversarial.yaml",
    "cifar/relabeled.yaml": "cifar/standard.yaml",
    "cifar/robustified.yaml": "cifar/adversarial_l2.yaml",
}
TRAINED = [name for name in ALL if name not in (*UNTRAINED, *GENERATED)]
COMMON = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--wandb", "disabled",
          "--trainer.enable_model_summary", "false"]  # fmt: skip


def tiny_callbacks(config):
    """Give options that make the last callback's measurement tiny."""
    callbacks = config["trainer"].get("callbacks", [{}])
    words = {
        "RobustAccuracy": [".checks", "0", ".attacks.steps", "1"],
        "CertifiedAccuracy": [".n", "100", ".attack.steps", "1", ".attack_draws", "1"],
    }.get(callbacks[-1].get("class_path"), [])
    return [f"--trainer.callbacks{word}" if word.startswith(".") else word for word in words]


def read_by_claims(name):
    """Give the metrics that claims read of runs of an experiment, those that override its callbacks apart."""
    metrics = set()
    for claim in load_claims().values():
        used = {
            key
            for key, run in claim.runs.items()
            if run.config == CONFIGS / name and run.command == "fit" and "--trainer.callbacks" not in str(run.overrides)
        }
        metrics |= {row.metric for row in claim.rows if row.run in used}
    return metrics


def tiny(name, data_dir, image_dir):
    """Give options that make an experiment tiny without changing which classes it uses."""
    config = yaml.safe_load((CONFIGS / name).read_text())
    if config["model"]["class_path"] == "ImageClassifier":
        words = [*COMMON, "--data.data_dir", str(image_dir), "--data.val_samples", "4", "--data.train_samples", "8"]
        words += ["--data.test_samples", "4", "--data.batch_size", "4", "--data.num_workers", "0"]
        model = config["model"]["init_args"]
        words += ["--trainer.check_val_every_n_epoch", "1", *tiny_callbacks(config)]
        if "val_attack" in model:
            words += ["--model.objective.attack.steps", "1", "--model.val_attack.steps", "1"]
        if model["network"]["class_path"] == "ResNet9":
            words += ["--model.network.width", "2"]
        return [*words, "--trainer.precision", "32-true"]  # low precision is slow on a CPU
    if name.startswith("bias/"):
        return [*COMMON, "--model.steps", "40", "--data.data_dir", "null"]
    if config["data"]["class_path"] == "QAPDataModule":
        words = [*COMMON, "--data.num_nodes", "14", "--data.train_pairs", "2", "--data.val_pairs", "1"]
        words += ["--data.test_pairs", "2", "--data.batch_size", "2"]
        if config["data"]["init_args"]["model"] == "regular":
            words += ["--data.degree", "4"]
        kind = config["model"]["init_args"]["network"]["class_path"]
        return words + {"SiameseGNN": ["--model.network.depth", "2"], "FGNN": ["--model.network.width", "4"]}.get(
            kind, []
        )
    words = [*COMMON, "--model.network.depth", "2"]
    if config["data"]["class_path"] == "SNAPDataModule":
        # one batch of one community pair in some hundred: the real graph, cut small
        words += ["--data.data_dir", str(data_dir / "graphs"), "--data.max_community_size", "9"]
        return [*words, "--data.batch_size", "64", "--trainer.limit_train_batches", "2"]
    return [*words, "--data.num_nodes", "60", "--data.train_graphs", "2", "--data.val_graphs", "1",
            "--data.test_graphs", "2"]  # fmt: skip


@pytest.fixture
def run(tmp_path, data_dir, image_dir):
    def _run(name, *words):
        arguments = ["fit", "--config", str(CONFIGS / name), "--runs_dir", str(tmp_path)]
        arguments += tiny(name, data_dir, image_dir)
        assert main([*arguments, *words]) == 0

    return _run


@pytest.mark.parametrize("name", TRAINED)
def test_experiment_runs_one_batch(run, name, tmp_path):
    run(name, "--trainer.fast_dev_run", "1")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("name", TRAINED)
def test_experiment_logs_what_its_claims_read_and_gets_its_sizes_from_the_data(run, name, tmp_path):
    run(name, "--trainer.max_epochs", "1", "--run_id", "tiny")
    (folder,) = tmp_path.glob("*/tiny")
    with (folder / "metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    assert read_by_claims(name) <= logged
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    config = yaml.safe_load((CONFIGS / name).read_text())
    if config["model"]["class_path"] == "ImplicitBias":
        ImplicitBias.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
        return
    if config["model"]["class_path"] == "GraphMatching":
        GraphMatching.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
        return
    hyperparameters = checkpoint["hyper_parameters"]
    if config["model"]["class_path"] == "ImageClassifier":
        loaded = ImageClassifier.load_from_checkpoint(folder / "checkpoints" / "best.ckpt")
        assert loaded.num_classes == len(config["data"]["init_args"].get("classes", range(10)))
        assert hyperparameters["network"]["init_args"]["input_shape"][0] == (1 if "MNIST" in str(config) else 3)
        return
    expected = {"SBMDataModule": config["data"]["init_args"].get("num_classes", 2), "SNAPDataModule": 3}
    num_classes = expected[config["data"]["class_path"]]
    assert hyperparameters["num_classes"] == num_classes
    assert hyperparameters["network"]["init_args"]["num_classes"] == num_classes
    loaded = CommunityDetection.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert loaded.network.num_classes == num_classes


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in {"cifar/relabeled.yaml", "cifar/robustified.yaml"}))
     for name in GENERATED],
)  # fmt: skip
def test_a_set_made_by_one_experiment_trains_another(run, name, tmp_path, image_dir):
    run(GENERATED[name], "--trainer.max_epochs", "1", "--run_id", "source")
    (checkpoint,) = tmp_path.glob("*/source/checkpoints/best.ckpt")
    steps = "--data.attack.steps" if "relabeled" in name else "--data.steps"
    config = yaml.safe_load((CONFIGS / name).read_text())
    words = ["fit", "--config", str(CONFIGS / name), "--runs_dir", str(tmp_path), *COMMON, steps, "2"]
    words += ["--trainer.check_val_every_n_epoch", "1", "--trainer.precision", "32-true", *tiny_callbacks(config)]
    words += ["--data.num_workers", "0", *(["--data.keep", "all"] if "keep" in config["data"]["init_args"] else [])]
    if config["model"]["init_args"]["network"]["class_path"] == "ResNet9":
        words += ["--model.network.width", "2"]
    words += ["--data.checkpoint", str(checkpoint), "--data.data_dir", str(tmp_path / "sets"), "--data.batch_size", "4"]
    words += ["--data.source.data_dir", str(image_dir), "--data.source.val_samples", "4", "--run_id", "made"]
    words += ["--data.source.train_samples", "8", "--data.source.test_samples", "6"]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    (folder,) = tmp_path.glob("*/made")
    with (folder / "metrics.csv").open() as file:
        assert {"test/accuracy", *read_by_claims(name)} <= set(next(csv.reader(file)))
    num_classes = len(config["data"]["init_args"]["source"]["init_args"].get("classes", range(10)))
    assert ImageClassifier.load_from_checkpoint(folder / "checkpoints" / "best.ckpt").num_classes == num_classes
    assert len(list((tmp_path / "sets").iterdir())) == 1


def test_a_generated_sets_run_is_tested_by_its_own_config(run, tmp_path, image_dir):
    run("cifar/airplane_vs_cat_linear.yaml", "--trainer.max_epochs", "1", "--run_id", "source")
    (folder,) = tmp_path.glob("*/source")
    words = ["test", "--config", str(folder / "config.yaml"), "--runs_dir", str(tmp_path), "--ckpt_path", "best"]
    assert main([*words, "--trainer.callbacks+=RobustAccuracy", "--trainer.callbacks.attacks+=PGD"]) == 0


def test_attacks_on_a_trained_network_log_what_their_claim_reads(run, tmp_path, image_dir):
    run("mnist/linf.yaml", "--trainer.max_epochs", "1", "--run_id", "source")
    (checkpoint,) = tmp_path.glob("*/source/checkpoints/best.ckpt")
    claim = load_claims()["mnist-linf"]
    words = ["test", "--config", str(CONFIGS / "mnist/linf_attacks.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += [*claim.runs["autoattack"].overrides[2:], "--ckpt_path", str(checkpoint), "--run_id", "attacked"]
    words += ["--data.data_dir", str(image_dir), "--data.test_samples", "6", "--trainer.callbacks.checks", "0"]
    assert main([*words, "--trainer.callbacks.attacks.attacks", "[apgd-ce]"]) == 0
    with (tmp_path / "mnist_linf_attacks/attacked/metrics.csv").open() as file:
        assert {row.metric for row in claim.rows if row.run == "autoattack"} <= set(next(csv.reader(file)))


def test_qaplib_config_logs_what_its_claim_reads(tmp_path, data_dir):
    words = ["test", "--config", str(CONFIGS / "matching/qaplib.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += ["--data.data_dir", str(data_dir / "qaplib"), "--data.instances", "[nug12, esc16f]", "--run_id", "tiny"]
    seconds = "[{class_path: QAPSolver, init_args: {seconds: 0.3}}, {class_path: ScipyFAQ}, {class_path: ScipyTwoOpt}]"
    words += ["--trainer.callbacks.init_args.solvers", seconds]
    assert main(words) == 0
    with (tmp_path / "qaplib/tiny/metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert {entry.metric for entry in load_claims()["qaplib"].rows} <= set(row)
    assert float(row["test/gap_qapsolver"]) >= 0
    assert float(row["test/solved_qapsolver"]) == 1  # two instances that a blink of tabu search solves


def test_solve_config_writes_a_permutation_and_its_gap(tmp_path, data_dir, capsys):
    words = ["predict", "--config", str(CONFIGS / "matching/solve.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += ["--data.path", str(data_dir / "qaplib/nug12.dat"), "--model.network.seconds", "0.5"]
    assert main(words) == 0
    (path,) = tmp_path.rglob("matching.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["second"]) for row in rows) == list(range(1, 13))
    printed = capsys.readouterr().out
    assert "578" in printed
    assert "0.00" in printed


@pytest.mark.parametrize("name", ["quadratic", "cubic"])
def test_geodesics_configs_log_what_their_claims_read(tmp_path, name):
    words = ["test", "--config", str(CONFIGS / f"geodesics/{name}.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += ["--data.num_samples", "10", "--trainer.callbacks.pairs", "2", "--trainer.callbacks.max_steps", "40"]
    words += ["--trainer.callbacks.lr", "0.1", "--trainer.callbacks.bead_steps", "30", "--run_id", "tiny"]
    with pytest.warns(UserWarning, match="pairs got there in 40 steps|uses the model's initial weights"):
        assert main(words) == 0
    with (tmp_path / f"geodesics_{name}/tiny/metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    assert {row.metric for row in load_claims()[f"geodesics-{name}"].rows} <= logged
    assert list((tmp_path / f"geodesics_{name}/tiny").rglob("geodesics.csv"))


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar10_deep", "ptb", "ptb_deep"])
def test_geodesics_of_large_networks_log_what_their_claims_read(tmp_path, name, image_dir):
    words = ["test", "--config", str(CONFIGS / f"geodesics/{name}.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    if name.startswith("ptb"):
        for part in ("train", "valid", "test"):
            (image_dir / f"ptb.{part}.txt").write_text("the cat sat on the mat\n" * 4)
        words += ["--data.vocabulary_size", "7", "--model.network.width", "3", "--data.steps", "5"]
    else:
        words += ["--data.test_samples", "6", "--data.train_samples", "8"]
    words += ["--data.data_dir", str(image_dir), "--data.batch_size", "4"]
    words += ["--trainer.callbacks.max_steps", "2", "--trainer.callbacks.network_block", "1"]
    words += ["--trainer.callbacks.bead_steps", "2", "--trainer.callbacks.grid", "3", "--run_id", "tiny"]
    with pytest.warns(UserWarning, match="pairs got there in 2 steps|uses the model's initial weights"):
        assert main(words) == 0
    with (tmp_path / f"geodesics_{name}/tiny/metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    claim = load_claims()[f"geodesics-{name.removesuffix('_deep')}"]
    assert {row.metric for row in claim.rows} <= logged


@pytest.mark.parametrize(
    "name", ["counterexample-relu", "curvy-valley", "linear-networks", "permutation-spare-unit", "wide-two-layer"]
)
def test_theorems_hold_on_two_instances_and_log_what_their_claims_read(tmp_path, name):
    claim = load_claims()[name]
    words = ["test", "--config", str(CONFIGS / "geodesics/theorems.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += [*claim.runs["main"].overrides, "--trainer.callbacks.instances", "2", "--run_id", "tiny"]
    with pytest.warns(UserWarning, match="uses the model's initial weights"):
        assert main(words) == 0
    with (tmp_path / "geodesics_theorems/tiny/metrics.csv").open() as file:
        measured = {("main", key): float(value) for key, value in next(csv.DictReader(file)).items() if value}
    assert [judge(row, measured)[0] for row in claim.rows] == ["met"] * len(claim.rows)


#: Options that make the measurements of level sets tiny.
SMALL = {
    "components-quadratic": ("components", ["--data.num_samples", "10", "--trainer.callbacks.networks", "3",
                                            "--trainer.callbacks.max_steps", "40", "--trainer.callbacks.lr", "0.1",
                                            "--trainer.callbacks.bead_steps", "30"]),
    "energy-gap-quadratic": ("energy_gap", ["--trainer.callbacks.pairs", "2", "--trainer.callbacks.path_steps", "3",
                                            "--trainer.callbacks.train_steps", "5"]),
    "energy-gap-relu": ("energy_gap", ["--trainer.callbacks.pairs", "4", "--trainer.callbacks.path_steps", "3",
                                       "--trainer.callbacks.train_steps", "100"]),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_level_set_configs_log_what_their_claims_read(tmp_path, name):
    claim = load_claims()[name]
    config, options = SMALL[name]
    words = ["test", "--config", str(CONFIGS / f"geodesics/{config}.yaml"), "--runs_dir", str(tmp_path), *COMMON]
    words += [*claim.runs["main"].overrides, *options, "--run_id", "tiny"]
    with pytest.warns(UserWarning, match="networks got there|uses the model's initial weights"):
        assert main(words) == 0
    with (tmp_path / f"geodesics_{config}/tiny/metrics.csv").open() as file:
        logged = set(next(csv.reader(file)))
    assert {row.metric for row in claim.rows} <= logged
    assert list((tmp_path / f"geodesics_{config}/tiny/figures/test").glob("*.png"))


def test_prediction_config_labels_a_users_graph(tmp_path, capsys):
    (tmp_path / "graph.gml").write_text(
        "graph [\n"
        + "".join(f'  node [ id {i} label "n{i}" ]\n' for i in range(12))
        + "".join(
            f"  edge [ source {i} target {j} ]\n"
            for i in range(12)
            for j in range(i)
            if (i < 6) == (j < 6) or (i, j) == (6, 5)
        )
        + "]\n"
    )
    words = ["predict", "--config", str(CONFIGS / "community/predict.yaml"), "--runs_dir", str(tmp_path / "runs")]
    words += ["--data.path", str(tmp_path / "graph.gml"), "--trainer.accelerator", "cpu", "--wandb", "disabled"]
    words += ["--trainer.enable_progress_bar", "false"]
    with pytest.warns(UserWarning, match="no callback that writes the predictions"):
        assert main([*words, "--trainer.callbacks", "null"]) == 0
    assert main(words) == 0
    (path,) = (tmp_path / "runs").rglob("communities.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["node"] for row in rows] == [f"n{i}" for i in range(12)]
    labels = [row["community"] for row in rows]
    assert len(set(labels[:6])) == len(set(labels[6:])) == 1
    assert labels[0] != labels[6]
    assert "communities.csv" in capsys.readouterr().out


def test_symmetry_that_is_not_the_datas_is_refused(data_dir, tmp_path, capsys):
    words = ["fit", "--config", str(CONFIGS / "community/snap_dblp.yaml"), "--runs_dir", str(tmp_path / "runs")]
    words += ["--data.data_dir", str(data_dir / "graphs"), "--model.label_permutations", "null", "--wandb", "disabled"]
    assert main(words) == 2
    assert "model.label_permutations is None" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_every_config_says_what_it_shows_its_source_and_its_minutes():
    for name in ALL:
        head = [line for line in (CONFIGS / name).read_text().splitlines() if line.startswith("#")]
        text = " ".join(head)
        assert len(head) >= 3, name
        assert name in UNTRAINED or "Source:" in text, name
        assert "CPU" in text, name
        assert "MINUTES" not in text, name
