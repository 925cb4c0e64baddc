"""Images to classify: sets held in memory, folders of photographs, and sets made with the help of a model."""

from .base import ImageDataModule, ImageDataset
from .batch import ImageBatch
from .folder import ImageFolderDataModule
from .relabeled import RelabeledDataModule
from .robustified import RobustifiedDataModule
from .small_sets import CIFAR10DataModule, FashionMNISTDataModule, MNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "FashionMNISTDataModule",
    "ImageBatch",
    "ImageDataModule",
    "ImageDataset",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "RelabeledDataModule",
    "RobustifiedDataModule",
]
