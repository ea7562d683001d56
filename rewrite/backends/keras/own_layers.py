"""Layers that rules can make and Keras does not have: `Tap`, `LoRA`, activations with arguments, a BatchNormalization
that is half frozen.
"""

from __future__ import annotations

from typing import Any

import keras

from rewrite.backends.keras.in_code import Series
from rewrite.vocabulary import by_keras_activation


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


@keras.saving.register_keras_serializable(package="rewrite")
class LoRA(keras.layers.Layer):  # type: ignore[misc]
    """A layer beside which a product of two small matrices learns what is to be added to its output.

    `lora_B` begins with zeros, so that nothing changes at first. The layer itself is left as it is: freeze it, and only
    `lora_A` and `lora_B` learn. The product is added in front of the activation, which is applied here.

    Args:
        base_layer: a `Dense`, `EinsumDense`, `Conv1D`, `Conv2D`, `Conv3D` or `Embedding` without an activation, or a
            `LoRA` of one.
        rank: inner size of the product, >= 1.
        alpha: scale; `alpha / rank` is what the product is multiplied by.
        dropout: chance that an input of the product is dropped in training.
        activation: what is applied to the sum; None: nothing.
        options: those of every layer.

    Source:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021), equation 3 and section 4.1. The matrices
        have the shapes that `layer.enable_lora` gives them.

    """

    def __init__(
        self,
        base_layer: Any,
        rank: int = 8,
        alpha: float = 16,
        dropout: float = 0.0,
        activation: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": computing_policy(base_layer), **options})
        inner = innermost(base_layer)
        if not isinstance(inner, _WRAPPED):
            raise TypeError(f"LoRA wraps a Dense, EinsumDense, Conv or Embedding, not a {type(inner).__name__}")
        if rank < 1:
            raise ValueError(f"rank is at least 1, not {rank}")
        if dropout and isinstance(inner, keras.layers.Embedding):
            raise ValueError("the inputs of an Embedding are numbers of rows, of which none is dropped")
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.base_layer = base_layer
        self.activation = keras.activations.get(activation)
        self.lora_dropout = keras.layers.Dropout(dropout) if dropout else None
        # As a Linear of PyTorch begins: uniform within 1 / sqrt(inputs).
        self.initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if not self.base_layer.built:
            self.base_layer.build(input_shape)
        inner = innermost(self.base_layer)
        shape = tuple((inner.embeddings if isinstance(inner, keras.layers.Embedding) else inner.kernel).shape)
        self.lora_A = self.add_weight((*shape[:-1], self.rank), initializer=self.initializer, name="lora_A")
        self.lora_B = self.add_weight((self.rank, shape[-1]), initializer="zeros", name="lora_B")
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        dropped = inputs if self.lora_dropout is None else self.lora_dropout(inputs, training=training)
        output = self.base_layer(inputs) + self.added(dropped) * (self.alpha / self.rank)
        return self.activation(output)

    def added(self, inputs: Any) -> Any:
        """B A x."""
        ops = keras.ops
        inner = innermost(self.base_layer)
        if isinstance(inner, keras.layers.Dense):
            return ops.matmul(ops.matmul(inputs, self.lora_A), self.lora_B)
        if isinstance(inner, keras.layers.Embedding):
            return ops.matmul(ops.take(self.lora_A, ops.cast(inputs, "int32"), axis=0), self.lora_B)
        both = ops.matmul(self.lora_A, self.lora_B)
        if isinstance(inner, keras.layers.EinsumDense):
            return ops.einsum(inner.equation, inputs, both)
        padding = inner.padding
        if padding == "causal":
            ahead = inner.dilation_rate[0] * (inner.kernel_size[0] - 1)
            axes = (
                [[0, 0], [ahead, 0], [0, 0]] if inner.data_format == "channels_last" else [[0, 0], [0, 0], [ahead, 0]]
            )
            inputs, padding = ops.pad(inputs, axes), "valid"
        return ops.conv(
            inputs,
            both,
            strides=list(inner.strides),
            padding=padding,
            dilation_rate=inner.dilation_rate,
            data_format=inner.data_format,
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.base_layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return self.base_layer.compute_mask(inputs, mask)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {
            **config,
            "base_layer": keras.saving.serialize_keras_object(self.base_layer),
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
            "activation": keras.activations.serialize(self.activation),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LoRA:
        base = config["base_layer"]
        return cls(**{**config, "base_layer": keras.saving.deserialize_keras_object(base)})


def computing_policy(layer: Any) -> Any:
    """The policy by which a layer computes; weights that were quantized come from one that others can have, too."""
    policy = layer.dtype_policy
    return keras.DTypePolicy(policy.name.rpartition("_from_")[2]) if policy.quantization_mode else policy


_WRAPPED = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Embedding,
)


def _reads_base(name: str) -> property:
    """An attribute that is the base layer's; code around the layer may read it."""

    def read(self: LoRA) -> Any:
        return getattr(self.base_layer, name)

    return property(read, doc=f"`{name}` of the base layer.")


for _name in (
    *("kernel", "bias", "embeddings", "units", "filters", "kernel_size", "strides", "padding", "data_format"),
    *("dilation_rate", "groups", "input_dim", "output_dim"),
):
    setattr(LoRA, _name, _reads_base(_name))


def innermost(layer: Any) -> Any:
    """What a chain of `LoRA` around `LoRA` wraps in the end."""
    while isinstance(layer, LoRA | Series):
        layer = layer.base_layer if isinstance(layer, LoRA) else layer.standing
    return layer


@keras.saving.register_keras_serializable(package="rewrite")
class HalfFrozenBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """A BatchNormalization of which either the parameters or the statistics stand still, in a file as well.

    In Keras the two go together: a layer with `trainable = False` uses its statistics as they are in training too.

    Args:
        frozen: `"params"`, and the statistics move on; or `"stats"`, which normalises by the statistics as they are
            while scale and shift learn.
        options: those of a BatchNormalization.

    """

    def __init__(self, *, frozen: str, **options: Any) -> None:
        if frozen not in ("params", "stats"):
            raise ValueError(f"frozen are the `params` or the `stats`, not {frozen!r}")
        self.frozen = frozen
        super().__init__(**options)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.hold()

    @keras.layers.Layer.trainable.setter  # type: ignore[untyped-decorator]
    def trainable(self, value: bool) -> None:
        """Whether the half that is not frozen moves."""
        keras.layers.Layer.trainable.fset(self, value)
        self.hold()

    def hold(self) -> None:
        """Keeps frozen what waking the whole layer, or a model around it, would wake."""
        if self.frozen == "params":
            for variable in self._trainable_variables:
                variable.trainable = False

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return super().call(inputs, training=training and self.frozen != "stats", mask=mask)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "frozen": self.frozen}


@keras.saving.register_keras_serializable(package="rewrite")
class FunctionLayer(keras.layers.Layer):  # type: ignore[misc]
    """An activation with arguments that are not at their defaults: `Activation` takes none.

    Args:
        function: a name among `keras.activations`, of an operation of the vocabulary.
        arguments: by Keras' names.
        options: those of every layer.

    """

    def __init__(self, function: str, arguments: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        if by_keras_activation(function) is None:  # it may come from a file
            raise ValueError(f"{function!r} is no activation")
        self.function = function
        self.arguments = dict(arguments)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        return getattr(keras.activations, self.function)(inputs, **self.arguments)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "function": self.function, "arguments": self.arguments}


OWN_LAYERS: tuple[type[keras.layers.Layer], ...] = (Tap, LoRA, FunctionLayer, HalfFrozenBatchNormalization)
"""all of them; a model file may hold them, and what `in_code` registers"""
