"""Chains of networks: ranks by hand, and the best matching counts."""

import pytest
import torch

from theodolite.modules.matching import FGNN, Chained, GraphPairs, MatchingNetwork, SiameseGNN, assign, common_edges
from theodolite.modules.matching.chained import matching_ranks

from .pairs import noise_free_pairs, padded_side, random_graph, single


def path(n):
    matrix = torch.zeros(n, n)
    for i in range(n - 1):
        matrix[i, i + 1] = matrix[i + 1, i] = 1
    return matrix


def test_ranks_follow_the_number_of_edges_kept():
    # Edges 0-1, 1-2, 2-3 of a path; matching 0 1 2 4 into a path of 5 keeps the first two.
    first, second = matching_ranks(torch.tensor([[0, 1, 2, 4]]), single(path(4), path(5)))
    # Kept: 1, 2, 1, 0. Node 1 leads; of the two equal ones the first in order comes first.
    torch.testing.assert_close(first, torch.tensor([[0.75, 1.0, 0.5, 0.25]]))
    torch.testing.assert_close(second, torch.tensor([[0.75, 1.0, 0.5, 0.0, 0.25]]))


def test_matched_nodes_have_the_same_rank_and_padding_none():
    pairs = GraphPairs(
        padded_side([random_graph(5, seed=1), random_graph(3, seed=2)]),
        padded_side([random_graph(6, seed=3), random_graph(3, seed=4)]),
    )
    matching = torch.tensor([[5, 3, 1, 0, 2], [2, 0, 1, -1, -1]])
    first, second = matching_ranks(matching, pairs)
    for pair, size in ((0, 5), (1, 3)):
        assert torch.equal(second[pair, matching[pair, :size]], first[pair, :size])
        assert sorted(first[pair, :size].tolist()) == pytest.approx([(k + 1) / size for k in range(size)])
    assert first[1, 3:].tolist() == [0, 0]
    assert second[1, 3:].tolist() == [0, 0, 0]


def chain(loops=1):
    torch.manual_seed(0)
    return Chained([FGNN(4, 1, 2), FGNN(4, 1, 2, rank=True), SiameseGNN(4, 2, power=1, rank=True)], loops=loops).eval()


def test_the_chain_keeps_the_matching_with_most_common_edges():
    pairs = noise_free_pairs(n=14, batch=6, p=0.3)
    network = chain(loops=3)
    kept = [common_edges(assign(scores, pairs), pairs) for scores in network.readouts(pairs)]
    assert len(kept) == 3
    best = common_edges(assign(network(pairs), pairs), pairs)
    assert (best >= torch.stack(kept).amax(0)).all()


class Fixed(MatchingNetwork):
    """Give the next of some scores at every call, and remember the ranks."""

    def __init__(self, *scores, rank=False):
        super().__init__()
        self.scores, self.rank, self.seen = scores, rank, []

    def forward(self, pairs, ranks=None):
        self.seen.append(ranks)
        return self.scores[(len(self.seen) - 1) % len(self.scores)]


def permuted(*columns):
    return torch.eye(4)[list(columns)][None]


def test_the_last_network_is_applied_again_with_the_ranks_of_its_own_matching():
    pairs = single(path(4), path(4))
    # The first network keeps 0-1 and 2-3; the last one nothing, then everything in reverse, then everything.
    first, last = permuted(0, 1, 3, 2), [permuted(1, 3, 0, 2), permuted(3, 2, 1, 0), permuted(0, 1, 2, 3)]
    network = Chained([Fixed(first), Fixed(*last, rank=True)], loops=3)
    edges = [common_edges(assign(scores, pairs), pairs).item() for scores in (first, *last)]
    assert edges == [2, 0, 3, 3]
    assert torch.equal(network(pairs), last[1])  # of two equally good ones the earlier
    assert len(network.networks[0].seen) == 1
    seen = network.networks[1].seen
    assert len(seen) == 3
    for ranks, scores in zip(seen, (first, *last)):
        for rank, expected in zip(ranks, matching_ranks(assign(scores, pairs), pairs)):
            assert torch.equal(rank, expected)
    readouts = network.readouts(pairs)
    assert len(readouts) == 2
    assert torch.equal(readouts[0], first)
    assert len(seen) == 4  # loops are for the result, not for training


def test_each_pair_keeps_its_own_best_and_a_cost_the_least():
    both = GraphPairs.from_dense(path(4).expand(2, 4, 4), path(4).expand(2, 4, 4))
    good, bad = permuted(0, 1, 2, 3), permuted(1, 3, 0, 2)
    first, last = torch.cat([good, bad]), torch.cat([bad, good])
    assert torch.equal(Chained([Fixed(first), Fixed(last, rank=True)])(both), torch.cat([good, good]))
    costs = GraphPairs(both.first, both.second, minimize=True)
    assert torch.equal(Chained([Fixed(first), Fixed(last, rank=True)])(costs), torch.cat([bad, bad]))


def test_a_chain_of_one_network_is_that_network():
    pairs, network = noise_free_pairs(), FGNN(4, 1, 2)
    assert torch.equal(Chained([network])(pairs), network(pairs))


def test_ranks_reach_the_networks():
    pairs = noise_free_pairs()
    for network in chain().networks[1:]:
        ranks = torch.rand(2, 12), torch.rand(2, 12)
        assert not torch.allclose(network(pairs, ranks), network(pairs))


def test_a_wrong_chain_is_refused():
    with pytest.raises(ValueError, match=r"network 1 .FGNN. must have rank=true"):
        Chained([FGNN(4, 1, 1), FGNN(4, 1, 1)])
    with pytest.raises(ValueError, match=r"network 0 .FGNN. must have rank=false"):
        Chained([FGNN(4, 1, 1, rank=True)])
    with pytest.raises(ValueError, match="at least one network"):
        Chained([])
    with pytest.raises(ValueError, match="loops=0"):
        Chained([FGNN(4, 1, 1)], loops=0)
