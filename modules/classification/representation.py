"""What a classifier makes of an image just before its last linear layer."""

from typing import Any

from torch import Tensor, nn

__all__ = ["Representation"]


class Representation(nn.Module):
    """Give the representation of images: what the last linear layer of a classifier is fed.

    Args:
        classifier: A module with a linear layer, that maps images (N, C, H, W) to logits.

    Shapes:
        (N, C, H, W) to (N, features).

    Raises:
        ValueError: If the classifier has no linear layer.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        layers = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
        if not layers:
            msg = f"Representation: {type(classifier).__name__} has no linear layer; give a network that ends in one."
            raise ValueError(msg)
        self.classifier = classifier
        self._last = [layers[-1]]  # in a list: it is a part of the classifier already

    def forward(self, x: Tensor) -> Tensor:
        """Run the classifier and catch the input of its last linear layer."""
        caught: list[Tensor] = []

        def catch(module: nn.Module, inputs: Any) -> None:
            del module
            caught.append(inputs[0])

        handle = self._last[0].register_forward_pre_hook(catch)
        try:
            self.classifier(x)
        finally:
            handle.remove()
        return caught[-1].flatten(1)
