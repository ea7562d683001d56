"""Variables of a changed copy: carried over, drawn anew, folded, frozen."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from rewrite.backends.keras.folding import fold
from rewrite.backends.keras.making import Making, Pair, wanted_training
from rewrite.backends.keras.own_layers import HalfFrozenBatchNormalization
from rewrite.backends.keras.reader import children_of
from rewrite.backends.keras.refusal import cannot
from rewrite.edit import Initialiser, Update
from rewrite.graph import Layer


def variables_of(layer: keras.Layer, *, whole: bool = True) -> list[Any]:
    """Parameters and statistics of a layer and all that is in it, in order; not the states of random generators."""
    return [
        variable
        for part in (layer._flatten_layers() if whole else [layer])
        for variable in (*part._trainable_variables, *part._non_trainable_variables)
    ]


def carry_over(pair: Pair) -> int:
    """Gives a layer the numbers of another one, as far as the shapes are the same, and tells how many variables it has.

    They are copied: on JAX a variable takes an array over as it is, and training one model would delete the other's.
    """
    count = 0
    for was, now in _alike(pair):
        now.assign(keras.ops.copy(was))
        count += 1
    return count


def _alike(pair: Pair) -> Iterator[tuple[Any, Any]]:
    """Variables of two layers that mean the same and have one shape."""
    parts = [list(layer._flatten_layers()) if pair.whole else [layer] for layer in (pair.old, pair.new)]
    alike = len(parts[0]) == len(parts[1])
    for one, other in zip(*parts, strict=True) if alike else ((pair.old, pair.new),):
        olds, news = (variables_of(layer, whole=not alike) for layer in (one, other))
        names = [_names(variables) for variables in (olds, news)]
        if names[0] != names[1]:
            by_name = dict(zip(names[0], olds, strict=True))  # a bias less, or more, or made at another time
            olds = [by_name.get(name) for name in names[1]]
        for was, now in zip(olds, news, strict=True):
            if was is not None and tuple(was.shape) == tuple(now.shape):
                yield was, now


def _names(variables: Sequence[Any]) -> list[str]:
    """Names of variables within their layer; those that a class leaves to Keras are counted on from layer to layer."""
    unnamed = itertools.count()
    return [
        f"variable {next(unnamed)}" if re.fullmatch(r"variable(_\d+)?", variable.name) else variable.name
        for variable in variables
    ]


def origins(making: Making) -> dict[int, Any]:
    """Identity of a variable of the copy -> the variable whose numbers it has; of what was drawn anew, none."""
    found = {id(now): was for pair in making.pairs for was, now in _alike(pair)}
    for path, updates in making.edits.updates.items():
        copy = making.copies.get(id(making.reading.places[path]))
        if copy is not None and any(update.changes.keys() & {"reset", "fold", "fold_ahead"} for update in updates):
            for variable in copy._trainable_variables if children_of(copy) else variables_of(copy):
                found.pop(id(variable), None)
    return found


def update_weights(making: Making) -> None:
    """Carries out `reset` and `fold`."""
    for path, updates in making.edits.updates.items():
        for update in updates:
            if "reset" in update.changes:
                _reset(making, path, update)
            for key in ("fold", "fold_ahead"):
                norm = update.changes.get(key)
                if isinstance(norm, Layer):
                    old, new = making.reading.places[path], making.copies[id(making.reading.places[path])]
                    fold(old, new, making.reading.places[norm.path], key == "fold_ahead", update.span)


# ---- reset


def _reset(making: Making, path: str, update: Update) -> None:
    layer = making.reading.places[path]
    copy = making.copies.get(id(layer))
    if copy is None:
        raise cannot(f"`{path}` stands in code that is no graph, so its weights cannot be drawn anew", update.span)
    whole = not children_of(layer)  # parts that are layers of their own are reset one by one
    if not whole and not copy._trainable_variables:
        return
    making.builder.seed_for(update.seed)
    wanted = update.changes["reset"]
    if isinstance(wanted, Initialiser):
        for variable in (whole and copy.trainable_variables) or copy._trainable_variables:
            make = _initialiser(wanted, variable, update)
            variable.assign(make(tuple(variable.shape), dtype=variable.dtype))
        return
    try:
        fresh = type(copy).from_config(copy.get_config())
        fresh.build_from_config(layer.get_build_config())
        if whole:
            carry_over(Pair(fresh, copy))
        else:
            for was, now in zip(fresh._trainable_variables, copy._trainable_variables, strict=True):
                now.assign(keras.ops.copy(was))
    except Exception as problem:
        raise cannot(
            f"how the weights of `{path}` ({type(layer).__name__}) begin is known to its constructor only",
            update.span,
            help="name an initialiser, `reset ... with normal(std=0.02)`",
        ) from problem


def _initialiser(wanted: Initialiser, variable: Any, update: Update) -> Any:
    """An initialiser of Keras for one of `torch.nn.init`."""
    give = wanted.keywords
    if len(variable.shape) < 2 and wanted.name not in ("constant", "normal", "ones", "uniform", "zeros"):
        # These initialisers need a fan-in; a bias starts at zero as in their papers, a scale at one.
        return keras.initializers.Zeros() if "bias" in variable.name else keras.initializers.Ones()
    spread = {"normal": "untruncated_normal", "uniform": "uniform"}
    match wanted.name.split("_"):
        case ["zeros"]:
            return keras.initializers.Zeros()
        case ["ones"]:
            return keras.initializers.Ones()
        case ["constant"]:
            return keras.initializers.Constant(give.get("val", 0.0))
        case ["eye"]:
            return keras.initializers.Identity()
        case ["orthogonal"]:
            return keras.initializers.Orthogonal(gain=give.get("gain", 1.0))
        case ["normal"]:
            return keras.initializers.RandomNormal(give.get("mean", 0.0), give.get("std", 1.0))
        case ["uniform"]:
            return keras.initializers.RandomUniform(give.get("a", 0.0), give.get("b", 1.0))
        case ["trunc", "normal"]:
            return keras.initializers.TruncatedNormal(give.get("mean", 0.0), give.get("std", 1.0))
        case ["xavier", kind]:
            gain = give.get("gain", 1.0)
            assert isinstance(gain, int | float), "checked by the rule"
            return keras.initializers.VarianceScaling(gain**2, "fan_avg", spread[kind])
        case ["kaiming", kind]:
            return keras.initializers.VarianceScaling(_gain(give) ** 2, str(give.get("mode", "fan_in")), spread[kind])
    raise cannot(f"Keras has no initialiser `{wanted.name}`", update.span)


def _gain(give: Any) -> float:
    """What an activation does to the size of numbers, as `torch.nn.init.calculate_gain` has it."""
    kind = give.get("nonlinearity", "leaky_relu")
    if kind == "leaky_relu":
        return math.sqrt(2 / (1 + float(give.get("a", 0)) ** 2))
    return {"relu": math.sqrt(2), "tanh": 5 / 3, "selu": 0.75}.get(str(kind), 1.0)


# ---- what learns


def carry_training(making: Making) -> None:
    """Sets what learns: as in the given model, then as the rules say.

    A flag of a model is the flag of all in it, so models are set first, from the outside in, and layers last.
    """
    pairs = [
        (path, layer, making.copies[id(layer)])
        for path, layer in making.reading.places.items()
        if id(layer) in making.copies
    ]
    wakes = {
        path
        for path, updates in making.edits.updates.items()
        for update in updates
        if update.changes.get("trainable") is True
    }
    frozen_before = {path for path, layer in making.reading.places.items() if _stopped(making, path)}
    for path, layer, copy in pairs:
        if children_of(layer) and not layer.trainable:
            copy.trainable = any(_within(wake, path) for wake in wakes)
    opened = any(
        not layer.trainable and children_of(layer) and any(_within(w, path) for w in wakes) for path, layer, _ in pairs
    )
    for path, layer, copy in pairs:
        flag = layer.trainable and not (opened and path in frozen_before)
        if children_of(layer):
            for was, now in zip(layer._trainable_variables, copy._trainable_variables, strict=False):
                now.trainable = layer.trainable and was.trainable
        else:
            _learns_as(layer, copy)
            if not flag and copy.trainable:
                copy.trainable = False
    found = {path: copy for path, _, copy in pairs}
    for path, updates in making.edits.updates.items():
        if path in found and any(update.changes.keys() & {"trainable", "statistics"} for update in updates):
            _freeze(found[path], making.reading._layers[path], updates)
    for copy in found.values():
        if isinstance(copy, HalfFrozenBatchNormalization):
            copy.hold()
    for path, layer, copy in reversed(pairs):
        # Only the flag of a layer gets into a file, and it is the flag of all in it.
        mixed = children_of(layer) and copy._trainable_variables and path in making.edits.updates
        if mixed and not any(variable.trainable for variable in copy.trainable_variables):
            copy.trainable = False


def _learns_as(layer: Any, copy: Any) -> None:
    """Sets the flags of a layer and of all in it, from the outside in: a flag is passed on to what lies inside.

    What a layer makes when it is built, as an attention does, has not heard of a flag that was set before.
    """
    for part, twin in zip(layer._flatten_layers(), copy._flatten_layers(), strict=False):
        twin.trainable = part.trainable
        for was, now in zip(part._trainable_variables, twin._trainable_variables, strict=False):
            if part.trainable and was.trainable != now.trainable:
                now.trainable = was.trainable


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _stopped(making: Making, path: str) -> bool:
    layer = making.reading._layers[path]
    return layer.still or (layer.parameters > 0 and not layer.trainable)


def _freeze(copy: Any, layer: Layer, updates: Sequence[Update]) -> None:
    learns, moves = wanted_training(layer, updates)
    if layer.children:
        for variable in copy._trainable_variables:
            variable.trainable = learns
    elif not layer.statistics:
        copy.trainable = learns
    elif isinstance(copy, HalfFrozenBatchNormalization):
        copy.trainable = True
    elif learns and not moves:
        raise cannot(
            f"the statistics of `{layer.path}` cannot be frozen alone",
            updates[-1].span,
            f"a {layer.class_name} whose statistics stand still does not learn either",
            help="write `freeze`, which stops both",
        )
    else:
        copy.trainable = moves
        for variable in copy._trainable_variables:
            variable.trainable = learns
