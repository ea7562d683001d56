"""Weights in safetensors files: tensors and a flat table of strings, nothing that runs.

Tied tensors are stored once. The metadata then maps each other key to the one that was stored, which is what
`safetensors.torch.save_model` writes and `load_model` reads.
"""

from __future__ import annotations

import torch

from rewrite.errors import Diagnostic
from rewrite.saved.content import damaged
from rewrite.saved.output import reason


def read_safetensors(path: str) -> dict[str, torch.Tensor]:
    """The tensors in the file at `path`, under every key that they had.

    Raises:
        SafetyError: RW504 the file is damaged.

    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            found: dict[str, torch.Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata: dict[str, str] = file.metadata() or {}
    except Exception as error:  # its own class, and others from the tensors
        raise damaged(path, reason(error)).error() from error
    for key, stored in metadata.items():
        if stored in found and key not in found:
            found[key] = found[stored]
    return found


def write_safetensors(model: torch.nn.Module, path: str) -> str:
    """Writes the state_dict of `model` to `path`.

    Returns:
        The empty string: such a file can always be checked, and was.

    Raises:
        SafetyError: RW506 the state_dict holds something that is no tensor.

    """
    from safetensors.torch import save_file

    kept: dict[str, torch.Tensor] = {}
    metadata = {"format": "pt"}
    first: dict[object, str] = {}
    for key, value in model.state_dict().items():
        if not isinstance(value, torch.Tensor):
            raise Diagnostic(
                "RW506",
                f"`{key}` of the state_dict is a {type(value).__name__}: safetensors holds tensors only",
                help="write a `.pt` file",
            ).error()
        tensor = value.detach()
        # The same numbers in the same order: stored once. Tensors that share only a part are stored apart.
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            metadata[key] = first[place]
            continue
        first[place] = key
        kept[key] = tensor.contiguous()
    _separate(kept)
    save_file(kept, path, metadata=metadata)
    if read_safetensors(path).keys() != model.state_dict().keys():
        raise damaged(path, "what was read back differs from what was written").error()
    return ""


def _separate(tensors: dict[str, torch.Tensor]) -> None:
    """Gives each tensor a storage of its own: the format refuses any two that share one."""
    seen: set[int] = set()
    for key, tensor in tensors.items():
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensors[key] = tensor.clone()
        seen.add(storage.data_ptr())
