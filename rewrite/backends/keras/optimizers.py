"""What an optimizer has gathered about the variables of a model, handed on to the optimizer of a changed copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def carry_state(old: Any, new: Any, written: Any, origins: Mapping[int, Any]) -> None:
    """Builds `new` for the changed model and gives it the state of `old`.

    Averages and momenta stand in lists beside the variables that they are about; the steps done and the rate of
    learning in variables of the optimizer's own.

    Args:
        old: the optimizer of the given model.
        new: that of the changed one, of the same class.
        written: the changed model.
        origins: identity of a variable of the changed model -> the variable whose numbers it has. Others begin anew.

    """
    if old is None or new is None or type(old) is not type(new) or not old.built:
        return
    new.build(written.trainable_variables)
    places = {id(variable): place for place, variable in enumerate(old._trainable_variables)}
    came_from = [places.get(id(origins.get(id(variable)))) for variable in new._trainable_variables]
    for name, value in vars(new).items():
        before = vars(old).get(name)
        if isinstance(value, keras.Variable) and isinstance(before, keras.Variable):
            value.assign(keras.ops.copy(before))  # JAX would share the array, and training takes its arrays apart
        elif name != "_trainable_variables" and _is_beside(value, new) and _is_beside(before, old):
            for slot, place in zip(value, came_from, strict=True):
                was = before[place] if place is not None else None
                if was is not None and slot is not None and tuple(was.shape) == tuple(slot.shape):
                    slot.assign(keras.ops.copy(was))


def _is_beside(value: object, optimizer: Any) -> bool:
    """Whether it holds one variable, or none, for each variable that the optimizer changes."""
    return (
        isinstance(value, list)
        and len(value) == len(optimizer._trainable_variables)
        and all(item is None or isinstance(item, keras.Variable) for item in value)
    )
