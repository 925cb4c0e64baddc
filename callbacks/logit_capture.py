"""Take a classifier's logits from its own validation or test step, so that they are not computed twice."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from .classification import left_as_found

__all__ = ["LogitCapture"]


class LogitCapture:
    """Keep what ``pl_module(x)`` gives for the very input of a batch, between two calls of :meth:`watch`.

    Only a call on the whole input, unchanged, in evaluation mode counts: not one on adversarial inputs, on parts of
    the batch, or of a network inside. Where the step makes no such call, :meth:`logits` computes them.
    """

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None
        self._input: Any = None
        self._output: Any = None

    def attach(self, pl_module: LightningModule) -> None:
        """Begin to listen."""
        self.detach()
        self._handle = pl_module.register_forward_hook(self._listen)

    def detach(self) -> None:
        """Stop listening, and let go of what was kept."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._input = self._output = None

    def watch(self, x: Tensor) -> None:
        """Wait for a call on this input."""
        self._input, self._output = x, None

    def logits(self, pl_module: LightningModule, x: Tensor) -> Any:
        """Give the module's output for the input of the batch, captured or else by one forward pass."""
        output, watched = self._output, self._input
        self._input = self._output = None
        if output is not None and watched is x:
            return output
        with left_as_found(pl_module), torch.no_grad():
            return pl_module(x)

    def _listen(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if len(inputs) == 1 and inputs[0] is self._input and not module.training:
            self._output = output.detach() if isinstance(output, Tensor) else output
