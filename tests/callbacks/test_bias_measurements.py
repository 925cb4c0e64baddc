"""What the bias callbacks log, against values computed by hand, and that they leave training as it is."""

import csv
import math

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from theodolite.callbacks import HomogeneousBias, InterpolationBias, MarginBias
from theodolite.datamodules import MatrixSensingDataModule, SeparableDataModule, UnderdeterminedDataModule
from theodolite.modules.bias import (
    Dense,
    DiagonalProduct,
    FullyConnected,
    ImplicitBias,
    MatrixFactorization,
    MirrorDescent,
    SteepestDescent,
)


def train(tmp_path, task, data, callback, epochs=5):
    callbacks = [callback] if callback else []
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=epochs, log_every_n_steps=1, callbacks=callbacks,
                      logger=CSVLogger(tmp_path, name="", version=""), enable_progress_bar=False, accelerator="cpu",
                      enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(task, data)
    (logged,) = trainer.test(task, data, verbose=False)
    return logged


def steepest(**options):
    return lambda parameters: SteepestDescent(parameters, batch_dims=1, **options)


def batch(data):
    return next(iter(data.train_dataloader()))


def test_nearest_solution_is_reached_and_mean_error_and_range_are_those_of_the_runs(tmp_path):
    data = UnderdeterminedDataModule(problems=3, normalize="spectral")
    torch.manual_seed(0)
    task = ImplicitBias(Dense(20, 3, init_std=1.0), steps=500, optimizer=steepest(lr=1.0))
    logged = train(tmp_path, task, data, InterpolationBias("l2"))
    problems = batch(data)
    beta = task.predictor.beta().detach()
    distances = []
    for x, y, start, w in zip(problems.x, problems.y, task.start, beta):
        nearest = start + torch.linalg.pinv(x) @ (y - x @ start)
        distances.append((w - nearest).norm() / nearest.norm())
    distances = torch.stack(distances)
    assert logged["test/distance"] == pytest.approx(float(distances.mean()), rel=1e-6, abs=1e-14)
    assert logged["test/distance_max"] <= 1e-6
    norms = beta.norm(dim=1)
    assert logged["test/norm_min"] == pytest.approx(float(norms.min()))
    assert logged["test/norm_stderr"] == pytest.approx(float(norms.std() / 3**0.5))
    assert logged["test/span_residual_max"] <= 1e-12
    with (tmp_path / "tables/test/interpolation_bias.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["norm"]) for row in rows] == pytest.approx(norms.tolist())
    assert (tmp_path / "figures/test/interpolation_bias.png").is_file()


def test_optimizers_that_leave_the_row_space_are_found_out(tmp_path):
    data = UnderdeterminedDataModule(problems=2, normalize="spectral")
    task = ImplicitBias(Dense(20, 2), steps=200, optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    logged = train(tmp_path, task, data, InterpolationBias("l2"))
    assert logged["test/span_residual_min"] > 1e-2


def test_step_sizes_are_compared_problem_by_problem(tmp_path):
    data = UnderdeterminedDataModule(problems=2, repeats=2)
    optimizer = lambda p: MirrorDescent(p, lr=[0.001, 0.01], batch_dims=1)  # noqa: E731
    task = ImplicitBias(Dense(20, 4), steps=30, optimizer=optimizer)
    logged = train(tmp_path, task, data, InterpolationBias("lp", p=2.0))
    beta = task.predictor.beta().detach()
    gaps = [(beta[i] - beta[j]).norm() / beta[i].norm() for i, j in ((0, 2), (1, 3), (2, 0), (3, 1))]
    assert logged["test/step_spread_min"] == pytest.approx(float(min(gaps)))
    assert logged["test/step_spread_max"] == pytest.approx(float(max(gaps)))
    assert logged["test/distance_ratio_min"] > 1


def test_margin_of_a_given_rule_is_measured_in_its_norm(tmp_path):
    data = SeparableDataModule(problems=2)
    torch.manual_seed(0)
    task = ImplicitBias(Dense(8, 2), "log_exponential", steps=100, optimizer=steepest(lr=0.1, norm="l1"))
    logged = train(tmp_path, task, data, MarginBias("l1"))
    problems = batch(data)
    beta = task.predictor.beta().detach()
    margins = ((problems.x @ beta.unsqueeze(-1)).squeeze(-1) * problems.y).amin(1)
    import cvxpy

    ratios = []
    for run in range(2):
        w = cvxpy.Variable(8)
        z = (problems.x[run] * problems.y[run].unsqueeze(1)).numpy()
        gamma = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(z @ w)), [cvxpy.norm1(w) <= 1]).solve()
        ratios.append(float(margins[run] / beta[run].abs().sum()) / gamma)
    assert logged["test/margin_ratio"] == pytest.approx(sum(ratios) / 2, rel=1e-5)
    assert logged["test/certificate_max"] <= logged["test/margin_ratio_max"] + 1e-12
    assert logged["test/svm_ratio_max"] <= 1 + 1e-9


