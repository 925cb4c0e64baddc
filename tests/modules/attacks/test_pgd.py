"""PGD against closed forms, brute force, another library, and everything it must leave alone."""

import pytest
import torch
from torch import nn

from theodolite.modules.attacks import FGSM, PGD, cross_entropy, logit_gap, perturbation_norm, pgd

from .networks import images, linear, small_cnn


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_margin_of_a_linear_model_drops_by_eps_times_the_dual_norm(norm, dual):
    model = linear()
    weight = model[1].weight.detach()
    x = torch.full((4, 6), 0.5, dtype=torch.float64)
    y = torch.tensor([0, 1, 0, 1])
    changed = pgd(model, x, y, norm=norm, eps=0.3, steps=200, step_size=0.05, objective=logit_gap)
    drop = logit_gap(model(changed), y) - logit_gap(model(x), y)
    expected = 0.3 * (weight[0] - weight[1]).norm(p=dual)
    torch.testing.assert_close(drop, expected.expand(4))


def test_fgsm_is_the_corner_of_the_cube():
    model = linear(seed=1)
    x = torch.full((1, 6), 0.5, dtype=torch.float64)
    gradient = model[1].weight[1] - model[1].weight[0]
    for eps in (0.1, 0.8):  # the box cuts the second
        expected = (x + eps * gradient.sign()).clamp(0, 1)
        torch.testing.assert_close(FGSM(eps)(model, x, torch.tensor([0])), expected.detach())


