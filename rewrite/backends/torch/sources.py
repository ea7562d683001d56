"""Where the value of a call is found in a captured forward, for a new call that takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import fx

from rewrite.backends.torch.calls import occurrences
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.scopes import Scope
from rewrite.edit import Replace
from rewrite.errors import Diagnostic
from rewrite.graph import Node, Value
from rewrite.source import Span


def find_source(
    draft: Draft, scope: Scope, mode: str, call: fx.Node, node: Node, wanted: Node, edit: Replace, span: Span | None
) -> fx.Node:
    """What holds the value of `wanted` in one body of a scope, where `call` stands.

    Raises:
        SiteError: the value does not get to this forward (RW320), or is made behind the call (RW315).

    """
    found = _made_here(draft, scope, mode, wanted)
    if found is None:
        found = _handed_in(draft, scope, mode, wanted, (node, *edit.unused))
    where = f"in the forward of `{scope.path or '(model)'}`"
    if found is None:
        raise Diagnostic(
            "RW320",
            f"the value of `{wanted.name}` is not at hand where `{node.name}` is called",
            span,
            notes=(f"`{node.name}` is called {where}", f"`{wanted.name}` is called in that of `{wanted.scope}`")
            if wanted.scope != scope.path
            else (f"{where} it is not made as one value, or not in {mode or 'this'} mode",),
            help="let the replaced part lie within one module, or replace that module as a whole",
        ).error()
    if found is call or not _is_before(found, call):
        raise Diagnostic(
            "RW315",
            f"`{node.name}` would take the value of `{wanted.name}`, which is made behind it",
            span,
            notes=(f"{where} `{wanted.name}` is called later",),
            help="take a value that is made in front of it",
        ).error()
    return found


def _made_here(draft: Draft, scope: Scope, mode: str, wanted: Node) -> fx.Node | None:
    """The call itself, or the outer call that hands its value on as its own."""
    node: Node = wanted
    while True:
        if not node.local or node.outputs != 1:
            return None
        if node.scope == scope.path:
            call = draft.calls[scope.module].nodes.get(node.local, {}).get(mode)
            return None if call is None or call in draft.gone else draft.behind.get(call, call)
        if node.owner is None or not _is_result(draft, node):
            return None
        node = node.owner


def _is_result(draft: Draft, node: Node) -> bool:
    """Whether a call's value is what the forward around it returns."""
    inner = draft.scope(node)
    if inner is None:
        return False
    calls = draft.calls[inner.module].nodes[node.local]
    if set(calls) != set(inner.bodies):
        return False
    for mode, call in calls.items():
        output = next(item for item in reversed(inner.bodies[mode].graph.nodes) if item.op == "output")
        if output.args[0] not in (call, draft.behind.get(call, call)):
            return False
    return True


def _handed_in(draft: Draft, scope: Scope, mode: str, wanted: Node, takers: Sequence[Node]) -> fx.Node | None:
    """What a replaced call of this scope takes the value from, if it comes from outside or in parts."""
    for taker in takers:
        if taker.scope != scope.path or not taker.local:
            continue
        call = draft.calls[scope.module].nodes[taker.local].get(mode)
        if call is None or call in draft.gone:
            continue
        sources = {
            occurrences(call)[draft.slot(taker, scope, operand.number)][1]
            for operand in taker.inputs
            if _is_of(operand.value, wanted)
        }
        if len(sources) == 1:
            return sources.pop()
    return None


def _is_of(value: Value, wanted: Node) -> bool:
    return value.producer is wanted or any(carrier is wanted for carrier in value.carriers)


def _is_before(first: fx.Node, second: fx.Node) -> bool:
    return first < second


def entries_between(node: Node, wanted: Node, unused: Sequence[Node]) -> list[Node] | None:
    """The entries of a Sequential that stand between a value and the entry that is to take it, all of them unused.

    None: the value does not get there.
    """
    found: list[Node] = []
    free = {id(other): other for other in unused if other.scope == node.scope and other.local}
    here = node
    while True:
        if not here.inputs:
            return None
        value = here.inputs[0].value
        if _is_of(value, wanted):
            return found
        before = next((other for other in _makers(value) if id(other) in free), None)
        if before is None:
            return None
        found.append(before)
        here = before


def _makers(value: Value) -> Iterator[Node]:
    if value.producer is not None:
        yield value.producer
        yield from value.carriers
