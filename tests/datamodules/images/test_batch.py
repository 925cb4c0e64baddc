"""The batch: a pair to those who know no better, with the samples' numbers on board wherever it goes."""

import pickle

import torch
from pytorch_lightning.utilities import move_data_to_device
from pytorch_lightning.utilities.data import extract_batch_size
from torch.distributed.utils import _recursive_to

from theodolite.datamodules import ImageBatch


def make():
    return ImageBatch(torch.rand(5, 1, 2, 2), torch.arange(5), torch.arange(10, 15))


def test_unpacks_and_indexes_as_a_pair():
    batch = make()
    x, y = batch
    assert x is batch.x is batch[0]
    assert y is batch.y is batch[1]
    assert len(batch) == 2
    assert extract_batch_size(batch) == 5


def test_the_numbers_survive_what_lightning_ddp_and_workers_do_to_a_batch():
    batch = make()
    moved = [move_data_to_device(batch, torch.device("cpu")), pickle.loads(pickle.dumps(batch))]
    moved += _recursive_to(batch, torch.device("meta"), False)  # a tuple would come back without its attributes
    for other in moved:
        assert isinstance(other, ImageBatch)
        assert torch.equal(other.sample_id, batch.sample_id)
    assert move_data_to_device(batch, torch.device("meta")).x.device.type == "meta"
