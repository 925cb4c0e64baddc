"""Graduated assignment: its equation, what it recovers, padding, and what it refuses."""

import math

import pytest
import torch

from theodolite.datamodules import QAPDataModule
from theodolite.modules.matching import (
    GraduatedAssignment,
    GraphPairs,
    HandmadeFeatures,
    Refined,
    assign,
    assignment_accuracy,
)

from .pairs import noise_free_pairs, padded_side, random_graph, single


def test_one_step_is_the_equation():
    first, second = random_graph(6, seed=1), random_graph(7, seed=2)
    scores = torch.randn(1, 6, 7, generator=torch.Generator().manual_seed(0))
    soft = scores[0].exp()
    for _ in range(3):
        soft = soft / soft.sum(1, keepdim=True)
        soft = soft / soft.sum(0, keepdim=True) * (6 / 7)
    beta = math.log(7 * 7 / second.sum())
    expected = scores[0] + beta * first @ soft @ second
    refined = GraduatedAssignment(steps=1).refine(single(first, second), scores)
    torch.testing.assert_close(refined[0], expected, rtol=1e-4, atol=1e-4)
    fixed = GraduatedAssignment(steps=1, evidence=2.0).refine(single(first, second), scores)
    torch.testing.assert_close(fixed[0], scores[0] + 2.0 * first @ soft @ second, rtol=1e-4, atol=1e-4)


def test_evidence_grows_from_below_its_mean_to_above():
    first, second = random_graph(6, seed=1), random_graph(6, seed=2)
    scores = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0))

    def soft(matrix):
        matrix = matrix.exp()
        for _ in range(3):
            matrix = matrix / matrix.sum(1, keepdim=True)
            matrix = matrix / matrix.sum(0, keepdim=True)
        return matrix

    start = 0.5 * scores[0]
    middle = start + 1.5 / 2 * first @ soft(start) @ second
    expected = start + 1.5 * 2 * first @ soft(middle) @ second
    refiner = GraduatedAssignment(steps=2, evidence=1.5, anneal=2.0, prior=0.5)
    torch.testing.assert_close(refiner.refine(single(first, second), scores)[0], expected, rtol=1e-4, atol=1e-4)


def test_shuffling_the_second_graph_shuffles_the_result():
    pairs = noise_free_pairs()
    scores = torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved = GraphPairs.from_dense(pairs.first.dense, pairs.second.dense[:, order][:, :, order])
    refiner = GraduatedAssignment(steps=5)
    expected = refiner.refine(pairs, scores)[:, :, order]
    torch.testing.assert_close(refiner.refine(moved, scores[:, :, order]), expected, rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing():
    firsts, seconds = ([random_graph(n, seed=n + shift) for n in (8, 5)] for shift in (0, 50))
    scores = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    refiner = GraduatedAssignment(steps=4)
    together = refiner.refine(GraphPairs(padded_side(firsts), padded_side(seconds)), scores)
    for i, n in enumerate((8, 5)):
        alone = refiner.refine(single(firsts[i], seconds[i]), scores[i : i + 1, :n, :n])
        torch.testing.assert_close(together[i, :n, :n], alone[0], rtol=1e-4, atol=1e-4)


def test_it_finds_regular_graphs_that_features_alone_do_not():
    """At 2 % noise features match a third of the nodes, and refined all but a few: 16 pairs, sd of the mean < .06."""
    data = QAPDataModule(model="regular", noises=[0.02], test_pairs=16, batch_size=16)
    pairs = next(iter(data.test_dataloader()))
    features = HandmadeFeatures()
    refined = Refined(features, [GraduatedAssignment()])
    before = assignment_accuracy(assign(features(pairs), pairs), pairs).mean()
    after = assignment_accuracy(assign(refined(pairs), pairs), pairs).mean()
    assert before < 0.5
    assert after > 0.8
    assert refined.name == "HandmadeFeatures + GraduatedAssignment"


def test_a_cost_to_minimise_is_refused():
    pairs = noise_free_pairs(batch=1)
    pairs.minimize = True
    with pytest.raises(ValueError, match="want a small cost"):
        GraduatedAssignment()(pairs)


def test_graphs_without_edges_leave_the_scores():
    scores = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    empty = torch.zeros(4, 4)
    torch.testing.assert_close(GraduatedAssignment(steps=3).refine(single(empty, empty), scores), scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"balances": 0}, "balances=0"),
        ({"evidence": 0.0}, "evidence=0.0"),
        ({"anneal": 0.5}, "anneal=0.5"),
        ({"prior": -1.0}, "prior=-1.0"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraduatedAssignment(**arguments)
