"""What every datamodule with splits inherits: loaders that take any batch, and checks in the subclass's name."""

import pytest
import pytorch_lightning as pl
import torch

from theodolite.datamodules.base import SplitDataModule


def doubled(samples):
    return 2 * torch.tensor(samples)


class CountsOn(torch.utils.data.Dataset):
    """Five samples an epoch, and more where they are asked for."""

    def __init__(self, first):
        self.first = first

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return self.first + index


class Numbers(SplitDataModule):
    def __init__(self, **kwargs):
        super().__init__(**{"batch_size": 2, "collate_fn": doubled, **kwargs})

    def dataset(self, split):
        return CountsOn({"train": 0, "val": 10, "test": 20}[split])


class Echo(pl.LightningModule):
    def predict_step(self, batch, batch_idx):
        return batch


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_made_by_the_given_function(num_workers):
    data = Numbers(num_workers=num_workers)
    assert [batch.tolist() for batch in data.val_dataloader()] == [[20, 22], [24, 26], [28]]
    assert [batch.tolist() for batch in data.test_dataloader()] == [[40, 42], [44, 46], [48]]
    assert sorted(torch.cat(list(data.train_dataloader())).tolist()) == [0, 2, 4, 6, 8]


def test_fresh_training_goes_on_to_new_samples():
    for fresh, expected in ((True, [10, 12, 14, 16, 18]), (False, [0, 2, 4, 6, 8])):
        loader = Numbers(fresh=fresh).train_dataloader()
        loader.sampler.set_epoch(1)
        assert sorted(torch.cat(list(loader)).tolist()) == expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_lightning_builds_the_loaders_again_with_the_same_batches(split):
    # for prediction it puts a batch sampler of its own
    loader = getattr(Numbers(), f"{split}_dataloader")()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    predicted = trainer.predict(Echo(), dataloaders=loader)
    assert [batch.tolist() for batch in predicted] == [batch.tolist() for batch in loader]


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"seed": -1}, {"num_workers": -1}])
def test_bad_arguments_are_refused_in_the_name_of_the_subclass(arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(ValueError, match=rf"Numbers\({name}={value}\): must be at least"):
        Numbers(**arguments)
