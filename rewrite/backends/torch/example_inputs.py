"""Example inputs from their shapes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

InputSpec = tuple[str | None, tuple[int, ...], str]
"""name of the argument (None: by position), sizes, dtype"""

Examples = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]
"""positional and keyword arguments, as `apply_rules(example_inputs=...)` takes them"""


def make_examples(specs: Sequence[InputSpec], *, seed: int = 0, like: torch.nn.Module | None = None) -> Examples:
    """The arguments of one call: a tensor per spec, the positional ones in order, and those with a name by it.

    Floating point numbers are standard normal. Integers and booleans are 0 or 1, which is valid as a class, a token
    or a mask of nearly every model. They are made on the device of the parameters of `like`, or on the CPU.
    """
    first = next(like.parameters(), None) if like is not None else None
    device = first.device if first is not None else torch.device("cpu")
    generator = torch.Generator().manual_seed(seed)
    positional: list[torch.Tensor] = []
    named: dict[str, torch.Tensor] = {}
    for name, sizes, dtype_name in specs:
        dtype: torch.dtype = getattr(torch, dtype_name)
        if dtype.is_floating_point:
            tensor = torch.randn(sizes, generator=generator).to(dtype)
        else:
            tensor = torch.randint(0, 2, sizes, generator=generator).to(dtype)
        tensor = tensor.to(device)
        if name is None:
            positional.append(tensor)
        else:
            named[name] = tensor
    return tuple(positional), named
