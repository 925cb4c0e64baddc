"""What every comparison has in common, on samples that are numbers and methods that multiply them."""

import csv

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from theodolite.callbacks.comparison import Comparison, draw_comparison, snake_case, words
from theodolite.callbacks.held_out import gather_rows


class Numbers(LightningModule):
    """Learn one weight, and log the mean of the samples in validation and test."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        return (self.weight * batch[1]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/value", batch[1].mean(), batch_size=len(batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test/value", batch[1].mean(), batch_size=len(batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Multiples(Comparison):
    """Measure each sample, and twice the sample as another method; the sign is the group."""

    logged_by_module = ("value",)

    def __init__(self, group_by="sign", every_n_epochs=0, numbered=True, factors=(2,)):
        super().__init__(["value", "square"], group_by, every_n_epochs)
        self.numbered = numbered
        self.factors = factors

    def methods(self, pl_module):
        return {"": "module", **{f"times_{factor}": f"times {factor}" for factor in self.factors}}

    def measure(self, pl_module, batch):
        numbers, values = batch
        results = torch.stack([values, *(factor * values for factor in self.factors)], dim=1)
        numbers = numbers.float() if self.numbered else torch.full_like(values, torch.nan)
        groups = values.sign() if self.group_by else torch.zeros_like(values)
        return numbers, groups, torch.stack([results, results.square()], dim=2)

    def published(self, metric):
        return {"paper": {1.0 + 1e-9: 2.5}} if metric == "value" else {}


VALUES = torch.tensor([1.0, -1.0, 2.0, 6.0, -3.0])


def loader(numbers=range(5)):
    numbers = torch.tensor(list(numbers))
    return DataLoader(TensorDataset(numbers, VALUES[numbers]), batch_size=2)


def trainer(tmp_path, callback, **arguments):
    return Trainer(
        accelerator="cpu",
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **arguments,
    )


def test_means_and_standard_errors_by_hand(tmp_path):
    """Positive: 1, 2, 6, mean 3, variance 7. Negative: -1, -3, mean -2, variance 2."""
    result = trainer(tmp_path, Multiples()).test(Numbers(), loader(), verbose=False)[0]
    expected = {
        "test/value/sign_1": 3,
        "test/value/sign_1_stderr": (7 / 3) ** 0.5,
        "test/value_times_2/sign_1": 6,
        "test/value_times_2/sign_1_stderr": 2 * (7 / 3) ** 0.5,
        "test/value/sign_-1": -2,
        "test/value/sign_-1_stderr": 1,
        "test/square/sign_-1": 5,
        "test/square_times_2/sign_-1": 20,
    }
    for key, value in expected.items():
        assert result[key] == pytest.approx(value, abs=1e-6), key
    with (tmp_path / "tables/test/value.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["sign"], row["samples"], row["module"], row["paper"]) for row in rows] == [
        ("-1", "2", "-2.0", ""),
        ("1", "3", "3.0", "2.5"),
    ]
    with (tmp_path / "tables/test/square.csv").open() as file:
        assert "paper" not in next(csv.reader(file))


def test_samples_that_a_sampler_repeats_count_once_unless_they_have_no_number(tmp_path):
    repeated = loader([0, 1, 2, 3, 4, 3, 3])
    result = trainer(tmp_path / "a", Multiples()).test(Numbers(), repeated, verbose=False)[0]
    assert result["test/square/sign_1"] == pytest.approx((1 + 4 + 36) / 3)
    result = trainer(tmp_path / "b", Multiples(numbered=False)).test(Numbers(), repeated, verbose=False)[0]
    assert result["test/square/sign_1"] == pytest.approx((1 + 4 + 3 * 36) / 5)


def test_without_groups_what_the_module_logs_is_logged_once(tmp_path):
    result = trainer(tmp_path, Multiples(group_by=None)).test(Numbers(), loader(), verbose=False)[0]
    assert set(result) == {
        "test/value",  # by the module
        "test/value_stderr",
        "test/square",
        "test/square_stderr",
        *(f"test/{metric}_times_2{end}" for metric in ("value", "square") for end in ("", "_stderr")),
    }
    assert result["test/square"] == pytest.approx((1 + 1 + 4 + 36 + 9) / 5)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(("every", "epochs"), [(0, []), (1, [0, 1, 2, 3, 4]), (2, [1, 3])])
def test_validation_within_fit_in_the_epochs_asked_for(tmp_path, every, epochs):
    trainer(tmp_path, Multiples(every_n_epochs=every), max_epochs=5).fit(Numbers(), loader(), loader())
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    measured = [int(row["epoch"]) for row in rows if row.get("val/square/sign_1")]
    assert measured == epochs
    assert all(float(row["val/square/sign_1"]) == pytest.approx(41 / 3) for row in rows if row.get("val/square/sign_1"))


def test_the_sanity_check_is_not_measured(tmp_path):
    stages = []

    class Watched(Multiples):
        def measure(self, pl_module, batch):
            stages.append(pl_module.trainer.state.stage.value)
            return super().measure(pl_module, batch)

    callback = Watched(every_n_epochs=1)
    trainer(tmp_path, callback, max_epochs=1, num_sanity_val_steps=2).fit(Numbers(), loader(), loader())
    assert stages == ["validate"] * 3  # five samples in batches of two


def test_validate_measures_without_being_asked_and_forgets_the_time_before(tmp_path):
    callback = Multiples(numbered=False)  # numbered samples would be dropped as repeats
    runner = trainer(tmp_path, callback)
    for _ in range(2):
        result = runner.validate(Numbers(), loader(), verbose=False)[0]
        assert result["val/square/sign_1"] == pytest.approx(41 / 3)
    with (tmp_path / "tables/val/value.csv").open() as file:
        assert [row["samples"] for row in csv.DictReader(file)] == ["2", "3"]
    for _ in range(2):
        runner.test(Numbers(), loader(), verbose=False)
    with (tmp_path / "tables/test/value.csv").open() as file:
        assert [row["samples"] for row in csv.DictReader(file)] == ["2", "3"]


@pytest.mark.parametrize(("factors", "beside"), [((2, 3, 4), False), ((2, 3, 4, 5), True)])
def test_a_long_legend_stands_beside_the_curves(tmp_path, monkeypatch, factors, beside):
    """Six curves with the published one are too many to lie over the figure, five are not."""
    figures = {}
    monkeypatch.setattr(
        "theodolite.callbacks.comparison.log_figure", lambda _, key, figure: figures.setdefault(key, figure)
    )
    trainer(tmp_path, Multiples(factors=factors)).test(Numbers(), loader(), verbose=False)
    axes = figures["test/value"].axes[0]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(texts) == sorted(["module", *(f"times {factor}" for factor in factors), "paper"])
    left = axes.get_legend().get_bbox_to_anchor().transformed(axes.transAxes.inverted()).x0
    assert (left > 1) == beside


def test_curves_have_the_means_and_the_published_values():
    groups = [(0.0, torch.tensor([[1.0, 2.0], [3.0, 2.0]])), (0.5, torch.tensor([[5.0, 6.0]]))]
    axes = draw_comparison(groups, ["ours", "other"], "noise", "accuracy", {"paper": {0.0: 0.5, 0.5: 0.25}}).axes[0]
    curves = [line.get_xydata().tolist() for line in axes.get_lines() if len(line.get_xydata()) == 2]
    assert [[0, 2], [0.5, 5]] in curves
    assert [[0, 2], [0.5, 6]] in curves
    assert [[0, 0.5], [0.5, 0.25]] in curves
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("noise", "accuracy")


def test_rows_are_ordered_by_their_number():
    rows = torch.tensor([[3.0, 30.0], [1.0, 10.0], [2.0, 20.0], [1.0, 10.0]])
    assert gather_rows(rows)[:, 1].tolist() == [10, 20, 30]
    assert gather_rows(rows[:0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("name", "key", "spoken"),
    [
        ("BetheHessian", "bethe_hessian", "Bethe Hessian"),
        ("FAQ", "faq", "FAQ"),
        ("ScipyFAQ", "scipy_faq", "Scipy FAQ"),
        ("FAQ, 20 starts", "faq_20_starts", "FAQ, 20 starts"),
        ("SiameseGNN + FAQ", "siamese_gnn_faq", "Siamese GNN + FAQ"),
    ],
)
def test_keys_and_titles_from_names(name, key, spoken):
    assert snake_case(name) == key
    assert words(name) == spoken


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match=r"Multiples\(every_n_epochs=-1\)"):
        Multiples(every_n_epochs=-1)
