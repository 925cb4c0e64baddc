"""Chains of networks: ranks by hand, and the best matching counts."""

import pytest
import torch

from theodolite.modules.matching import FGNN, Chained, GraphPairs, SiameseGNN, assign, common_edges
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
