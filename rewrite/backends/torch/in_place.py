"""Operations that overwrite their input, in a captured graph."""

from __future__ import annotations

import inspect
import types

from torch import fx, nn

from rewrite.backends.torch.proxies import IN_PLACE
from rewrite.backends.torch.scopes import Unfaithful
from rewrite.backends.torch.spellings import returns_view


def order_in_place(graph: fx.Graph, children: dict[fx.Node, nn.Module]) -> None:
    """Makes later readers of a value that was overwritten in place read the result of the operation that did it.

    Both are the same tensor, so nothing changes; but now an insertion behind that operation reaches all its readers,
    and `self.relu(y); return y` no longer looks as if the result were unused.
    """
    places: dict[fx.Node, int] | None = None
    for node in list(graph.nodes):
        if not overwrites(node, children.get(node)):
            continue
        operand = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
        if not isinstance(operand, fx.Node):
            continue
        base = operand
        while base.op in ("call_function", "call_method") and returns_view(base) and isinstance(base.args[0], fx.Node):
            base = base.args[0]
        if base is operand and len(operand.users) == 1:
            continue
        if places is None:
            places = {item: number for number, item in enumerate(graph.nodes)}
        if base is not operand:
            if any(places[user] > places[node] for user in base.users):
                raise Unfaithful("overwrites a view of a value that is read again")
            continue
        for user in list(operand.users):
            if places[user] > places[node]:
                user.replace_input_with(operand, node)


def overwrites(node: fx.Node, child: nn.Module | None) -> bool:
    """Whether a recorded call overwrites its first input; `child`: the module that it calls."""
    if node.op == "call_module":
        return bool(getattr(child, "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_function":
        if node.target in IN_PLACE or node.kwargs.get("inplace") is True:
            return True
        name = getattr(node.target, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            return True
        return _inplace_argument(node)
    return False


def _inplace_argument(node: fx.Node) -> bool:
    """Whether a call such as `F.relu(y, True)` passes `inplace` by position."""
    if not isinstance(node.target, types.FunctionType) or True not in node.args:
        return False
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):
        return False
    return bound.arguments.get("inplace") is True