def test_exponent_of_a_gap_is_that_of_its_power_of_log_t():
    callback = MarginBias()
    for steps in (10, 99, 100, 300, 300, 1000, 5000):  # one point in time twice: the test at the end
        before = 9.0 if steps < 100 else 0.0  # what is not asymptotic yet does not count
        gap = torch.tensor([2 / math.log(steps) + before, 3 * math.log(steps) ** -2.5], dtype=torch.float64)
        exponent = callback._gap_exponent(gap, steps)
        if steps <= 100:
            assert exponent.tolist() == [0, 0]
    assert exponent.tolist() == pytest.approx([-1, -2.5], rel=1e-9)


def test_a_rule_that_is_zero_has_no_margin(tmp_path):
    task = ImplicitBias(Dense(8, 2), "logistic", steps=2, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    with pytest.raises(ValueError, match="the rule of a run is zero after 1 steps, so it has no margin"):
        train(tmp_path, task, SeparableDataModule(problems=2), MarginBias(), epochs=2)


def test_length_of_a_straight_path_is_the_distance(tmp_path):
    data = SeparableDataModule(num_samples=1, problems=1)  # one sample: every step goes along it
    task = ImplicitBias(Dense(8, 1), "logistic", steps=300, optimizer=steepest(lr=1.0))
    logged = train(tmp_path, task, data, MarginBias("l2"))
    assert logged["test/path_length"] == pytest.approx(float(task.predictor.beta().detach().norm()))
    assert logged["test/margin_ratio"] == pytest.approx(1)
    assert logged["test/l2_angle"] == pytest.approx(0, abs=1e-6)
    assert logged["test/ratio_drop_max"] <= 1e-12


def test_layers_of_rank_one_are_seen_as_such(tmp_path):
    torch.manual_seed(0)
    predictor = FullyConnected(8, 1, depth=2)
    with torch.no_grad():
        predictor.layers[0].copy_(torch.outer(torch.arange(8.0), torch.ones(8)).unsqueeze(0))
        predictor.layers[1].copy_(torch.arange(8.0).view(1, 1, 8))
    task = ImplicitBias(predictor, "log_exponential", steps=1, track_margin=True, optimizer=steepest(lr=1e-12))
    logged = train(tmp_path, task, SeparableDataModule(problems=1), HomogeneousBias(), epochs=1)
    assert logged["test/rank_ratio"] == pytest.approx(0, abs=1e-9)
    assert logged["test/alignment"] == pytest.approx(1)
    assert logged["test/margin_decrease"] == 0
    assert logged["test/sandwich"] <= 1e-12


def test_norm_that_diverges_like_a_power_of_the_loss_is_recognised(tmp_path):
    data = MatrixSensingDataModule(measurements="completion", problems=1)
    task = ImplicitBias(MatrixFactorization(2, symmetric=False, scale=0.01), steps=3000, optimizer=steepest(lr=0.005))
    logged = train(tmp_path, task, data, InterpolationBias("none"), epochs=30)
    assert logged["test/norm_exponent"] == pytest.approx(-0.5, abs=0.02)
    assert logged["test/norm"] > 2


def test_training_with_and_without_the_callbacks_is_the_same(tmp_path):
    ends = []
    for callback in (None, HomogeneousBias(), MarginBias("l1")):
        torch.manual_seed(0)
        task = ImplicitBias(DiagonalProduct(8, 2), "log_exponential", steps=20, optimizer=steepest(lr=0.1))
        train(tmp_path / type(callback).__name__, task, SeparableDataModule(problems=2), callback)
        ends.append(task.predictor.beta().detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_state_comes_back_from_a_checkpoint(tmp_path):
    callback = MarginBias("l2")
    task = ImplicitBias(Dense(8, 2), "logistic", steps=50, optimizer=steepest(lr=1.0))
    train(tmp_path, task, SeparableDataModule(problems=2), callback)
    torch.save(callback.state_dict(), tmp_path / "state")
    other = MarginBias("l2")
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    values = [one.measure(task, batch(SeparableDataModule(problems=2)), 50) for one in (callback, other)]
    for key, value in values[0].items():
        torch.testing.assert_close(value, values[1][key], equal_nan=True)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: InterpolationBias("lp", p=1.0), "p must be above 1"),
        (lambda: InterpolationBias(depth=1), "depth=1"),
        (lambda: MarginBias("lp", p=1.0), "above 1"),
        (lambda: HomogeneousBias(near=0.9), "near=0.9"),
    ],
)
def test_wrong_settings_are_refused_at_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
