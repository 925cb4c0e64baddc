"""Output margins against a direct computation, sample by sample."""

import pytest
import torch

from theodolite.modules.margins import output_margin


def test_margin_is_the_lead_over_the_best_other_class():
    torch.manual_seed(0)
    scores, labels = torch.randn(50, 4), torch.randint(4, (50,))
    expected = [
        row[label] - max(row[j] for j in range(4) if j != label) for row, label in zip(scores.tolist(), labels.tolist())
    ]
    assert output_margin(scores, labels).tolist() == pytest.approx(expected, abs=1e-6)


def test_a_tie_has_margin_zero_and_all_equal_scores_too():
    scores = torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0], [3.0, 1.0, 3.0]])
    assert output_margin(scores, torch.tensor([0, 2, 1])).tolist() == [0, 0, -2]


def test_single_output_of_two_classes_is_half_the_lead_of_symmetric_logits():
    logit = torch.tensor([2.0, -3.0, 0.0])
    labels = torch.tensor([1, 1, 0])
    both = output_margin(torch.stack([-logit, logit], dim=1) / 2, labels)
    assert both.tolist() == [2, -3, 0]
    for scores, given in ((logit, labels), (logit[:, None], labels), (logit[:, None], labels[:, None].float())):
        assert torch.equal(output_margin(scores, given), both)


def test_infinite_other_scores_are_kept_and_low_precision_becomes_float32():
    scores = torch.tensor([[1.0, -torch.inf]], dtype=torch.bfloat16)
    margin = output_margin(scores, torch.tensor([0]))
    assert margin.dtype == torch.float32
    assert margin.item() == torch.inf
    assert output_margin(torch.zeros(0, 3).double(), torch.zeros(0).long()).shape == (0,)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(5).long(), r"shape \(4, 3\) for labels of shape \(5,\)"),
        (torch.zeros(4, 3, 2), torch.zeros(4).long(), r"logits \(N, C\)"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), r"labels are in 0 .. 3, but the classes are 0 .. 2"),
        (torch.zeros(2), torch.tensor([-1, 1]), r"labels are in -1 .. 1, but the classes are 0 .. 1"),
        (torch.zeros(2, 2), torch.tensor([0.5, 1]), r"labels are in 0.5 .. 1"),
        ((torch.zeros(2, 2),), torch.tensor([0, 1]), r"the model gave tuple"),
    ],
)
def test_what_holds_no_classes_is_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        output_margin(scores, labels)
