"""Processes that Lightning spawns for a test, taking leave of each other before they end."""

from pytorch_lightning.strategies import DDPStrategy

from theodolite.scripts.main import leave_group


class SpawnedDDP(DDPStrategy):
    """What ``strategy="ddp_spawn"`` means in tests: Lightning ends groups of NCCL, and this one those of gloo too."""

    def teardown(self) -> None:
        super().teardown()
        leave_group()
