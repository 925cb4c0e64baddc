"""MNIST, Fashion-MNIST and CIFAR-10: files, classes, splits, augmentation."""

import shutil
import urllib.request

import pytest
import pytorch_lightning as pl
import torch

from theodolite.datamodules import CIFAR10DataModule, FashionMNISTDataModule, MNISTDataModule


def everything(loader):
    """Join all batches, in the order of their numbers."""
    batches = list(loader)
    x, y, ids = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("x", "y", "sample_id"))
    order = ids.argsort()
    assert ids[order].tolist() == list(range(len(ids)))
    return x[order], y[order]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_pixels_labels_and_sizes_are_those_of_the_files(image_dir):
    from torchvision.datasets import CIFAR10, MNIST

    for module, original in ((MNISTDataModule, MNIST), (CIFAR10DataModule, CIFAR10)):
        data = module(str(image_dir), val_samples=20, batch_size=7)
        data.prepare_data()
        x, y = everything(data.test_dataloader())
        assert x.shape[1:] == data.input_shape
        assert data.num_classes == len(data.class_names) == 10
        reference = original(image_dir, train=False)
        expected = torch.as_tensor(reference.data).float() / 255
        torch.testing.assert_close(x, expected[:, None] if x.shape[1] == 1 else expected.permute(0, 3, 1, 2))
        assert y.tolist() == list(reference.targets)


def test_training_and_validation_share_no_image_and_are_the_training_set(image_dir):
    data = CIFAR10DataModule(str(image_dir), val_samples=33, seed=5)
    parts = [everything(data.train_dataloader())[0], everything(data.val_dataloader())[0]]
    assert [len(part) for part in parts] == [167, 33]
    assert len(torch.cat(parts).unique(dim=0)) == 200
    other = CIFAR10DataModule(str(image_dir), val_samples=33, seed=6)
    assert torch.equal(everything(other.val_dataloader())[0], parts[1])
    cut_otherwise = CIFAR10DataModule(str(image_dir), val_samples=33, split_seed=1)
    assert not torch.equal(everything(cut_otherwise.val_dataloader())[0], parts[1])


def test_smaller_training_sets_are_parts_of_larger_ones_with_the_same_validation(image_dir):
    small = MNISTDataModule(str(image_dir), val_samples=20, train_samples=30)
    large = MNISTDataModule(str(image_dir), val_samples=20, train_samples=100)
    assert torch.equal(everything(small.train_dataloader())[0], everything(large.train_dataloader())[0][:30])
    assert torch.equal(everything(small.val_dataloader())[0], everything(large.val_dataloader())[0])


def test_test_samples_are_a_fixed_part_in_the_order_of_the_file(image_dir):
    x, _ = everything(MNISTDataModule(str(image_dir)).test_dataloader())
    part, _ = everything(MNISTDataModule(str(image_dir), test_samples=10, seed=3).test_dataloader())
    places = [int((x == image).flatten(1).all(1).nonzero()[0, 0]) for image in part]
    assert places == sorted(set(places))
    assert len(places) == 10
    assert places != list(range(10))  # the first of a file need not be like the rest


def test_classes_are_renumbered_in_the_given_order(image_dir):
    everyone = CIFAR10DataModule(str(image_dir), val_samples=0)
    x, y = everything(everyone.test_dataloader())
    data = CIFAR10DataModule(str(image_dir), classes=["dog", 3], val_samples=4)
    kept, labels = everything(data.test_dataloader())
    assert data.class_names == ["dog", "cat"]
    assert data.num_classes == 2
    assert torch.equal(kept, x[(y == 5) | (y == 3)])
    assert torch.equal(labels, torch.where(y[(y == 5) | (y == 3)] == 5, 0, 1))
    assert everyone.val_dataloader() == []


def epoch(data, number, workers=0):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return everything(loader)[0]


