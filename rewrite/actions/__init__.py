"""One module per action word. An action is a frozen dataclass that turns a match into edits."""

from rewrite.actions.action import Assignment, LayerSpec, Reference
from rewrite.actions.fold import Fold
from rewrite.actions.freeze import Freeze
from rewrite.actions.insert import Insert
from rewrite.actions.move import Move
from rewrite.actions.remove import Remove
from rewrite.actions.replace import Replace
from rewrite.actions.reset import Reset
from rewrite.actions.set import Set
from rewrite.actions.tap import Tap
from rewrite.actions.wrap import Wrap

Action = Insert | Replace | Remove | Wrap | Set | Fold | Move | Tap | Freeze | Reset

__all__ = [
    "Action",
    "Assignment",
    "Fold",
    "Freeze",
    "Insert",
    "LayerSpec",
    "Move",
    "Reference",
    "Remove",
    "Replace",
    "Reset",
    "Set",
    "Tap",
    "Wrap",
]
