"""Calls that are made elsewhere: the same call, of the same layer, on another edge."""

from __future__ import annotations

from torch import fx

from rewrite.backends.torch.calls import occurrences, replace_occurrence
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.in_place import overwrites
from rewrite.backends.torch.overwriting import keep_values, keep_values_in_list, make_new, may_overwrite
from rewrite.backends.torch.scopes import Scope
from rewrite.edit import Move
from rewrite.errors import Diagnostic
from rewrite.graph import Node


def move(draft: Draft, edit: Move) -> None:
    """Bypasses a call where it stands, and puts it on an edge at the anchor."""
    node, anchor = edit.node, edit.anchor
    if node.scope == anchor.scope and node.local == anchor.local and node.local:
        return
    scope = draft.scope(node)
    if not (scope is not None and draft.scope(anchor) is not None and _is_certain(node) and _is_certain(anchor)):
        who = anchor if scope is not None and _is_certain(node) else node
        raise _refused(edit, f"the forward around `{who.name}` could not be captured with certainty").error()
    if node.scope != anchor.scope:
        raise _refused(
            edit,
            f"`{node.name}` is called in the forward of `{node.scope or '(model)'}`, "
            f"`{anchor.name}` in that of `{anchor.scope or '(model)'}`",
        ).error()
    draft.slow_path(scope.path)
    if scope.kind == "list":
        _move_entry(draft, edit, scope)
        return
    if edit.side == "after" and anchor.outputs != 1:
        raise _refused(edit, f"`{anchor.name}` returns several values").error()
    if node.outputs != 1 or not node.inputs:
        raise _refused(edit, f"`{node.name}` does not make one value of another").error()
    here, there = draft.calls_of(node, scope), draft.calls_of(anchor, scope)
    if set(here) != set(there):
        raise _refused(edit, "one of them is called in train or eval mode only, the other in both").error()
    for mode, call in here.items():
        place = _Place(draft, scope, edit, call, draft.slot(node, scope, 0))
        if edit.side == "after":
            place.behind(there[mode])
        else:
            place.in_front(there[mode], draft.slot(anchor, scope, edit.operand))


def _is_certain(node: Node) -> bool:
    return node.linked and not node.on_layer


class _Place:
    """A call in one body of a forward, on its way to another place."""

    def __init__(self, draft: Draft, scope: Scope, edit: Move, call: fx.Node, slot: int) -> None:
        self.draft = draft
        self.scope = scope
        self.edit = edit
        self.call = call
        self.slot = slot

    def behind(self, anchor: fx.Node) -> None:
        """Behind the value of a call, and whatever was put behind it in this write."""
        call = self.call
        last = self.draft.behind.get(anchor, anchor)
        if last is call or (self._source() is last and list(last.users) == [call]):
            return
        # The values that it takes beside the main one must be there, and nobody may have taken the value by then.
        late = max((last, *self._others()))
        users = [user for user in last.users if user is not call]
        if not all(late < user for user in users):
            raise self._cycle().error()
        self._bypass()
        users = [user for user in last.users if user is not call]
        self._take(last)
        for user in users:
            user.replace_input_with(last, call)
        late.append(call)
        self.draft.behind[anchor] = call
        self._settle(last)

    def in_front(self, anchor: fx.Node, slot: int) -> None:
        """In front of one input of a call, and whatever was put in front of it in this write."""
        call = self.call
        target, place = self.draft.ahead.get((anchor, slot), (anchor, slot))
        uses = sum(value is call for user in call.users for _, value in occurrences(user))
        if target is call or (occurrences(target)[place][1] is call and uses == 1):
            return
        for other in self._others():
            if other is target or not other < target:
                raise self._cycle().error()
        self._bypass()
        source = occurrences(target)[place][1]
        self._take(source)
        replace_occurrence(target, place, call)
        target.prepend(call)
        self.draft.ahead[(anchor, slot)] = (call, self.slot)
        self._settle(source)

    def _source(self) -> fx.Node:
        return occurrences(self.call)[self.slot][1]

    def _others(self) -> list[fx.Node]:
        """What the call takes beside its main input; weights and flags of the module are read right before it."""
        others = [value for number, (_, value) in enumerate(occurrences(self.call)) if number != self.slot]
        for value in others:
            if value.op == "get_attr":
                [node for node in value.graph.nodes if node.op == "placeholder"][-1].append(value)
        return [value for value in others if value.op != "get_attr"]

    def _bypass(self) -> None:
        source, users = self._source(), list(self.call.users)
        self.call.replace_all_uses_with(source)
        self.draft.touch(self.scope)
        self.draft.behind.update({key: source for key, last in self.draft.behind.items() if last is self.call})
        keep_values(self.draft, self.scope, source, self.call, users)

    def _take(self, value: fx.Node) -> None:
        replace_occurrence(self.call, self.slot, value)

    def _settle(self, value: fx.Node) -> None:
        """The moved call goes on overwriting its input only where that is safe."""
        called = self.draft.called(self.call, self.scope)
        if overwrites(self.call, called) and not may_overwrite(self.draft, self.scope, value, self.call):
            make_new(self.draft, self.scope, self.call, self.edit.span)

    def _cycle(self) -> Diagnostic:
        node, anchor, side = self.edit.node, self.edit.anchor, self.edit.side
        where = "behind" if side == "after" else "in front of"
        return Diagnostic(
            "RW315",
            f"`{node.name}` cannot stand {where} `{anchor.name}`",
            self.edit.span,
            notes=("it takes a value that is made only later there",),
            help="move what makes that value first, or name a place further back",
        )


def _move_entry(draft: Draft, edit: Move, scope: Scope) -> None:
    """Changes the order of a Sequential; names stay, and with them the keys of the weights."""
    entry, anchor = draft.entry(scope, edit.node), draft.entry(scope, edit.anchor)
    owner = draft.mutable(scope.path)
    names = draft.ordered(owner)
    ahead, behind = draft.neighbours(owner, anchor)
    edge = [*ahead, anchor][0] if edit.side == "before" else [anchor, *behind][-1]
    if names.index(entry) == names.index(edge) + (1 if edit.side == "after" else -1):
        return
    following = names[names.index(entry) + 1 :][:1]
    draft.leave_neighbours(owner, entry)
    ahead, behind = draft.neighbours(owner, anchor)
    if edit.side == "after":
        behind.append(entry)
    else:
        ahead.insert(0, entry)
    names = draft.ordered(owner)
    for name in {*following, entry, *names[names.index(entry) + 1 :][:1]}:
        keep_values_in_list(draft, scope.path, name)


def _refused(edit: Move, why: str) -> Diagnostic:
    return Diagnostic(
        "RW320",
        f"`{edit.node.name}` cannot be moved {edit.side} `{edit.anchor.name}`",
        edit.span,
        notes=(why,),
        help="a call moves within the forward that makes it; else `remove` it here and `insert` a layer there",
    )
