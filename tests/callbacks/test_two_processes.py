"""The measurements of classifiers on two processes are those on one, to the last count."""

import csv

import pytest
from pytorch_lightning import Trainer

from theodolite.callbacks import CertifiedAccuracy, RobustAccuracy, Transferability
from theodolite.modules.attacks import PGD

from .classifiers import StockClassifier, loader, trainer

TABLES = ("robust_accuracy", "robust_accuracy_per_class", "robust_accuracy_checks", "certified_accuracy_sigma_0.25",
          "transfer_accuracy")  # fmt: skip


@pytest.mark.ddp
def test_two_processes_are_one(tmp_path):
    """21 samples without numbers: Lightning's sampler repeats one, which must not count."""
    saved = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_model_summary=False)
    saved.strategy.connect(StockClassifier())
    saved.save_checkpoint(tmp_path / "other.ckpt")
    found = []
    for name, arguments in (("one", {}), ("two", {"devices": 2, "strategy": "ddp_spawn"})):
        measures = [
            RobustAccuracy(PGD(eps=0.5, steps=5), checks=10),
            CertifiedAccuracy(n0=50, n=200, alpha=0.01, max_samples=15),
            Transferability(PGD(eps=0.5, steps=5), {"other": str(tmp_path / "other.ckpt")}),
        ]
        runner = trainer(tmp_path / name, *measures, **arguments)
        result = runner.test(StockClassifier(), loader(), verbose=False)[0]
        tables = {}
        for key in TABLES:
            with (tmp_path / name / f"tables/test/{key}.csv").open() as file:
                tables[key] = list(csv.DictReader(file))
        found.append((result, tables))
    one, two = found
    assert one == two
    accuracy = two[1]["robust_accuracy"]
    assert [row["samples"] for row in accuracy] == ["21", "21"]
    assert 0 < int(accuracy[1]["correct"]) < int(accuracy[0]["correct"]) < 21
    assert len(two[1]["certified_accuracy_sigma_0.25"]) == 15
    assert len({row["radius"] for row in two[1]["certified_accuracy_sigma_0.25"]}) > 5
    assert two[1]["robust_accuracy_checks"][0]["samples"] in ("8", "9", "10")  # of ten, those that are right
