"""`set`: attributes by neutral names, written into the configuration that a layer is made again from."""

from __future__ import annotations

from typing import Any

import keras

from rewrite.backends.keras.layers import Builder
from rewrite.backends.keras.makers import MAKERS, Place, activation, is_activation, padding_for
from rewrite.backends.keras.own_layers import FunctionLayer
from rewrite.backends.keras.refusal import cannot
from rewrite.backends.keras.spellings import function_operation, layer_operation
from rewrite.edit import NewLayer
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS


def changed_config(layer: keras.Layer, config: dict[str, Any], name: str, value: object, span: Span | None) -> Any:
    """A configuration with one attribute changed.

    Raises:
        PlanError: a layer of Keras cannot have it (RW320).

    """
    operation = layer_operation(layer, None, -1)[0]
    row = OPERATIONS.get(operation or "")
    theirs = row.keras.names.get(name, name) if row is not None and row.keras is not None else name
    if name == "momentum" and row is not None and row.family == "norm":
        assert isinstance(value, int | float), "checked against the old one"
        return {**config, "momentum": round(1 - value, 12)}
    if name == "bias" and value is None and "use_bias" in config:
        return {**config, "use_bias": False}
    if name == "padding" and row is not None and row.family in ("conv", "pool"):
        kernel = _tuple(config["pool_size" if row.family == "pool" else "kernel_size"])
        stride, dilation = _tuple(config.get("strides")), _tuple(config.get("dilation_rate", 1))
        padding = padding_for(value, kernel, stride, dilation)
        if padding is None:
            raise cannot(
                f"padding {value!r} with a kernel of {kernel!r} and a stride of {stride!r} is neither `valid` nor "
                "`same`",
                span,
                "a convolution or pooling of Keras pads in one of these ways",
                help='insert a `ZeroPad2d` in front of it, or write `padding="same"`',
            )
        return {**config, "padding": padding}
    if isinstance(layer, FunctionLayer):
        return {**config, "arguments": {**config["arguments"], theirs: value}}
    if theirs not in config:
        raise cannot(f"`{name}` of `{layer.name}` cannot be set in a Keras model", span)
    return {**config, theirs: value}


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def changed_call(operation: Any, config: dict[str, Any], name: str, value: object, span: Span | None) -> Any:
    """The same for an operation of `keras.ops`, by its own arguments."""
    row = function_operation(operation)
    own = row.keras.names if row is not None and row.keras is not None else {}
    theirs = own.get(name, name)
    theirs = "axis" if theirs == "dim" and "axis" in config else theirs
    if theirs not in config:
        raise cannot(f"`{name}` of `keras.ops.{operation.name}` cannot be set in a Keras model", span)
    return {**config, theirs: value}


def activation_for(value: object, builder: Builder) -> Any:
    """What a layer takes for the activation that a `set` asks for: a name, or a layer where it has arguments.

    Raises:
        PlanError: Keras has none like it (RW320).

    """
    if value is None:
        return "linear"
    assert isinstance(value, NewLayer), "an activation is a layer or none"
    row = OPERATIONS[value.operation or ""]
    if not is_activation(row):
        raise cannot(
            f"`{value}` is no activation that a layer of Keras can carry",
            value.span,
            help=f"insert it as a layer: `insert {value}`",
        )
    given = builder.arguments(value)
    with builder.own_policy():
        made = activation(row, given, value.span)
        if not isinstance(made, FunctionLayer):
            return keras.activations.serialize(made.activation)
        # A layer of Keras' own needs nothing of ours when it is loaded.
        return MAKERS[row.name](given, Place(-1, 0), value.span) if row.name in MAKERS else made
