"""What a model sees: LightningDataModules for generated and real data."""

from .sbm_datamodule import SBMDataModule

__all__ = ["SBMDataModule"]
