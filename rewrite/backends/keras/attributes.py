"""`set`: attributes by neutral names, written into the configuration that a layer is made again from."""

from __future__ import annotations

from typing import Any

import keras

from rewrite.backends.keras.layers import cannot, padding_for
from rewrite.backends.keras.spellings import layer_operation
from rewrite.edit import NewLayer
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS


def changed_config(layer: keras.Layer, config: dict[str, Any], name: str, value: object, span: Span | None) -> Any:
    """A configuration with one attribute changed.

    Raises:
        PlanError: a layer of Keras cannot have it (RW320).

    """
    if name == "activation":
        return {**config, "activation": activation_for(value)}
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
        return {**config, "padding": padding_for(value, kernel, stride, dilation, span)}
    if theirs not in config:
        raise cannot(f"`{name}` of `{layer.name}` cannot be set in a Keras model", span)
    return {**config, theirs: value}


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def activation_for(value: object) -> str:
    """The name of the activation that a `set` asks for.

    Raises:
        PlanError: Keras has none by this name (RW320).

    """
    if value is None:
        return "linear"
    assert isinstance(value, NewLayer), "an activation is a layer or none"
    row = OPERATIONS[value.operation or ""]
    if row.keras is None or not row.keras.activations or value.arguments or value.keywords:
        raise cannot(
            f"`{value}` is no activation that a layer of Keras can carry",
            value.span,
            help=f"insert it as a layer: `insert {value}`",
        )
    return row.keras.activations[0]
