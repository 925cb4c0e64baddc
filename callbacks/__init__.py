"""What is measured: callbacks that work on any LightningModule."""
