"""A tiny set of images, a checkpoint of a model for it as the command line writes them, and the sets it makes."""

import torch

from theodolite.datamodules import RelabeledDataModule, RobustifiedDataModule
from theodolite.datamodules.images import ImageDataModule
from theodolite.modules.attacks import PGD
from theodolite.modules.classification import ImageClassifier, LinearNetwork, SmallCNN


class Dots(ImageDataModule):
    """3 x 41 images, whose brightest stripe tells the class."""

    all_classes, image_shape = ("left", "middle", "right"), (1, 6, 6)

    def read(self, train):
        generator = torch.Generator().manual_seed(int(train))
        labels = torch.arange(123) % 3
        images = torch.randint(0, 150, (123, 1, 6, 6), generator=generator, dtype=torch.uint8)
        for label in range(3):
            images[labels == label, :, :, 2 * label : 2 * label + 2] += 60
        return images, labels


def write_checkpoint(path, num_classes=3, seed=0, input_shape=(1, 6, 6)):
    sizes = {"num_classes": num_classes, "input_shape": input_shape, "width": 4}
    torch.manual_seed(seed)
    return _write(path, SmallCNN(**sizes), sizes)


def write_linear_checkpoint(path):
    """Write a model that compares the stripes of :class:`Dots`, biased to the left: it errs, and is easily fooled."""
    sizes = {"num_classes": 3, "input_shape": (1, 6, 6)}
    network = LinearNetwork(**sizes)
    with torch.no_grad():
        for label in range(3):
            network[1].weight.view(3, 6, 6)[label, :, 2 * label : 2 * label + 2] = 0.1
        network[1].bias[0] = 0.25
    return _write(path, network, sizes)


def _write(path, network, sizes):
    num_classes = sizes["num_classes"]
    model = ImageClassifier(network, num_classes)
    network = {"class_path": f"theodolite.modules.classification.{type(network).__name__}", "init_args": sizes}
    hyperparameters = {
        "_class_path": "theodolite.modules.classification.ImageClassifier",
        "_instantiator": "pytorch_lightning.cli.instantiate_module",
        "network": network,
        "num_classes": num_classes,
    }
    content = {"state_dict": model.state_dict(), "hyper_parameters": hyperparameters}
    torch.save({**content, "pytorch-lightning_version": "2.6.6"}, path)
    return model.eval()


def attack(**kwargs):
    return PGD(**{"norm": "l2", "eps": 0.5, "steps": 5, "random_start": False, "targeted": True, **kwargs})


def relabeled(folder, source=None, settings=None, no_attack=False, **kwargs):
    if not (folder / "model.ckpt").is_file():
        write_checkpoint(folder / "model.ckpt")
    source = source or Dots(val_samples=23)
    settings = None if no_attack else settings or attack()
    return RelabeledDataModule(
        source, str(folder / "model.ckpt"), settings, data_dir=str(folder / "sets"),
        **{"shard_size": 20, "targets": "next", **kwargs},
    )  # fmt: skip


def robustified(folder, **kwargs):
    if not (folder / "model.ckpt").is_file():
        write_checkpoint(folder / "model.ckpt")
    return RobustifiedDataModule(
        Dots(val_samples=23), str(folder / "model.ckpt"), data_dir=str(folder / "sets"),
        **{"shard_size": 20, "steps": 30, "step_size": 0.05, **kwargs},
    )  # fmt: skip


def whole(dataset):
    return dataset.__getitems__(range(len(dataset)))
