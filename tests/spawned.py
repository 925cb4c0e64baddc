"""Processes that Lightning spawns for a test, taking leave of each other before they end."""

import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy


class SpawnedDDP(DDPStrategy):
    """What ``strategy="ddp_spawn"`` means in tests.

    A process that ends while a thread of gloo still holds a tensor aborts now and then; Lightning only ends groups of
    NCCL.
    """

    def teardown(self) -> None:
        super().teardown()
        if dist.is_initialized():
            dist.destroy_process_group()
