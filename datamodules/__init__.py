"""What a model sees: LightningDataModules for generated and real data."""
