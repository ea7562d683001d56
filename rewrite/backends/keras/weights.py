"""Variables of a changed copy: carried over, drawn anew, folded, frozen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras

from rewrite.backends.keras.folding import fold
from rewrite.backends.keras.layers import cannot
from rewrite.backends.keras.reader import children_of, graph_of, walk
from rewrite.edit import Initialiser, Update
from rewrite.graph import Layer

if TYPE_CHECKING:
    from rewrite.backends.keras.writer import Writer


def variables_of(layer: keras.Layer) -> list[Any]:
    """Parameters and statistics of a layer and all that is in it, in order; not the states of random generators."""
    return [
        variable
        for part in layer._flatten_layers()
        for variable in (*part._trainable_variables, *part._non_trainable_variables)
    ]


def carry_over(old: keras.Layer, new: keras.Layer) -> None:
    """Gives a layer the numbers of another one, as far as the shapes are the same."""
    olds, news = variables_of(old), variables_of(new)
    if len(olds) != len(news):  # a bias less, or more
        by_name = {variable.name: variable for variable in olds}
        olds = [by_name.get(variable.name) for variable in news]
    for was, now in zip(olds, news, strict=True):
        if was is None or tuple(was.shape) != tuple(now.shape):
            continue
        now.assign(was)


def update_weights(writer: Writer) -> None:
    """Carries out `reset` and `fold`."""
    for path, updates in writer.edits.updates.items():
        for update in updates:
            if "reset" in update.changes:
                _reset(writer, path, update)
            for key in ("fold", "fold_ahead"):
                norm = update.changes.get(key)
                if isinstance(norm, Layer):
                    old, new = writer.reading.places[path], writer.copies[id(writer.reading.places[path])]
                    fold(old, new, writer.reading.places[norm.path], key == "fold_ahead", update.span)


# ---- reset


def _reset(writer: Writer, path: str, update: Update) -> None:
    layer = writer.reading.places[path]
    copy = writer.copies.get(id(layer))
    if copy is None:
        raise cannot(f"`{path}` stands in code that is no graph, so its weights cannot be drawn anew", update.span)
    if children_of(layer):
        return  # its parts are reset one by one
    writer.builder.seed_for(update.seed)
    wanted = update.changes["reset"]
    if isinstance(wanted, Initialiser):
        for variable in copy.trainable_variables or copy._trainable_variables:
            make = _initialiser(wanted, variable, update)
            variable.assign(make(tuple(variable.shape), dtype=variable.dtype))
        return
    try:
        fresh = type(copy).from_config(copy.get_config())
        fresh.build_from_config(layer.get_build_config())
        carry_over(fresh, copy)
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


def carry_training(writer: Writer) -> None:
    """Sets what learns: as in the given model, then as the rules say.

    A flag of a model is the flag of all in it, so models are set first, from the outside in, and layers last.
    """
    model = writer.reading.model
    pairs = [
        (path, layer, writer.copies[id(layer)])
        for path, layer in writer.reading.places.items()
        if id(layer) in writer.copies
    ]
    opaque = [(layer, copy) for _, layer, copy in pairs if graph_of(layer) is None and children_of(layer)]
    inner = {path: pair for layer, copy in opaque for path, pair in _inside(writer, layer, copy).items()}
    wakes = {
        path
        for path, updates in writer.edits.updates.items()
        for update in updates
        if update.changes.get("trainable") is True
    }
    frozen_before = {path for path, layer in writer.reading.places.items() if _stopped(writer, path)}
    for path, layer, copy in pairs:
        if children_of(layer) and not layer.trainable:
            copy.trainable = any(_within(wake, path) for wake in wakes)
    opened = any(
        not layer.trainable and children_of(layer) and any(_within(w, path) for w in wakes) for path, layer, _ in pairs
    )
    for path, layer, copy in [*pairs, *((p, *pair) for p, pair in inner.items())]:
        if children_of(layer):
            continue
        flag = layer.trainable and not (opened and path in frozen_before)
        if copy.trainable != flag:
            copy.trainable = flag
        for was, now in zip(layer._trainable_variables, copy._trainable_variables, strict=False):
            if layer.trainable and flag and was.trainable != now.trainable:
                now.trainable = was.trainable
    found = {path: copy for path, _, copy in pairs} | {path: pair[1] for path, pair in inner.items()}
    assert model is not None
    for path, updates in writer.edits.updates.items():
        copy = found.get(path)
        for update in updates:
            if copy is not None and not children_of(writer.reading.places[path]):
                _freeze(copy, writer.reading._layers[path], update)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


def _stopped(writer: Writer, path: str) -> bool:
    layer = writer.reading._layers[path]
    return layer.still or (layer.parameters > 0 and not layer.trainable)


def _inside(writer: Writer, layer: keras.Layer, copy: keras.Layer) -> dict[str, tuple[keras.Layer, keras.Layer]]:
    """The layers inside of a class with a `call` of its own, each with its copy."""
    olds, news = list(walk(layer)), list(walk(copy))
    if len(olds) != len(news):
        return {}
    return {
        writer.reading.paths[id(old)]: (old, new)
        for (_, old), (_, new) in zip(olds, news, strict=True)
        if id(old) not in writer.copies and id(old) in writer.reading.paths
    }


def _freeze(copy: Any, layer: Layer, update: Update) -> None:
    changes = update.changes
    if "trainable" not in changes and "statistics" not in changes:
        return
    learns = bool(changes.get("trainable", layer.trainable > 0))
    if not layer.statistics:
        copy.trainable = learns
        return
    moving = changes["statistics"] == "moving" if "statistics" in changes else not layer.still
    if learns and not moving:
        raise cannot(
            f"the statistics of `{layer.path}` cannot be frozen alone",
            update.span,
            "a layer of Keras whose statistics stand still does not learn either",
            help="write `freeze`, which stops both",
        )
    copy.trainable = moving
    if moving:
        for variable in copy._trainable_variables:
            variable.trainable = learns
