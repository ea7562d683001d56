"""Whole modules in files of `torch.save`: classes, structure and weights in one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rewrite.errors import Diagnostic, RewriteError
from rewrite.saved import unreadable
from rewrite.saved.content import Content, content_of, damaged
from rewrite.saved.unpickle import unpickle

_SHOWN = 5


def read_whole_module(path: str, *, allow: Sequence[str] = ()) -> torch.nn.Module:
    """The module in the file at `path`.

    Args:
        path: a file that `torch.save(model, path)` wrote.
        allow: dotted names of classes that may be in it, beside those of torch.nn and torchvision.

    Raises:
        SafetyError: RW502 it holds code, RW504 it holds no module, or is missing or damaged.

    """
    if content_of(path) is Content.SAFETENSORS:
        raise _weights_alone(path).error()
    found = unpickle(path, modules=True, allow=allow)
    if not isinstance(found, torch.nn.Module):
        raise _no_module(path, found).error()
    if problem := _unsound(found):
        raise damaged(path, problem).error()
    return found


def write_whole_module(model: torch.nn.Module, path: str, *, allow: Sequence[str] = ()) -> str:
    """Writes `model` to `path` and reads it back.

    Returns:
        Why it could not be read back (it holds what is not read from any file); empty: it was, and is the same.

    Raises:
        SafetyError: RW504 the file does not hold what was written.

    """
    with open(path, "wb") as file:
        torch.save(model, file)
    try:
        again = read_whole_module(path, allow=allow)
    except RewriteError as error:
        if error.code != "RW502":
            raise
        return error.diagnostics[0].message.replace(f"`{path}`", "it")
    written, read = model.state_dict(), again.state_dict()
    if written.keys() != read.keys() or any(not _same(written[key], read[key]) for key in written):
        raise damaged(path, "what was read back differs from what was written").error()
    return ""


def _same(left: object, right: object) -> bool:
    """Whether two values of a state_dict agree to the bit; NaN agrees with itself."""
    if not (isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor)):
        return type(left) is type(right)
    if left.shape != right.shape or left.dtype != right.dtype:
        return False
    if left.is_meta or left.layout is not torch.strided or left.is_quantized:
        return True
    pair = (value.detach().cpu().contiguous().flatten().view(torch.uint8) for value in (left, right))
    return torch.equal(*pair)


def _unsound(model: torch.nn.Module) -> str:
    """What is wrong with a module that a file put together without its constructor; empty: nothing."""
    kinds: dict[str, type] = {
        "_modules": torch.nn.Module,
        "_parameters": torch.nn.Parameter,
        "_buffers": torch.Tensor,
    }
    seen: set[int] = set()
    pending = [model]
    while pending:
        module = pending.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for table, kind in kinds.items():
            entries = vars(module).get(table)
            if not isinstance(entries, dict):
                return f"a {type(module).__name__} without its table of {table.strip('_')}"
            for name, entry in entries.items():
                if not isinstance(name, str) or not (entry is None or isinstance(entry, kind)):
                    return f"a {type(module).__name__} with something else among its {table.strip('_')}"
        pending += [child for child in vars(module)["_modules"].values() if child is not None]
    return ""


def _weights_alone(path: str, count: int | None = None) -> Diagnostic:
    many = "" if count is None else f" ({count} tensors)"
    return unreadable(
        f"`{path}` holds weights alone{many}, no model", help=f"name what builds the model: `torchvision:NAME@{path}`"
    )


def _no_module(path: str, found: object) -> Diagnostic:
    if isinstance(found, dict) and found and all(isinstance(value, torch.Tensor) for value in found.values()):
        return _weights_alone(path, len(found))
    notes = []
    if isinstance(found, dict) and found:
        keys = ", ".join(f"`{key}`" for key in list(found)[:_SHOWN])
        notes.append(f"its keys: {keys}{', ...' if len(found) > _SHOWN else ''}")
    return unreadable(
        f"`{path}` holds a value of type {type(found).__name__}, no model",
        *notes,
        help="save the model itself, torch.save(model, ...), or its state_dict",
    )
