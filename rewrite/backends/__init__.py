"""The frameworks. Each is imported when a model of it turns up."""

from __future__ import annotations

import sys
from typing import Any

from rewrite.backends.backend import Backend, Example
from rewrite.errors import Diagnostic


def backend_for(model: object) -> Backend:
    """The backend whose framework made `model`.

    A framework that nobody has imported cannot have made it, so none is imported in vain.

    Raises:
        SafetyError: no backend knows it (RW504).

    """
    # Keras first: on PyTorch its models are torch modules as well, whose forwards say nothing of their layers.
    if "keras" in sys.modules and getattr(sys.modules["keras"], "__version__", "").startswith("3."):
        from rewrite.backends.keras.backend import KerasBackend

        keras = KerasBackend()
        if keras.handles(model):
            return keras
    if "torch" in sys.modules:
        from rewrite.backends.torch.backend import TorchBackend

        torch = TorchBackend()
        if torch.handles(model):
            return torch
    raise Diagnostic(
        "RW504",
        f"a {type(model).__module__}.{type(model).__qualname__} is no model that rules can change",
        help="pass a torch.nn.Module or a keras.Model",
    ).error()


def first_backend() -> Backend:
    """The backend that models are built with where no model says which; its framework is imported."""
    from rewrite.backends.torch.backend import TorchBackend

    return TorchBackend()


def example_of(inputs: Any) -> Example | None:
    """Example inputs in the forms that callers have them: one value, a tuple of arguments, a dict of keywords."""
    if inputs is None:
        return None
    if isinstance(inputs, tuple):
        if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
            return Example(inputs[0], inputs[1])
        return Example(inputs)
    if isinstance(inputs, list):
        return Example(tuple(inputs))
    if isinstance(inputs, dict):
        return Example((), inputs)
    return Example((inputs,))
