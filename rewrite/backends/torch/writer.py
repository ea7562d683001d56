"""Carries out edits on a copy of a model: one room for each kind of edit, and one draft that they all work on.

The three kinds of scope are edited each in its own way. A list gets entries beside the anchor. A graph is edited as a
`torch.fx.Graph`, and its generated forward is put on a subclass of the module's own class. Around a leaf whose
forward context is not certain, the leaf's own call is extended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from rewrite.backends.torch.calls import Calls
from rewrite.backends.torch.draft import Draft
from rewrite.backends.torch.insertion import insert
from rewrite.backends.torch.layers import Builder
from rewrite.backends.torch.moving import move
from rewrite.backends.torch.removal import remove
from rewrite.backends.torch.replacement import replace
from rewrite.backends.torch.scopes import Capture
from rewrite.backends.torch.updates import update
from rewrite.edit import Edit, Insert, Move, Remove, Replace, Update


class Writer:
    """One write: from a capture and the edits of one clause to a new model."""

    def __init__(self, capture: Capture, calls: Mapping[nn.Module, Calls], builder: Builder) -> None:
        self.draft = Draft(capture, calls, builder)

    def run(self, edits: Iterable[Edit]) -> tuple[nn.Module, dict[int, list[str]]]:
        """Carries out the edits in order; returns the new model, and the paths of the layers that each edit made."""
        draft = self.draft
        names: dict[int, list[str]] = {}
        edits = [*edits]
        draft.choose_code(edits)
        with draft.builder.own_randomness():
            for number, edit in enumerate(edits):
                draft.made = []
                match edit:
                    case Insert():
                        insert(draft, edit)
                    case Replace():
                        replace(draft, edit)
                    case Remove():
                        remove(draft, edit)
                    case Move():
                        move(draft, edit)
                    case Update():
                        update(draft, edit)
                names[number] = draft.made
        draft.finish()
        return draft.root, names

    def changed_scopes(self) -> list[nn.Module]:
        """The original modules whose captured graphs this write has edited."""
        return [scope.module for scope in self.draft.changed.values()]
