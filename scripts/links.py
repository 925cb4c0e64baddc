"""Sizes that follow from the data, such as ``num_classes``, are given once and reach task and network."""

import inspect
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import LightningDataModule
from pytorch_lightning.cli import LightningArgumentParser, _InstantiatorFn

from .errors import load_class

__all__ = ["ModelInstantiator", "check_links", "link"]

_SIZES = ("num_classes", "input_shape", "num_tokens")
_PARTS = ("model.init_args", "model.init_args.network.init_args")


def link(parser: LightningArgumentParser) -> None:
    """Link the sizes from the data, which are built first. A target the chosen model lacks is skipped."""
    for size in _SIZES:
        for part in _PARTS:
            parser.link_arguments(f"data.{size}", f"{part}.{size}", apply_on="instantiate")


def check_links(model: Namespace, data: LightningDataModule | None) -> None:
    """Refuse a size that contradicts the data: jsonargparse would put the linked one in its place unsaid.

    Args:
        model: The configuration of the model.
        data: The datamodule.

    Raises:
        ValueError: Naming the field.
    """
    symmetry = getattr(data, "label_permutations", None)
    takes = "label_permutations" in inspect.signature(load_class(model.class_path)).parameters
    if symmetry is not None and takes and model.init_args.get("label_permutations") != symmetry:
        msg = (
            f"model.label_permutations is {model.init_args.get('label_permutations')}, but these labels may only "
            f"be renamed by {symmetry}: give --model.label_permutations '{symmetry}'."
        )
        raise ValueError(msg)
    for size in _SIZES:
        linked = getattr(data, size, None)
        for where, part in (("model", model), ("model.network", model.init_args.get("network"))):
            if not isinstance(part, Namespace) or linked is None:
                continue
            argument = inspect.signature(load_class(part.class_path)).parameters.get(size)
            given = part.get("init_args", Namespace()).get(size)
            if argument is not None and given not in (None, linked, argument.default):
                msg = f"{where}.{size} is {given}, the data have {size}={linked}; leave it out: it follows."
                raise ValueError(msg)


class ModelInstantiator(_InstantiatorFn):
    """Record of the linked values only those the model takes, so that checkpoints can be loaded again."""

    def __call__(self, class_type: type, *args: Any, applied_instantiation_links: dict[str, Any], **kwargs: Any) -> Any:
        """Build the model."""
        self.cli._dump_config()
        config = self.cli.config_dump["model"]
        links = {key: value for key, value in applied_instantiation_links.items() if _accepts(config, key)}
        for target in links:
            _make_room(config, target)
        return super().__call__(class_type, *args, applied_instantiation_links=links, **kwargs)


def _accepts(config: dict[str, Any], target: str) -> bool:
    """Tell whether a link's target, ``model.init_args.a.init_args.b``, is an argument of the configured classes."""
    for name in _names(target):
        if not isinstance(config, dict) or name not in inspect.signature(load_class(config["class_path"])).parameters:
            return False
        config = config.get("init_args", {}).get(name, {})  # none where all arguments are linked
    return True


def _make_room(config: dict[str, Any], target: str) -> None:
    """Give the classes on the way to a link's target their ``init_args``, which lack where all arguments are linked."""
    arguments = config.setdefault("init_args", {})
    for name in _names(target)[:-1]:
        arguments = arguments[name].setdefault("init_args", {})


def _names(target: str) -> list[str]:
    """Split a link's target into the arguments on the way: ``model.init_args.a.init_args.b`` to a, b."""
    return [name for name in target.split(".")[1:] if name != "init_args"]
