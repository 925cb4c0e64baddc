"""A refined network: refiners in their order, and training of the network alone."""

import torch

from theodolite.modules.matching import FAQ, GraduatedAssignment, GraphMatching, Refined, Refiner, SiameseGNN

from .pairs import noise_free_pairs


class Scale(Refiner):
    """Multiply the scores by a number and add one, which does not commute."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def refine(self, pairs, scores):
        return scores * self.factor + 1


def network():
    torch.manual_seed(0)
    return SiameseGNN(width=4, depth=2, power=1)


def test_refiners_follow_each_other():
    pairs = noise_free_pairs()
    scores = network()(pairs)
    refined = Refined(network(), [Scale(2.0), Scale(3.0)])
    torch.testing.assert_close(refined(pairs), (2 * scores + 1) * 3 + 1)
    torch.testing.assert_close(Refined(network(), [])(pairs), scores)


def test_a_refiner_alone_starts_from_nothing():
    assert torch.equal(Scale(5.0)(noise_free_pairs()), torch.ones(2, 12, 12))


def test_training_sees_the_networks_own_scores():
    """A permutation has no gradient: the loss of the refined network is that of the network."""
    pairs = noise_free_pairs()
    plain, refined = GraphMatching(network()), GraphMatching(Refined(network(), [FAQ()]))
    loss = refined.loss(pairs)
    assert torch.equal(loss, plain.loss(pairs))
    loss.backward()
    assert all(parameter.grad is not None for parameter in refined.parameters())


def test_the_name_tells_every_step():
    refined = Refined(network(), [GraduatedAssignment(), FAQ(restarts=20)])
    assert refined.name == "SiameseGNN + GraduatedAssignment + FAQ, 20 starts"
