"""What a model sees: LightningDataModules for generated and real data."""

from .base import SplitDataModule
from .bias_problems import MatrixSensingDataModule, SeparableDataModule, UnderdeterminedDataModule
from .graph_file import GraphFileDataModule
from .images import (
    CIFAR10DataModule,
    FashionMNISTDataModule,
    ImageBatch,
    ImageFolderDataModule,
    MNISTDataModule,
    RelabeledDataModule,
    RobustifiedDataModule,
)
from .pair_file import PairFileDataModule
from .ptb_datamodule import PTBDataModule
from .qap_datamodule import QAPDataModule
from .qaplib_datamodule import QAPLIBDataModule
from .regression_datamodule import RegressionDataModule
from .sbm_datamodule import SBMDataModule
from .snap_datamodule import SNAPDataModule

__all__ = [
    "CIFAR10DataModule",
    "FashionMNISTDataModule",
    "GraphFileDataModule",
    "ImageBatch",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "MatrixSensingDataModule",
    "PTBDataModule",
    "PairFileDataModule",
    "QAPDataModule",
    "QAPLIBDataModule",
    "RegressionDataModule",
    "RelabeledDataModule",
    "RobustifiedDataModule",
    "SBMDataModule",
    "SNAPDataModule",
    "SeparableDataModule",
    "SplitDataModule",
    "UnderdeterminedDataModule",
]