def test_pgd_finds_the_worst_of_a_grid_in_two_dimensions():
    """A network of two inputs, where the ball can be searched exhaustively."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3)).double()
    x, y = torch.rand(6, 2, dtype=torch.float64), torch.randint(3, (6,))
    angles, radii = torch.linspace(0, 2 * torch.pi, 721).double(), torch.linspace(0, 0.2, 41).double()
    disc = (radii[:, None, None] * torch.stack([angles.cos(), angles.sin()], dim=1)).reshape(-1, 2)
    changed = pgd(model, x, y, eps=0.2, steps=200, step_size=0.01, restarts=3, objective=cross_entropy)
    for i in range(6):
        searched = (x[i] + disc).clamp(0, 1)
        worst = cross_entropy(model(searched), y[i].expand(len(searched)))
        is_fooled = model(searched).argmax(1) != y[i]
        assert (model(changed)[i].argmax() != y[i]) == is_fooled.any()
        if not is_fooled.any():
            assert cross_entropy(model(changed[i : i + 1]), y[i : i + 1]) >= worst.max() - 1e-3


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_ball_and_box_hold(norm, targeted, keep):
    x, y, number = images()
    x[0], x[1] = 0.0, 1.0
    changed = pgd(
        small_cnn(), x, y, norm=norm, eps=0.4, steps=5, targeted=targeted, keep=keep, restarts=2, sample_id=number
    )
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert perturbation_norm(changed - x, norm).max() <= 0.4 * (1 + 1e-5)
    assert perturbation_norm(changed - x, norm).max() > 0.1
    assert not changed.requires_grad


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_iterates_are_those_of_foolbox(norm):
    foolbox = pytest.importorskip("foolbox")
    model, (x, y, _) = small_cnn().eval(), images(20)
    attack = {"l2": foolbox.attacks.L2PGD, "linf": foolbox.attacks.LinfPGD}[norm]
    theirs = attack(abs_stepsize=0.05, steps=20, random_start=False)
    expected, _, _ = theirs(foolbox.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=0.4)
    ours = pgd(model, x, y, norm=norm, eps=0.4, step_size=0.05, steps=20, random_start=False, keep="last")
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_result_does_not_depend_on_batch_order_or_global_random_state(norm):
    model = small_cnn(dtype=torch.float64).eval()
    x, y, number = images(12, dtype=torch.float64)
    settings = {"norm": norm, "eps": 0.3, "steps": 5, "restarts": 2}
    together = pgd(model, x, y, sample_id=number, **settings)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    for size in (1, 5):
        for part in order.split(size):
            alone = pgd(model, x[part], y[part], sample_id=number[part], **settings)
            torch.testing.assert_close(alone, together[part], rtol=0, atol=1e-12)
    assert torch.equal(torch.get_rng_state(), state)
    other = pgd(model, x, y, sample_id=number, seed=1, **settings)
    assert not torch.equal(other, together)


def test_a_random_start_without_sample_numbers_follows_the_global_seed():
    model, (x, y, _) = small_cnn().eval(), images()
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        results.append(pgd(model, x, y, steps=2))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_more_restarts_never_help_the_model_and_never_lose_a_success():
    model, (x, y, number) = small_cnn(seed=3).eval(), images(60)
    y = model(x).argmax(1)
    fooled = []
    for restarts in (1, 2, 6):
        changed = pgd(model, x, y, norm="linf", eps=0.04, steps=2, restarts=restarts, sample_id=number)
        fooled.append(model(changed).argmax(1) != y)
    assert 0 < fooled[0].sum() < fooled[2].sum() < 60
    assert (fooled[1] | ~fooled[0]).all()
    assert (fooled[2] | ~fooled[1]).all()


def test_the_best_iterate_is_no_worse_than_the_last():
    """A step far too large oscillates over the optimum: of all iterates the last is not the best."""
    model = small_cnn(seed=1).eval()
    x, y, _ = images(40)
    settings = {"norm": "l2", "eps": 2.0, "step_size": 4.0, "steps": 7, "random_start": False}
    best, last = (pgd(model, x, y, keep=keep, **settings) for keep in ("best", "last"))
    fooled = [model(changed).argmax(1) != y for changed in (best, last)]
    assert (fooled[0] | ~fooled[1]).all()
    same = fooled[0] == fooled[1]
    value = [cross_entropy(model(changed), y) for changed in (best, last)]
    assert (value[0] >= value[1] - 1e-6)[same].all()
    assert (value[0] > value[1] + 1e-3).any()


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2**0.5), ("linf", 2)])
def test_a_target_is_reached_beyond_its_distance_and_not_before(norm, dual):
    """Inputs are logits: the other class is (x_0 - x_1) / sqrt 2 away in l2, half of it in linf."""
    x = torch.tensor([[0.7, 0.4], [0.55, 0.5], [0.3, 0.6]], dtype=torch.float64)
    target = x.argmin(1)
    distance = (x[:, 0] - x[:, 1]).abs() / dual
    for factor, reached in ((0.98, False), (1.02, True)):
        changed = pgd(nn.Identity(), x, target, norm=norm, eps=factor * distance, steps=40, targeted=True)
        assert ((changed.argmax(1) == target) == reached).all()


def test_any_objective_without_a_ball():
    """Match a representation from another image, as robustified data sets do; a convex problem here."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double()
    source, wanted = images(8, dtype=torch.float64)[0], images(8, seed=1, dtype=torch.float64)[0]
    goal = features(wanted).detach()

    def distance(output, y):
        return (output - y).norm(dim=1)

    changed = pgd(
        features, source, goal, eps=float("inf"), step_size=0.02, steps=300, random_start=False, targeted=True,
        objective=distance,
    )  # fmt: skip
    assert distance(features(source), goal).min() > 0.1
    assert distance(features(changed), goal).max() < 0.02  # one step's change
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_a_mask_protects_pixels():
    model, (x, y, number) = small_cnn().eval(), images()
    mask = torch.zeros(1, 8, 8)
    mask[:, :4] = 1
    for norm in ("l2", "linf"):
        changed = pgd(model, x, y, norm=norm, eps=0.5, mask=mask, sample_id=number, restarts=2)
        assert torch.equal(changed[:, :, 4:], x[:, :, 4:])
        assert (changed[:, :, :4] != x[:, :, :4]).any()


def test_a_radius_a_sample():
    model, (x, y, number) = small_cnn().eval(), images()
    eps = torch.linspace(0, 1, len(x))
    changed = pgd(model, x, y, eps=eps, sample_id=number, restarts=2)
    assert (perturbation_norm(changed - x, "l2") <= eps * (1 + 1e-5)).all()
    assert torch.equal(changed[0], x[0])
    alone = pgd(model, x[3:4], y[3:4], eps=float(eps[3]), sample_id=number[3:4], restarts=2)
    torch.testing.assert_close(changed[3:4], alone, atol=1e-3, rtol=0)


