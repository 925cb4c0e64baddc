"""Read the weights of another network of the same architecture, for measurements that compare with one."""

from pathlib import Path

from pytorch_lightning import LightningModule
from torch import Tensor

from .geodesics.kept import read

__all__ = ["check_reference", "reference_state"]


def check_reference(reference: str, owner: str) -> None:
    """Refuse a checkpoint that is not there.

    Args:
        reference: The file.
        owner: Who asks, for the error.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(reference).is_file():
        msg = f"{owner}(reference={reference!r}): there is no such checkpoint; check the path."
        raise FileNotFoundError(msg)


def reference_state(module: LightningModule, reference: str, owner: str) -> dict[str, Tensor]:
    """Read parameters and buffers of another network of the module's architecture from a checkpoint.

    Args:
        module: Where they will be used: its device, and the shapes that its parameters must have.
        reference: A file with ``state_dict``.
        owner: Who asks, for the error.

    Returns:
        Tensors by name, those that the file has.

    Raises:
        ValueError: If the file is damaged, or holds no ``state_dict``, or one whose parameters differ.
    """
    content = read(reference, module.device)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        msg = f"{owner}(reference={reference!r}): the file holds no state_dict; give a checkpoint."
        raise ValueError(msg)
    for name, parameter in module.named_parameters():
        if name not in state or state[name].shape != parameter.shape:
            found = tuple(state[name].shape) if name in state else "absent"
            msg = (
                f"{owner}(reference={reference!r}): {name} is {found} there and {tuple(parameter.shape)} here; "
                "give a checkpoint of the same architecture."
            )
            raise ValueError(msg)
    return state
