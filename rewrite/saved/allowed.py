"""The classes that a whole module may be made of when it is read: by exact identity, never a name or a prefix.

Classes of modules only. A function on such a list is called with whatever arguments the file holds, so there are
none but our own, which check theirs; and no class that calls what it is given, such as `functools.partial`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeGuard

import torch
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from rewrite.errors import Diagnostic
from rewrite.saved import unreadable
from rewrite.saved.layer_partial import LayerPartial
from rewrite.saved.output import reason

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]
"""a class, or a class and the dotted name under which files know it: what `torch.serialization.safe_globals` takes"""

_TORCHVISION = {
    "models": "alexnet convnext densenet efficientnet googlenet inception maxvit mnasnet mobilenetv2 mobilenetv3 "
    "regnet resnet shufflenetv2 squeezenet swin_transformer vgg vision_transformer _utils",
    "models.detection": "backbone_utils faster_rcnn fcos generalized_rcnn keypoint_rcnn mask_rcnn retinanet roi_heads "
    "rpn ssd ssdlite transform anchor_utils",
    "models.optical_flow": "raft",
    "models.quantization": "googlenet inception mobilenetv2 mobilenetv3 resnet shufflenetv2",
    "models.segmentation": "_utils deeplabv3 fcn lraspp",
    "models.video": "mvit resnet s3d swin_transformer",
    "ops": "deform_conv drop_block feature_pyramid_network misc poolers ps_roi_align ps_roi_pool roi_align roi_pool "
    "stochastic_depth",
}
"""package -> its modules that define layers and models"""


def allowed(extra: Sequence[str] = (), *, torchvision: bool = False) -> list[Allowed]:
    """Everything that a file may name, beside tensors and plain data.

    Args:
        extra: dotted names of the user's classes; importing them runs their modules.
        torchvision: whether the file names anything of torchvision, whose import takes a second.

    Raises:
        SafetyError: RW502 one of `extra` may not be allowed, RW504 it cannot be imported.

    """
    from rewrite.backends.torch.generated import SAFE_GLOBALS
    from rewrite.backends.torch.own_layers import OWN_LAYERS

    listed: list[Allowed] = [*torch_classes(), *OWN_LAYERS, *SAFE_GLOBALS]
    if torchvision:
        listed += torchvision_classes()
    listed += [(user_class(name), name) for name in extra]
    # A file's `functools.partial` is built as this class, which takes nothing but a layer class and plain values.
    constructors = frozenset(one for one in listed if _is_layer_class(one))
    listed.append((LayerPartial.within(constructors), "functools.partial"))
    return listed


def torch_classes() -> Iterator[type]:
    """The public module classes of `torch.nn`, and the one private class that a public one puts into itself."""
    for value in vars(torch.nn).values():
        # `torch.nn.parallel` is left out: its classes reach for devices and processes when they are unpickled.
        if _is_layer_class(value) and value.__module__.startswith("torch.nn.modules."):
            yield value
    yield NonDynamicallyQuantizableLinear


def torchvision_classes() -> Iterator[type]:
    """The module classes that torchvision's own models and operators define."""
    from rewrite.backends.torch import torchvision_schemas

    try:
        torchvision_schemas.declare()
    except ImportError:
        return
    for package, names in _TORCHVISION.items():
        for name in names.split():
            module = importlib.import_module(f"torchvision.{package}.{name}")
            for value in vars(module).values():
                # Only what the module itself defines; a GraphModule is made of source text.
                if _is_layer_class(value) and value.__module__ == module.__name__:
                    yield value


def _is_layer_class(value: object) -> TypeGuard[type]:
    return (
        isinstance(value, type) and issubclass(value, torch.nn.Module) and not issubclass(value, torch.fx.GraphModule)
    )


def is_pythons_own(name: str) -> bool:
    """Whether a dotted name belongs to Python itself, where classes run programs and open files."""
    return name.partition(".")[0] in sys.stdlib_module_names


def is_barred(name: str) -> bool:
    """Whether it is known, without an import, that `--allow` would refuse a dotted name."""
    module, _, attribute = name.rpartition(".")
    loaded = sys.modules.get(module)
    return is_pythons_own(name) or (loaded is not None and not isinstance(getattr(loaded, attribute, None), type))


def user_class(name: str) -> type:
    """The class that `--allow` names."""
    if is_pythons_own(name):
        raise _not_allowed(name, "it belongs to Python itself").error()
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)  # at the end: the user's modules are found and hide none
    module, _, attribute = name.rpartition(".")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's module is run, and anything can go wrong there
        raise unreadable(
            f"`--allow {name}` cannot be imported: {reason(error)}", help="write it as `package.module.Class`"
        ).error() from error
    if not isinstance(found, type):
        raise _not_allowed(name, "it is not a class").error()
    if is_pythons_own(found.__module__) or issubclass(found, torch.fx.GraphModule):
        raise _not_allowed(name, f"it is `{found.__module__}.{found.__qualname__}`").error()
    return found


def _not_allowed(name: str, why: str) -> Diagnostic:
    return Diagnostic(
        "RW502",
        f"`--allow {name}` is refused: {why}",
        notes=("a file calls what is allowed with arguments of its own; classes of modules take that, others do not",),
        help="load the file in a program of yours that trusts it, and save its state_dict",
    )
