"""The task: side by side is as alone, points in time, resume, and what it refuses."""

import itertools

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Trainer

from theodolite.datamodules import SeparableDataModule, UnderdeterminedDataModule
from theodolite.modules.bias import Dense, FullyConnected, ImplicitBias, ReLUNetwork, SteepestDescent
from theodolite.modules.bias.losses import log_exponential_loss
from theodolite.modules.bias.stationarity import kkt_residual


def trainer(tmp_path, **options):
    return Trainer(default_root_dir=tmp_path, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                   enable_model_summary=False, accelerator="cpu", **options)  # fmt: skip


def sgd(lr):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr)


def test_run_side_by_side_ends_where_a_plain_loop_ends(tmp_path):
    data = UnderdeterminedDataModule(problems=3, normalize="spectral")
    task = ImplicitBias(Dense(20, 3), steps=50, optimizer=sgd(0.5))
    trainer(tmp_path, max_epochs=4).fit(task, data)
    batch = next(iter(data.train_dataloader()))
    for x, y, beta in zip(batch.x, batch.y, task.predictor.beta().detach()):
        w = torch.zeros(20, dtype=torch.float64)
        for _ in range(50):
            w = w - 0.5 * x.T @ (x @ w - y)
        torch.testing.assert_close(beta, w, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("objective", ["exponential", "logistic", "log_exponential", "log_logistic"])
@pytest.mark.parametrize("network", [FullyConnected, ReLUNetwork])
def test_closed_form_steps_are_those_of_the_loss(tmp_path, objective, network):
    torch.manual_seed(0)
    data = SeparableDataModule(problems=2)
    task = ImplicitBias(network(8, 2), objective=objective, steps=6, optimizer=sgd(0.01))
    reference = ImplicitBias(network(8, 2), objective=objective)
    reference.predictor.load_state_dict(task.predictor.state_dict())
    trainer(tmp_path, max_epochs=1).fit(task, data)
    batch = next(iter(data.train_dataloader()))
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01)
    for _ in range(6):
        optimizer.zero_grad()
        reference.loss(batch).backward()
        optimizer.step()
    for ours, theirs in zip(task.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_one_sample_a_step_goes_through_all_samples_in_turn(tmp_path):
    data = UnderdeterminedDataModule(problems=2)
    task = ImplicitBias(Dense(20, 2), steps=9, instancewise=True, optimizer=sgd(0.01))
    trainer(tmp_path, max_epochs=3).fit(task, data)
    batch = next(iter(data.train_dataloader()))
    w = torch.zeros(20, dtype=torch.float64)
    for t in range(9):
        x, y = batch.x[1, t % 6], batch.y[1, t % 6]
        w = w - 0.01 * (x @ w - y) * x
    torch.testing.assert_close(task.predictor.beta()[1].detach(), w, rtol=1e-12, atol=1e-14)


def test_points_in_time_are_distinct_and_end_at_the_last_step(tmp_path):
    task = ImplicitBias(Dense(20, 5), steps=1000, optimizer=sgd(0.01))
    task.trainer = trainer(tmp_path, max_epochs=40)
    points = [task.steps_after(epoch) for epoch in range(41)]
    assert points[0] == 0
    assert points[-1] == 1000
    assert all(later > earlier for earlier, later in itertools.pairwise(points))


def test_a_run_resumed_in_the_middle_ends_bit_for_bit_the_same(tmp_path):
    def fit(task, epochs, ckpt=None):
        engine = trainer(tmp_path, max_epochs=epochs)
        if ckpt is None and epochs == 2:
            task.steps_after = lambda epoch: [0, 3, 10][epoch]  # as in the longer run
        engine.fit(task, SeparableDataModule(problems=2), ckpt_path=ckpt)
        return engine

    def make():
        torch.manual_seed(0)
        return ImplicitBias(
            FullyConnected(8, 2), "log_exponential", steps=100, track_margin=True,
            optimizer=lambda parameters: SteepestDescent(parameters, lr=0.05, norm_power=2.0, batch_dims=1),
        )  # fmt: skip

    whole = make()
    fit(whole, 4)
    half = make()
    fit(half, 2).save_checkpoint(tmp_path / "half.ckpt")
    other = make()
    fit(other, 4, tmp_path / "half.ckpt")
    assert whole.steps_after(2) == 10
    for name, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_decrease_of_the_smoothed_margin_is_seen_in_every_step():
    torch.manual_seed(0)
    task = ImplicitBias(ReLUNetwork(8, 2), "log_exponential", track_margin=True)
    with torch.no_grad():
        for parameter in task.predictor.parameters():
            parameter.fill_(1.0)
    norm = task.parameter_norm()
    expected = torch.zeros(2, dtype=torch.float64)
    best = torch.full((2,), -torch.inf, dtype=torch.float64)
    for scale in (1.0, 3.0, 2.0, 5.0, 4.9):
        margins = scale * torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
        task._track(margins)
        smooth = -log_exponential_loss(margins) / norm**2
        for run in range(2):
            if smooth[run] > 0:
                if best[run] > 0:
                    expected[run] = max(expected[run], (best[run] - smooth[run]) / best[run])
                best[run] = max(best[run], smooth[run])
    torch.testing.assert_close(task.largest_decrease, expected)
    assert float(expected.min()) > 0


def test_kkt_residual_is_zero_at_the_support_vector_machine_and_not_elsewhere():
    z = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [9.0, 9.0]]], dtype=torch.float64)
    y = torch.tensor([[1.0, -1.0, 1.0]], dtype=torch.float64)
    predictor = Dense(2)
    for rule, expected in (([1.0, 1.0], 0.0), ([5.0, 5.0], 0.0), ([2.0, 1.0], 1 / 5**0.5)):
        with torch.no_grad():
            predictor.weight.copy_(torch.tensor([rule]))
        got = kkt_residual(predictor, z * y.unsqueeze(-1), y)
        # (2, 1): only the second sample is near the least margin, its gradient is (0, 2)
        torch.testing.assert_close(got, torch.tensor([2 * expected], dtype=torch.float64))
    with torch.no_grad():
        predictor.weight.copy_(torch.tensor([[-1.0, 1.0]]))
    assert kkt_residual(predictor, z * y.unsqueeze(-1), y).tolist() == [1.0]


