"""What code of models is told while a forward is captured: that what stands for a tensor is one."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from rewrite.backends.torch.proxies import ModelType, model_is_tensor, model_isinstance, model_jit_isinstance

_NO_MODELS = frozenset([*(sys.stdlib_module_names - {"__main__"}), "torch", "rewrite", "numpy", "sympy"])
"""modules of Python with no code of models"""


class Answers:
    """While it is entered, code that is not torch's own is told that what stands for a tensor is one.

    That is code of forwards and of what they call, wherever it stands, so all modules of Python are meant.

    Args:
        on_grad: called where anybody asks whether gradients are recorded.

    """

    def __init__(self, on_grad: Callable[[], None]) -> None:
        self.on_grad = on_grad
        self.given: list[tuple[dict[str, Any], str]] = []
        """globals of modules of Python, and the builtin in them that knows what stands for a tensor"""
        self.plain = (torch.is_tensor, torch.jit.isinstance, torch.is_grad_enabled)

    def __enter__(self) -> None:
        self.plain = _, is_instance, is_grad_enabled = (torch.is_tensor, torch.jit.isinstance, torch.is_grad_enabled)

        def asked() -> bool:
            self.on_grad()
            return is_grad_enabled()

        torch.is_tensor = model_is_tensor  # type: ignore[assignment]
        torch.jit.isinstance = functools.partial(model_jit_isinstance, is_instance)
        torch.is_grad_enabled = asked
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in _NO_MODELS:
                self._give(getattr(module, "__dict__", {}), "isinstance", model_isinstance)

    def __exit__(self, *_: object) -> None:
        torch.is_tensor, torch.jit.isinstance, torch.is_grad_enabled = self.plain
        for space, name in self.given:
            del space[name]
        self.given = []

    def give_to(self, function: Any) -> None:
        """Tells the module that a forward stands in, which may be no module of Python's any more, of types as well."""
        space = getattr(inspect.unwrap(getattr(function, "_rewrite_original", function)), "__globals__", {})
        self._give(space, "isinstance", model_isinstance)
        self._give(space, "type", ModelType)

    def _give(self, space: dict[str, Any], name: str, answer: object) -> None:
        if name not in space:
            space[name] = answer
            self.given.append((space, name))
