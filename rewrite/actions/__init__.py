"""One module per action word. An action is a frozen dataclass that turns a match into edits."""

from rewrite.actions.action import Assignment, LayerSpec, Reference
from rewrite.actions.freeze import Freeze
from rewrite.actions.insert import Insert
from rewrite.actions.remove import Remove
from rewrite.actions.replace import Replace
from rewrite.actions.reset import Reset
from rewrite.actions.set import Set

Action = Insert | Replace | Remove | Set | Freeze | Reset

__all__ = [
    "Action",
    "Assignment",
    "Freeze",
    "Insert",
    "LayerSpec",
    "Reference",
    "Remove",
    "Replace",
    "Reset",
    "Set",
]