def test_kkt_point_with_units_at_kinks_is_known_by_its_subdifferential():
    """Two samples, two units, each orthogonal to the sample of the other: w1 = x1 - s x2 with s in (0, 1)."""
    x = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=torch.float64)
    y = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    inputs = torch.cat([x[0], torch.ones(2, 1, dtype=torch.float64)], 1)
    share = float(inputs[0] @ inputs[1] / inputs[0].square().sum())
    units = torch.stack([inputs[0] - share * inputs[1], inputs[1] - share * inputs[0]], 1)
    predictor = ReLUNetwork(2, width=2)
    with torch.no_grad():
        predictor.layers[0].copy_(units)
        predictor.layers[1].copy_(torch.tensor([[[1.0], [-1.0]]]) * units[:, 0].norm())
    assert float(kkt_residual(predictor, x, y)) > 0.1
    assert float(kkt_residual(predictor, x, y, radius=1e-4)) < 1e-3
    with torch.no_grad():
        predictor.layers[0][0, 0, 0] *= 1.2
    assert float(kkt_residual(predictor, x, y, radius=1e-4)) > 0.02


def test_a_small_radius_hardly_changes_the_residual_of_a_smooth_predictor():
    torch.manual_seed(0)
    predictor = FullyConnected(3, 2, depth=2)
    x = torch.randn(2, 6, 3, dtype=torch.float64)
    y = predictor(x).detach().sign()
    plain, wide = (kkt_residual(predictor, x, y, near=1e9, radius=radius) for radius in (0.0, 1e-6))
    torch.testing.assert_close(plain, wide, atol=1e-5, rtol=0)
    assert float(plain.min()) > 1e-3


def test_settings_that_cannot_be_trained_are_refused(tmp_path):
    with pytest.raises(ValueError, match="steps=0"):
        ImplicitBias(Dense(8), steps=0)
    with pytest.raises(ValueError, match="squared loss has no margin"):
        ImplicitBias(Dense(8), track_margin=True)
    with pytest.raises(MisconfigurationException, match="1 to steps=3"):
        trainer(tmp_path, max_epochs=4).fit(ImplicitBias(Dense(20, 5), steps=3), UnderdeterminedDataModule())
    shared = ImplicitBias(Dense(20, 5), steps=3, optimizer=lambda p: SteepestDescent(p, norm="l1"))
    with pytest.raises(ValueError, match=r"SteepestDescent\(batch_dims=0\): the 5 runs .* give .*batch_dims 1"):
        trainer(tmp_path, max_epochs=1).fit(shared, UnderdeterminedDataModule())
    with pytest.raises(ValueError, match=r"data have 5 runs.*--model\.predictor\.runs 5"):
        trainer(tmp_path, max_epochs=1).fit(ImplicitBias(Dense(20, 2)), UnderdeterminedDataModule())
