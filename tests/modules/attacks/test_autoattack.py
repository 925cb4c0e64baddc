"""The wrapper of pyautoattack: its settings, what it leaves alone, and how it compares with PGD."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from theodolite.modules.attacks import PGD, AutoAttack, perturbation_norm

from .networks import images, small_cnn

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("pyautoattack") is None, reason="pyautoattack is not installed"
)


@needs_library
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_it_fools_no_less_than_pgd_and_stays_in_the_ball(norm):
    model, (x, _, number) = small_cnn().eval(), images(30)
    y = model(x).argmax(1)
    eps = {"l2": 0.1, "linf": 0.01}[norm]
    changed = AutoAttack(norm, eps, attacks=["apgd-ce", "apgd-t"])(model, x, y)
    assert perturbation_norm(changed - x, norm).max() <= eps * (1 + 1e-5)
    assert changed.min() >= 0
    assert changed.max() <= 1
    standing = model(changed).argmax(1) == y
    by_pgd = model(PGD(norm, eps, steps=50)(model, x, y, number)).argmax(1) == y
    assert 0 < standing.sum() < 30
    assert standing.sum() <= by_pgd.sum()
    assert torch.equal(changed[standing], x[standing])


@needs_library
def test_two_classes_under_inference_mode_leave_everything_as_found():
    model, (x, y, _) = small_cnn(num_classes=2).train(), images(6, num_classes=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    calls = []

    def trace(frame, event, argument):
        calls.append(event)

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        with torch.inference_mode():
            first = AutoAttack(eps=0.3, attacks=["apgd-ce", "fab"])(model, x + 0, y + 0)
        assert sys.gettrace() is trace
    finally:
        sys.settrace(old)
    assert all(m.training for m in model)
    assert all(p.requires_grad and bool((p.grad == 1).all()) for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(AutoAttack(eps=0.3, attacks=["apgd-ce", "fab"])(model, x, y), first)


@needs_library
@pytest.mark.parametrize(
    ("num_classes", "parts", "targets"),
    [(2, ["apgd-ce", "fab", "square"], 1), (10, ["apgd-ce", "apgd-t", "fab-t", "square"], 9)],
)
def test_published_settings(num_classes, parts, targets):
    library = AutoAttack()._library(lambda x: x, num_classes, torch.device("cpu"))
    assert library.attacks_to_run == parts
    assert (library.apgd.n_restarts, library.fab.n_restarts, library.apgd_targeted.n_restarts) == (1, 1, 1)
    assert library.apgd_targeted.n_target_classes == library.fab.n_target_classes == targets
    assert library.square.n_queries == 5000


@needs_library
def test_attacks_for_more_classes_than_there_are_are_refused():
    model, (x, y, _) = small_cnn(num_classes=2), images(2, num_classes=2)
    with pytest.raises(ValueError, match=r"the model has 2 classes, and apgd-t needs 4 or more; choose from apgd-ce"):
        AutoAttack(attacks=["apgd-ce", "apgd-t"])(model, x, y)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'theodolite\[eval\]'"):
        AutoAttack()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": -1}, r"AutoAttack\(eps=-1\)"),
        ({"norm": "l1"}, r"AutoAttack\(norm='l1'\)"),
        ({"attacks": ["pgd"]}, r"AutoAttack\(attacks=\['pgd'\]\): name one or more of apgd-ce"),
        ({"attacks": []}, r"AutoAttack\(attacks=\[\]\)"),
        ({"seed": -1}, r"AutoAttack\(seed=-1\)"),
    ],
)
def test_mistakes_are_refused_at_construction(settings, message):
    with pytest.raises(ValueError, match=message):
        AutoAttack(**settings)