def test_flat_losses_do_not_move_or_turn_into_nan():
    x, y, _ = images(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(model[1].weight)
    assert torch.equal(pgd(model, x, y, random_start=False), x)
    nan = pgd(lambda x: torch.stack([x.sum((1, 2, 3)).sub(1e9).sqrt()] * 4, dim=1), x, y, random_start=False)
    assert torch.equal(nan, x)


def test_an_empty_batch_stays_empty():
    model, (x, y, number) = small_cnn().eval(), images()
    assert pgd(model, x[:0], y[:0], restarts=2, sample_id=number[:0]).shape == (0, 1, 8, 8)


def test_no_gradient_mode_or_statistic_of_the_model_is_touched():
    model, (x, y, number) = small_cnn().train(), images()
    model[1].eval()  # one part frozen by its owner
    model[0].weight.requires_grad_(False)
    model[6].weight.grad = torch.ones_like(model[6].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x.requires_grad_()
    expected = pgd(model, x, y, sample_id=number)
    assert [m.training for m in model] == [True, False, True, True, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model[0].weight.requires_grad
    assert model[6].weight.requires_grad
    assert torch.equal(model[6].weight.grad, torch.ones_like(model[6].weight))
    assert model[6].bias.grad is None
    assert x.grad is None
    assert torch.equal(pgd(model.eval(), x, y, sample_id=number), expected)  # dropout was off


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_every_gradient_mode_gives_the_same(mode):
    model, (x, y, number) = small_cnn().eval(), images()
    mask = torch.ones_like(x)
    expected = pgd(model, x, y, mask=mask, sample_id=number)
    with mode():
        # made under the mode, as the batch of a validation loop is
        made = [value + 0 for value in (x, y, mask, number)]
        result = pgd(model, made[0], made[1], mask=made[2], sample_id=made[3])
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_autocast_does_not_reach_the_loop():
    model, (x, y, number) = small_cnn().eval(), images()
    seen = []

    def watched(x):
        logits = model(x)
        seen.append(logits.dtype)
        return logits

    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = pgd(watched, x, y, sample_id=number)
    assert set(seen) == {torch.float32}
    assert torch.equal(result, pgd(model, x, y, sample_id=number))


def test_a_half_precision_model_gets_what_it_takes():
    model, (x, y, number) = small_cnn(dtype=torch.bfloat16).eval(), images(dtype=torch.bfloat16)
    result = pgd(model, x, y, eps=1.0, sample_id=number)
    assert result.dtype == torch.bfloat16
    assert (result != x).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.5}, r"pgd\(eps=-0.5\): must be >= 0, in units of the input"),
        ({"eps": torch.tensor([1.0] * 9 + [-2.0])}, r"pgd\(eps=-2\)"),
        ({"eps": float("nan")}, r"pgd\(eps=nan\)"),
        ({"step_size": -1.0}, r"pgd\(step_size=-1\)"),
        ({"norm": "l1"}, r"pgd\(norm='l1'\): must be 'l2' or 'linf'"),
        ({"steps": -1}, r"pgd\(steps=-1, restarts=1\)"),
        ({"restarts": 0}, r"restarts=0\)"),
        ({"keep": "first"}, r"pgd\(keep='first'\)"),
        ({"eps": float("inf")}, r"pgd\(eps=inf\): without a ball give a step_size"),
        ({"x": torch.full((10, 1, 8, 8), 2.5)}, r"inputs in \[0, 1\], these are in \[2.5, 2.5\]; normalise in the"),
        ({"x": torch.full((10, 1, 8, 8), torch.nan)}, r"these are in \[nan, nan\]"),
        ({"x": torch.zeros(10, 1, 8, 8, dtype=torch.uint8)}, r"not torch.uint8; divide bytes by 255"),
        ({"y": torch.full((10,), 4)}, r"Labels are in 4 .. 4, but the model has the classes 0 .. 3"),
        ({"y": torch.full((10,), -1)}, r"Labels are in -1 .. -1"),
        ({"y": torch.zeros(9).long()}, r"10 samples, 9 labels"),
        ({"model_fn": lambda x: x}, r"of shape \(10, 1, 8, 8\) .* logits of shape \(10, classes\) are needed"),
        ({"model_fn": lambda x: x.sum((2, 3))}, r"of shape \(10, 1\) .* two columns or more"),
        ({"model_fn": lambda x: (x, x)}, r"gave tuple of shape \(\)"),
        ({"objective": lambda logits, y: logits.sum()}, r"one number a sample, \(10\,\)"),
    ],
)  # fmt: skip
def test_mistakes_are_one_clear_line(change, message):
    x, y, _ = images()
    settings = {"model_fn": small_cnn(), "x": x, "y": y, **change}
    with pytest.raises(ValueError, match=message) as error:
        pgd(settings.pop("model_fn"), settings.pop("x"), settings.pop("y"), **settings)
    assert "\n" not in str(error.value)


