"""Loss and accuracy against brute force over all relabelings."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional as F

from theodolite.modules.community.metrics import assignment_loss, best_relabeling, node_accuracy, overlap


def batch(num_classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    graph = torch.repeat_interleave(torch.arange(3), torch.tensor([12, 1, 20]))
    y = torch.randint(num_classes, (33,), generator=generator)
    scores = torch.randn(33, num_classes, generator=generator, dtype=torch.float64)
    return scores, y, graph


@pytest.mark.parametrize("num_classes", [2, 3, 5, 6])
def test_loss_and_accuracy_equal_brute_force(num_classes):
    scores, y, graph = batch(num_classes)
    losses = assignment_loss(scores, y, graph, 3)
    accuracies = node_accuracy(scores.argmax(1), y, graph, 3, num_classes)
    for g in range(3):
        mask = graph == g
        choices = [torch.tensor(pi)[y[mask]] for pi in permutations(range(num_classes))]
        assert losses[g] == pytest.approx(min(F.cross_entropy(scores[mask], c).item() for c in choices), abs=1e-12)
        best = max((scores[mask].argmax(1) == c).double().mean().item() for c in choices)
        assert accuracies[g] == pytest.approx(best, abs=1e-12)


def test_restricted_relabelings_only_swap_what_they_may():
    y, graph = torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.long)
    swaps = [[0, 1, 2], [1, 0, 2]]
    assert node_accuracy(torch.tensor([1, 0, 2]), y, graph, 1, 3, swaps).item() == 1
    assert node_accuracy(torch.tensor([2, 1, 0]), y, graph, 1, 3, swaps).item() == pytest.approx(1 / 3)
    assert node_accuracy(torch.tensor([2, 1, 0]), y, graph, 1, 3).item() == 1


@pytest.mark.parametrize("num_classes", [3, 6])
def test_relabelling_the_truth_changes_nothing(num_classes):
    scores, y, graph = batch(num_classes, seed=1)
    shifted = (y + 1) % num_classes
    torch.testing.assert_close(
        assignment_loss(scores, shifted, graph, 3), assignment_loss(scores, y, graph, 3), rtol=1e-12, atol=0
    )
    assert (node_accuracy(shifted, y, graph, 3, num_classes) == 1).all()


def test_known_values():
    _, y, graph = batch(4, seed=2)
    torch.testing.assert_close(assignment_loss(torch.zeros(33, 4), y, graph, 3), torch.full((3,), 4.0).log())
    perfect = 1000 * F.one_hot(y, 4).float()
    torch.testing.assert_close(assignment_loss(perfect, y, graph, 3), torch.zeros(3))
    assert overlap(torch.tensor(0.25), 4).item() == 0
    assert overlap(torch.tensor(1.0), 4).item() == 1


@pytest.mark.parametrize("num_classes", [3, 6])
def test_gradient_flows_through_the_chosen_entries(num_classes):
    scores, y, graph = batch(num_classes, seed=3)
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: assignment_loss(s, y, graph, 3), (scores,))


def test_enumeration_and_hungarian_algorithm_agree():
    cost = torch.rand(8, 6, 6, generator=torch.Generator().manual_seed(0))
    chosen = best_relabeling(cost)
    enumerated = best_relabeling(cost, [list(p) for p in permutations(range(6))])
    torch.testing.assert_close(chosen, enumerated)


def test_random_labels_score_the_known_chance():
    """n=1000, k=2: mean overlap sqrt(2 / (pi n)) = .0252; 400 draws have standard error .00095, tolerance 4 of it."""
    generator = torch.Generator().manual_seed(0)
    y = (torch.arange(1000) % 2).repeat(400)
    graph = torch.repeat_interleave(torch.arange(400), 1000)
    prediction = torch.randint(2, (400_000,), generator=generator)
    chance = overlap(node_accuracy(prediction, y, graph, 400, 2), 2).mean().item()
    assert chance == pytest.approx((2 / (torch.pi * 1000)) ** 0.5, abs=4 * 0.00095)
