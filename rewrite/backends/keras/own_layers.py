"""Layers that rules can make and Keras does not have."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="rewrite")
class Tap(keras.layers.Layer):  # type: ignore[misc]
    """Hands its input on and remembers it.

    Args:
        tap: the name under which the value is asked for.
        options: those of every layer.

    """

    def __init__(self, tap: str, **options: Any) -> None:
        super().__init__(**options)
        self.tap = tap

    def call(self, inputs: Any) -> Any:
        if not isinstance(inputs, keras.KerasTensor):
            self.__dict__["seen"] = inputs
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "tap": self.tap}
