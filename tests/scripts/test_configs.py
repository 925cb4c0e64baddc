"""Every shipped experiment runs, at a tiny size, and logs what the claims about it read."""

import csv

import pytest
import torch
import yaml

from theodolite.modules.community import CommunityDetection
from theodolite.scripts.claims import CONFIGS, load_claims
from theodolite.scripts.main import main

ALL = sorted(str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml"))
TRAINED = [name for name in ALL if not name.endswith("predict.yaml")]


def tiny(name, data_dir):
    """Give options that make an experiment tiny without changing which classes it uses."""
    config = yaml.safe_load((CONFIGS / name).read_text())
    words = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    words += ["--trainer.enable_model_summary", "false", "--wandb", "disabled", "--model.network.depth", "2"]
    if config["data"]["class_path"] == "SNAPDataModule":
        # one batch of one community pair in some hundred: the real graph, cut small
        words += ["--data.data_dir", str(data_dir / "graphs"), "--data.max_community_size", "9"]
        return [*words, "--data.batch_size", "64", "--trainer.limit_train_batches", "2"]
    return [*words, "--data.num_nodes", "60", "--data.train_graphs", "2", "--data.val_graphs", "1",
            "--data.test_graphs", "2"]  # fmt: skip


@pytest.fixture
def run(tmp_path, data_dir):
    def _run(name, *words):
        arguments = ["fit", "--config", str(CONFIGS / name), "--runs_dir", str(tmp_path), *tiny(name, data_dir)]
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
    for claim in load_claims().values():
        used = {key for key, experiment in claim.runs.items() if experiment.config == CONFIGS / name}
        wanted = {row.metric for row in claim.rows if row.run in used}
        assert wanted <= logged, f"{claim.id}: {sorted(wanted - logged)}"
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    config = yaml.safe_load((CONFIGS / name).read_text())
    hyperparameters = checkpoint["hyper_parameters"]
    expected = {"SBMDataModule": config["data"]["init_args"].get("num_classes", 2), "SNAPDataModule": 3}
    num_classes = expected[config["data"]["class_path"]]
    assert hyperparameters["num_classes"] == num_classes
    assert hyperparameters["network"]["init_args"]["num_classes"] == num_classes
    loaded = CommunityDetection.load_from_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert loaded.network.num_classes == num_classes


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
        assert name.endswith("predict.yaml") or "Source:" in text, name
        assert "CPU" in text, name
        assert "MINUTES" not in text, name