def test_a_model_without_gradient_is_named():
    model, (x, y, _) = small_cnn(), images()
    with pytest.raises(RuntimeError, match="does not depend on the input"):
        pgd(torch.no_grad()(model), x, y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(eps=-0.5), r"PGD\(eps=-0.5\)"),
        (lambda: FGSM(eps=-0.5), r"FGSM\(eps=-0.5\)"),
        (lambda: PGD(norm="max"), r"PGD\(norm='max'\)"),
        (lambda: PGD(objective="loss"), r"PGD\(objective='loss'\): must be one of cross_entropy, logit_gap"),
        (lambda: PGD(seed=-1), r"PGD\(seed=-1\)"),
        (lambda: PGD(eps=float("inf")), r"PGD\(eps=inf\)"),
        (lambda: PGD().at(float("inf")), r"PGD\(eps=inf\)"),
        (lambda: PGD().at(-1), r"PGD\(eps=-1\)"),
    ],
)
def test_settings_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_class_calls_the_function_with_its_settings():
    model, (x, y, number) = small_cnn().eval(), images()
    attack = PGD(norm="linf", eps=0.1, step_size=0.03, steps=4, restarts=2, objective="logit_gap", seed=7)
    expected = pgd(
        model, x, y, norm="linf", eps=0.1, step_size=0.03, steps=4, restarts=2, objective=logit_gap, seed=7,
        sample_id=number,
    )  # fmt: skip
    assert torch.equal(attack(model, x, y, sample_id=number), expected)
    assert attack.name == "linf_0.1"
    wider = attack.at(0.2)
    assert (wider.eps, wider.step_size, wider.name, wider.steps) == (0.2, 0.06, "linf_0.2", 4)
    assert attack.eps == 0.1
    assert PGD(eps=8 / 255, norm="linf", name="madry").at(0.3).name == "madry_0.3"
    assert FGSM(8 / 255).name == "fgsm_linf_0.03137"
    assert FGSM(0.1).at(0.2).step_size == 0.2
    without = PGD(eps=float("inf"), step_size=0.1, random_start=False).at(0.5)
    assert (without.eps, without.step_size) == (0.5, 0.1)
    assert [each.describe() for each in (PGD(), attack)] == ["PGD-20", "PGD-4 x 2 restarts, logit_gap"]


def test_low_precision_is_used_only_where_it_is_allowed():
    model, (x, y, number) = small_cnn().eval(), images(8)
    seen = []

    def noted(x):
        logits = model(x)
        seen.append(logits.dtype)
        return logits

    arguments = {"steps": 3, "sample_id": number, "keep": "last"}
    exact = pgd(model, x, y, **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        full, low = pgd(noted, x, y, **arguments), pgd(noted, x, y, full_precision=False, **arguments)
    assert seen == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert torch.equal(full, exact)
    assert low.dtype == torch.float32
    assert perturbation_norm(low - x, "l2").max() <= 0.5 * (1 + 1e-5)
    torch.testing.assert_close(low, exact, rtol=0, atol=0.05)
    seen.clear()
    pgd(noted, x, y, full_precision=False, **arguments)  # no autocast to follow
    assert seen == [torch.float32] * 3


@pytest.mark.parametrize("steps", [0, 1])
def test_a_training_step_after_an_attack_in_low_precision_has_all_gradients(steps):
    model, (x, y, number) = small_cnn(), images(8)
    with torch.autocast("cpu", torch.bfloat16):
        changed = pgd(model, x, y, steps=steps, sample_id=number, full_precision=False)
        cross_entropy(model(changed), y).mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