def test_augmentation_is_a_function_of_seed_epoch_and_sample(image_dir):
    def make(**kwargs):
        return CIFAR10DataModule(str(image_dir), val_samples=20, crop_padding=2, flip=True, **kwargs)

    first = epoch(make(), 1)
    assert torch.equal(first, epoch(make(batch_size=7), 1))
    assert torch.equal(first, epoch(make(num_workers=1), 1))
    assert not torch.equal(first, epoch(make(), 2))
    assert not torch.equal(first, epoch(make(seed=1), 1))
    plain = CIFAR10DataModule(str(image_dir), val_samples=20)
    assert torch.equal(epoch(plain, 1), epoch(plain, 2))
    assert torch.equal(everything(make().val_dataloader())[0], everything(plain.val_dataloader())[0])


class Stock(pl.LightningModule):
    """A module that has never heard of theodolite."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(784, 10)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.cross_entropy(self.layer(x.flatten(1)), y)

    def test_step(self, batch, batch_idx):
        self.log("loss", self.training_step(batch, batch_idx))

    validation_step = test_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02)


def test_a_stock_module_learns_from_it(image_dir):
    data = MNISTDataModule(str(image_dir), classes=[0, 9], val_samples=4, batch_size=12)
    trainer = pl.Trainer(
        max_epochs=15, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    model = Stock()
    before = trainer.test(model, data, verbose=False)[0]["loss"]
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)[0]["loss"] < 0.5 * before


def test_missing_files_are_one_line_that_names_the_folder(tmp_path, offline):
    for module in (MNISTDataModule, FashionMNISTDataModule, CIFAR10DataModule):
        with pytest.raises(
            FileNotFoundError, match=rf"{module.__name__}\(data_dir=.*nowhere.*give another data_dir\.$"
        ):
            module(str(tmp_path / "nowhere")).prepare_data()


def test_damaged_files_are_refused(image_dir, offline):
    path = image_dir / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(FileNotFoundError, match="CIFAR10 is not there, or damaged"):
        CIFAR10DataModule(str(image_dir)).setup("fit")
    path = image_dir / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileNotFoundError, match="MNIST is not there, or damaged"):
        MNISTDataModule(str(image_dir)).setup("fit")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ["dog", "wolf"]}, r"CIFAR10DataModule\(classes=\[\.\.\. 'wolf' \.\.\.\]\).*5 dog"),
        ({"classes": [3, 10]}, "no such class"),
        ({"classes": [3, "cat"]}, "two different classes"),
        ({"classes": [3]}, "two different classes"),
        ({"val_samples": -1}, r"val_samples=-1\): must be at least 0"),
        ({"test_samples": 0}, r"test_samples=0\): must be at least 1"),
        ({"crop_padding": -1}, "crop_padding=-1"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(ValueError, match=message):
        CIFAR10DataModule("data", **arguments)


def test_a_validation_split_that_leaves_nothing_to_train_on_is_refused(image_dir):
    with pytest.raises(ValueError, match=r"MNISTDataModule\(val_samples=200\): the training set has 200 images"):
        MNISTDataModule(str(image_dir), val_samples=200).setup()


def test_real_mnist_has_its_published_class_counts(data_dir, tmp_path):
    shutil.copytree(data_dir / "MNIST", tmp_path / "MNIST")
    data = MNISTDataModule(str(tmp_path), batch_size=1000)
    data.prepare_data()
    _, y = everything(data.test_dataloader())
    assert y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    labels = torch.cat([everything(loader)[1] for loader in (data.train_dataloader(), data.val_dataloader())])
    assert labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_validating_on_the_training_images_gives_them_all_and_not_augmented(image_dir):
    arguments = {"val_samples": 0, "batch_size": 7, "flip": True, "crop_padding": 2}
    data = CIFAR10DataModule(str(image_dir), **arguments, validate_on="train")
    x, y = everything(data.val_dataloader())
    plain = CIFAR10DataModule(str(image_dir), val_samples=0, batch_size=7)
    assert torch.equal(x, everything(plain.train_dataloader())[0])
    assert torch.equal(y, everything(data.train_dataloader())[1])
    assert plain.val_dataloader() == []
