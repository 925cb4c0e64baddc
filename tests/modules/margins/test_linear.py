"""Margins of linear rules against distances found by an optimizer."""

import pytest
import torch
from scipy.optimize import linprog

from theodolite.modules.margins import linear_margin, parse_norm, rule_margin, weight_norm


def linf_distance(x, weight):
    """The least t with <w, x + delta> = 0, |delta| <= t, by a linear program."""
    size = len(x)
    identity = torch.eye(size).tolist()
    upper = [[*row, -1.0] for row in identity] + [[-v for v in row] + [-1.0] for row in identity]
    result = linprog(
        [0.0] * size + [1.0], A_ub=upper, b_ub=[0.0] * 2 * size, A_eq=[[*weight.tolist(), 0.0]],
        b_eq=[-float(weight @ x)], bounds=[(None, None)] * size + [(0, None)],
    )  # fmt: skip
    return result.fun


def test_margin_in_l1_is_the_linf_distance():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 4, generator=generator).double(), torch.randn(4, generator=generator).double()
    y = (x @ weight).sign()
    expected = [linf_distance(row, weight) for row in x]
    assert linear_margin(x, y, weight, p=1).tolist() == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(linear_margin(x, -y, weight, p=1), -linear_margin(x, y, weight, p=1))


@pytest.mark.parametrize("p", [0.5, 1, 1.5, 2, 3, float("inf")])
@pytest.mark.parametrize("basis", ["standard", "fourier"])
def test_norms_scale_and_fourier_norms_do_not_see_a_circular_shift(p, basis):
    weight = torch.randn(8, generator=torch.Generator().manual_seed(1)).double()
    assert float(weight_norm(-3 * weight, p, basis)) == pytest.approx(3 * float(weight_norm(weight, p, basis)))
    if basis == "fourier":
        shifted = weight_norm(weight.roll(3), p, basis)
        assert float(shifted) == pytest.approx(float(weight_norm(weight, p, basis)), rel=1e-12)


def test_fourier_norm_of_a_cosine_and_parseval():
    cosine = torch.cos(2 * torch.pi * 2 * torch.arange(16) / 16).double()
    assert float(weight_norm(cosine, 1, "fourier")) == pytest.approx(2 * 16 / 2 / 16**0.5)  # two peaks of d/2
    assert float(weight_norm(cosine, 2, "fourier")) == pytest.approx(float(cosine.norm()))
    assert float(weight_norm(torch.tensor([1.0, -2.0, 3.0]), float("inf"))) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 0}, r"p=0\): must be > 0"),
        ({"basis": "wavelet"}, "must be 'standard' or 'fourier'"),
        ({"weight": torch.zeros(2)}, "weights are all zero"),
        ({"y": torch.tensor([0.0, 1.0])}, "labels are in 0 .. 1; give -1 or 1"),
        ({"weight": torch.ones(3)}, r"x \(2, 2\), y \(2,\), weight \(3,\)"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message):
    given = {"x": torch.ones(2, 2), "y": torch.tensor([1.0, -1.0]), "weight": torch.ones(2), **arguments}
    with pytest.raises(ValueError, match=message):
        linear_margin(**given)


@pytest.mark.parametrize(("p", "basis"), [(1.0, "standard"), (1.5, "standard"), (float("inf"), "fourier")])
def test_margin_of_a_rule_is_the_least_of_its_pairs_of_classes(p, basis):
    torch.manual_seed(0)
    x, y, rule = torch.randn(9, 5).double(), torch.randint(3, (9,)), torch.randn(3, 5).double()
    found = rule_margin(x @ rule.T, y, rule, p, basis)
    for n in range(9):
        pairs = [
            linear_margin(x[n : n + 1], torch.ones(1), rule[y[n]] - rule[j], p, basis) for j in range(3) if j != y[n]
        ]
        assert float(found[n]) == pytest.approx(float(min(pairs)), rel=1e-12)


def test_margin_of_a_single_output_is_the_linear_margin():
    torch.manual_seed(0)
    x, y, w = torch.randn(9, 5), torch.randint(2, (9,)), torch.randn(5)
    for scores in (x @ w, (x @ w)[:, None]):
        torch.testing.assert_close(rule_margin(scores, y, w[None], 1.0), linear_margin(x, 2 * y - 1, w, 1.0))


def test_classes_of_equal_weights_have_no_boundary():
    for rule in (torch.zeros(1, 2), torch.ones(2, 2)):
        with pytest.raises(ValueError, match="the weights are zero, or those of two classes equal"):
            rule_margin(torch.zeros(3, len(rule)), torch.zeros(3).long(), rule)


def test_names_of_norms():
    assert parse_norm("l1.5") == (1.5, "standard")
    assert parse_norm("dft_l1") == (1.0, "fourier")
    assert parse_norm("linf") == (float("inf"), "standard")
    for name in ("l0", "l-1", "l", "2", "dft_", "lnan", "max"):
        with pytest.raises(ValueError, match=f"'{name}' is no norm of weights; give e.g. l1"):
            parse_norm(name)
