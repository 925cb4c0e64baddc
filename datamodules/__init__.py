"""What a model sees: LightningDataModules for generated and real data."""

from .base import SplitDataModule
from .graph_file import GraphFileDataModule
from .qap_datamodule import QAPDataModule
from .sbm_datamodule import SBMDataModule
from .snap_datamodule import SNAPDataModule

__all__ = ["GraphFileDataModule", "QAPDataModule", "SBMDataModule", "SNAPDataModule", "SplitDataModule"]
