import torch
from torch_geometric.data import Batch, Data

from theodolite.modules.community import RandomLabels, SingleLabel


def graph(sample, num_nodes=7):
    return Data(edge_index=torch.zeros(2, 0, dtype=torch.long), num_nodes=num_nodes, sample_id=torch.tensor([sample]))


def test_random_labels_depend_on_the_sample_alone_and_leave_the_generator_as_found():
    state = torch.get_rng_state()
    chance = RandomLabels(3, seed=1)
    alone = chance(Batch.from_data_list([graph(5, 4)]))
    together = chance(Batch.from_data_list([graph(2), graph(5, 4)]))
    torch.testing.assert_close(together[7:], alone)
    assert not torch.equal(RandomLabels(3, seed=2)(Batch.from_data_list([graph(5, 4)])), alone)
    assert torch.equal(torch.get_rng_state(), state)


def test_single_label_gives_every_node_the_same_class():
    assert SingleLabel(3, label=2)(graph(0)).argmax(1).tolist() == [2] * 7
