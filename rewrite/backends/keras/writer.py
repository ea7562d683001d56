"""A changed copy of a Keras model: its graph is called anew, layer by layer, with copies of its layers.

No layer is shared with the given model: an activation that is set, or a flag, would be set there too. The copies have
variables of their own with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rewrite.backends.backend import Written
from rewrite.backends.keras.attributes import activation_for, changed_call, changed_config
from rewrite.backends.keras.code_writer import CodeWriter, same_parts
from rewrite.backends.keras.depth import room_for
from rewrite.backends.keras.edits import Chain, Place, Step
from rewrite.backends.keras.in_code import given_class, put
from rewrite.backends.keras.making import NORMS, Pair, policy, wanted_training
from rewrite.backends.keras.optimizers import carry_state
from rewrite.backends.keras.reader import ACTIVATION, graph_of, input_shape, locals_of, walk
from rewrite.backends.keras.refusal import cannot, told
from rewrite.backends.keras.spellings import functional_class, fused_activation
from rewrite.backends.keras.weights import carry_over, carry_training, origins, update_weights, variables_of
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Node

_STEPS = ("train_step", "test_step", "predict_step", "compute_loss")
"""methods by which a class trains or predicts in a way of its own"""


class Writer(CodeWriter):
    """One write.

    Args:
        reading: the model.
        builder: makes new layers.
        edits: what changes.

    """

    def run(self) -> Written:
        """The changed copy."""
        model = self.reading.model
        custom = {type(layer).__name__: given_class(type(layer)) for layer in model._flatten_layers()}
        custom = {name: cls for name, cls in custom.items() if not cls.__module__.startswith("keras.")}
        with self.builder.own_randomness(), keras.saving.CustomObjectScope(custom):
            written = self._copy(model)
            for pair in self.pairs:
                if carry_over(pair) < len(variables_of(pair.old, whole=pair.whole)):
                    self._check_whole(pair.old, pair.new)
                if pair.whole:
                    self._find_parts(pair.old, pair.new)
            self._check_attributes()
            update_weights(self)
            carry_training(self)
        if _compile(model, written):
            carry_state(model.optimizer, written.optimizer, written, origins(self))
        return Written(written, self.names, tuple(self.warnings))

    def _check_whole(self, old: Any, new: Any) -> None:
        """Refuses a copy that has lost weights, where no rule has changed what they are."""
        path = self.reading.paths.get(id(old), "")
        changed = path in self.edits.updates or input_shape(old) != input_shape(new)
        if self.copies.get(id(old)) is new and not changed:
            raise cannot(
                f"`{path or old.name}` ({type(old).__name__}) cannot be copied: its weights are not those of a layer "
                "that is made by its configuration",
                None,
                "a changed model has layers of its own, made by `get_config` and `from_config`",
                help="let these two methods, or `get_build_config`, tell what the weights depend on",
            )

    def _find_parts(self, old: Any, new: Any) -> None:
        """The layers inside of a class with a `call` of its own, each with its copy.

        One that is part of something else as well has one copy: a layer that stands in the configuration of another one
        is made again with it, and the copy that is there already takes its place.

        Raises:
            PlanError: no attribute holds it (RW320).

        """
        for was, now in same_parts(old, new):
            one = self.copies.setdefault(id(was), now)
            if one is now:
                continue
            held = [put(holder, now, one) for holder in list(new._flatten_layers())]
            if not any(held):
                raise cannot(
                    f"`{self.reading.paths.get(id(old)) or old.name}` ({type(old).__name__}) cannot be copied: it "
                    f"shares `{was.name}` with another part of the model, and its copy would have one of its own",
                    None,
                    "no attribute, list or table of it holds that layer",
                    help="call the shared layer in the graph, and hand its value or its weights to the other one",
                )

    def _check_attributes(self) -> None:
        for path, updates in self.edits.updates.items():
            for update in updates:
                if path not in self.configured and any(key.startswith(".") for key in update.changes):
                    owner = path.rpartition(".")[0]
                    raise cannot(
                        f"attributes of `{path}` cannot be set: it is made in the code of `{owner or 'the model'}`",
                        update.span,
                        "what a constructor makes is made in the same way in a copy, and when a file is loaded",
                        help="give the class an argument for it",
                    )

    # ---- models

    def _copy(self, operation: Any) -> Any:
        if id(operation) not in self.copies:
            self.copies[id(operation)] = self._copied(operation)
        return self.copies[id(operation)]

    def _copied(self, operation: Any) -> Any:
        if not isinstance(operation, keras.Layer):
            return type(operation).from_config(operation.get_config())
        path = self.reading.paths.get(id(operation), "")
        functional = graph_of(operation)
        if functional is not None:
            return self._model(operation, functional, path)
        try:
            cls, config = self._half_frozen(operation, self._config(operation, operation.get_config(), path), path)
            copy = cls.from_config(config)
            copy.name = operation.name  # which a `get_config` may leave out
            same_parts(operation, copy)
            if isinstance(operation, keras.Model):
                copy.build_from_config(operation.get_build_config())
        except Exception as problem:
            if getattr(problem, "diagnostics", None):
                raise
            raise cannot(
                f"`{path or operation.name}` ({type(operation).__name__}) cannot be copied: {told(problem)}",
                None,
                "a changed model has layers of its own, made by `get_config` and `from_config`",
                help="; or ".join(["give the class these two methods", *_models_in(operation)]),
            ) from problem
        if self.edits.touch(path):
            return self._altered(operation, copy, path)
        self.pairs.append(Pair(operation, copy))
        return copy

    def _changed(self, operation: Any, place: Place) -> Any:
        """A function with other arguments."""
        config = operation.get_config()
        for update in self.edits.calls_updated[place]:
            for key, value in update.changes.items():
                config = changed_call(operation, config, key.removeprefix("."), value, update.span)
        return type(operation).from_config(config)

    def _half_frozen(self, layer: Any, config: dict[str, Any], path: str) -> tuple[Any, dict[str, Any]]:
        """The class that the copy of a layer has: that of a BatchNormalization says what of it stands still."""
        changes = {key for update in self.edits.updates.get(path, ()) for key in update.changes}
        plain, half = NORMS
        if type(layer) not in NORMS or not changes & {"trainable", "statistics"}:
            return type(layer), config
        learns, moves = wanted_training(self.reading._layers[path], self.edits.updates[path])
        config = {key: value for key, value in config.items() if key != "frozen"}
        if learns == moves:
            return plain, config
        return half, {**config, "frozen": "params" if moves else "stats"}

    def _config(self, layer: Any, config: dict[str, Any], path: str) -> dict[str, Any]:
        self.configured.add(path)
        self.builder.policy = policy(layer)
        for update in self.edits.updates.get(path, ()):
            for key, value in update.changes.items():
                if key == ".activation":
                    config = {**config, "activation": activation_for(value, self.builder)}
                elif key.startswith("."):
                    config = changed_config(layer, config, key[1:], value, update.span)
        if path in self.edits.parted or path in self.bare:
            config = {**config, "activation": "linear"}
        if path in self.edits.folds:
            config = {**config, "use_bias": True}
        return config

    def _model(self, model: Any, functional: Any, path: str) -> Any:
        """A model made anew."""
        operations = [node.operation.name for node, _ in locals_of(functional)]
        self.taken[path] = {*operations, *(tensor._keras_history.operation.name for tensor in functional.inputs)}
        env: dict[int, Any] = {}
        made: dict[Place, Any] = {}
        order: list[Any] = []
        for tensor in functional.inputs:
            origin = tensor._keras_history.operation
            given = type(origin).from_config(origin.get_config()).output
            given.name = tensor.name  # by which a dict of inputs finds it
            env[id(tensor)] = given
        for call, local in locals_of(functional):
            outputs = self._call(call, local, path, env, made, order)
            env.update((id(tensor), value) for tensor, value in zip(call.outputs, outputs, strict=True))
        outputs = [env[id(tensor)] for tensor in functional.outputs]
        if isinstance(model, keras.Sequential):
            return self._sequential(model, path, [env[id(tensor)] for tensor in functional.inputs], order)
        ins = keras.tree.pack_sequence_as(functional._inputs_struct, [env[id(t)] for t in functional.inputs])
        outs = keras.tree.pack_sequence_as(functional._outputs_struct, outputs)
        with room_for(len(order)):
            written = self._of_its_class(model, path, keras.Model, "outputs", outputs, inputs=ins, outputs=outs)
        written.output_names = list(model.output_names)
        return written

    def _sequential(self, model: Any, path: str, inputs: Sequence[Any], order: Sequence[Any]) -> Any:
        first = inputs[0]._keras_history.operation
        with room_for(len(order)):
            written = self._of_its_class(model, path, keras.Sequential, "layers", order, layers=[first, *order])
        if hasattr(model, "output_names"):
            written.output_names = list(model.output_names)
        return written

    def _of_its_class(
        self, model: Any, path: str, plain: type, attribute: str, wanted: Sequence[Any], **made_of: Any
    ) -> Any:
        """A model of the class of the given one, or of `plain` where that class is not made of such arguments.

        Args:
            model: the given one.
            path: its path.
            plain: `keras.Model` or `keras.Sequential`.
            attribute: what tells of a model whether it is made of what it was given.
            wanted: which it should then be.
            made_of: the arguments.

        """
        for cls in (type(model), plain) if type(model) not in (plain, functional_class()) else (plain,):
            if plain is keras.Sequential:  # it calls its layers itself
                for layer in made_of["layers"]:
                    layer._outbound_nodes.clear()
                for layer in wanted:
                    layer._inbound_nodes.clear()
            try:
                written = cls(**made_of, name=model.name)
                is_it = [id(item) for item in getattr(written, attribute)] == [id(item) for item in wanted]
            except Exception:  # a constructor with arguments of its own may raise anything
                is_it = False
            if is_it:
                break
        assert is_it, "a plain model is what it is made of"
        if cls is not type(model) and type(model) is not functional_class():
            self._class_is_lost(model, path, plain)
        return written

    def _class_is_lost(self, model: Any, path: str, plain: type) -> None:
        """Tells it, or refuses where the class computes or learns in a way of its own.

        Raises:
            PlanError: RW320.

        """
        own, name = type(model), path or model.name
        steps = [step for step in _STEPS if not path and getattr(own, step) is not getattr(plain, step)]
        help = f"let its constructor take what `keras.{plain.__name__}` takes, and hand it on"
        if steps:
            raise cannot(
                f"`{name}` cannot be made again as a {own.__name__}, and its `{steps[0]}` would be lost",
                None,
                "its constructor takes arguments of its own, which say nothing of a change",
                help=f"{help}; or apply the rules to `keras.Model(model.inputs, model.outputs)`",
            )
        self.warnings.append(
            Diagnostic(
                "RW411",
                f"`{name}` is a plain `keras.{plain.__name__}` in the result, no {own.__name__}",
                notes=("its constructor takes arguments of its own, which say nothing of a change",),
                help=help,
            )
        )

    # ---- calls

    def _call(
        self, call: Any, local: str, path: str, env: Mapping[int, Any], made: dict[Place, Any], order: list[Any]
    ) -> list[Any]:
        operation, place = call.operation, (path, local)
        self.beside = operation
        own = self.reading.paths.get(id(operation), "") if isinstance(operation, keras.Layer) else ""
        values = [env[id(tensor)] for tensor in call.arguments.keras_tensors]
        for number, value in enumerate(values):
            stem = local if len(values) < 2 else f"{local}_{number}"
            values[number] = self._ahead((path, local), number, value, stem, order)
        carries = own and fused_activation(operation) is not None
        function = self._function(own, operation) if carries else None
        parted = own in self.edits.parted
        if place in self.edits.bypassed:
            outputs = [values[self.edits.bypassed[place]]]
        elif place in self.edits.calls:
            number, edit = self.edits.calls[place]
            given = [made[source.scope, source.local] for source in edit.inputs] or values
            stem, takes = (own or local).rpartition(".")[2], None if parted else function
            outputs = [self._chain(edit.layers, number, given, stem, path, order, function=takes)[1]]
            function = None if carries and not parted else function
        elif own and own in self.edits.layers:
            outputs = [self._replaced_layer(own, values, path, order, None if parted else function, operation)]
            if not parted and self._keeps_own(own):
                function = None
            parted = parted or not self._took(own)
        else:
            copy = self._copy(operation) if place not in self.edits.calls_updated else self._changed(operation, place)
            args, kwargs = _filled(call.arguments, values)
            outputs = keras.tree.flatten(_run_again(copy, args, kwargs, own or local))
            if isinstance(copy, keras.Layer) and copy not in order:
                order.append(copy)
        outputs[0] = self._behind(place, outputs[0], local, path, order)
        made[place] = outputs[0]
        if carries:
            act = (path, f"{local}{ACTIVATION}")
            outputs[0] = self._ahead(act, 0, outputs[0], f"{local}_activation", order)
            if parted and function is not None:
                outputs[0] = self._activate(act, own, function, outputs[0], path, order)
            outputs[0] = self._behind(act, outputs[0], local, path, order)
            made[act] = outputs[0]
        return outputs

    def _ahead(self, place: Place, number: int, value: Any, stem: str, order: list[Any]) -> Any:
        """What comes in front of an input of a call; of several chains the first is nearest to the call."""
        for step in reversed(self.edits.ahead.get((*place, number), [])):
            value = self._step(step, value, f"before_{stem}", place[0], order)
        return value

    def _behind(self, place: Place, value: Any, local: str, path: str, order: list[Any]) -> Any:
        for step in self.edits.behind.get(place, ()):
            value = self._step(step, value, local, path, order)
        return value

    def _step(self, step: Step, value: Any, stem: str, path: str, order: list[Any]) -> Any:
        if isinstance(step, Chain):
            return self._chain(step.layers, step.number, [value], stem, path, order)[1]
        return self._made_again(step, value, path, order)

    def _made_again(self, node: Node, value: Any, path: str, order: list[Any]) -> Any:
        """A call that was moved here."""
        if node.local.endswith(ACTIVATION):
            owner = node.inputs[0].value.producer
            assert owner is not None, "an activation has the call of its layer in front"
            assert owner.layer is not None, "which is a layer's"
            layer = self.reading.places[owner.layer.path]
            return _called(
                self._activation(owner.layer.path, self._function(owner.layer.path, layer), path), value, order
            )
        if node.layer is not None:
            return _called(self._copy(self.reading.places[node.layer.path]), value, order)
        functional = graph_of(self.reading.places[path])
        call = next(call for call, local in locals_of(functional) if local == node.local)
        copy = self._copy(call.operation)
        args, kwargs = _filled(call.arguments, [value] * len(call.arguments.keras_tensors))
        return copy(*args, **kwargs)

    def _activate(self, place: Place, own: str, function: Any, value: Any, path: str, order: list[Any]) -> Any:
        """The activation of a layer, applied behind it."""
        if place in self.edits.bypassed:
            return value
        if place in self.edits.calls:
            number, edit = self.edits.calls[place]
            return self._chain(edit.layers, number, [value], own.rpartition(".")[2], path, order)[1]
        return _called(self._activation(own, function, path), value, order)

    # ---- new layers

    def _chain(
        self,
        layers: Sequence[NewLayer],
        number: int,
        values: Sequence[Any],
        stem: str,
        path: str,
        order: list[Any],
        *,
        own: str | None = None,
        old: Any = None,
        function: Any = None,
    ) -> tuple[list[Any], Any]:
        """New layers called one behind the other; the layers, and the value behind them.

        Args:
            layers: what they are.
            number: of the edit.
            values: what the first takes.
            stem: what their names begin with.
            path: of the model that they come to stand in.
            order: all layers of that model, in order.
            own: the name of the last, so that outputs keep theirs; None: one from the stem, too.
            old: the layer in whose place they come.
            function: the activation that the last applies itself, if it can.

        """
        made: list[Any] = []
        self.builder.policy = policy(old, values[0], self.beside)
        value: Any = values[0] if len(values) == 1 else list(values)
        for new in layers:
            rank = len(values[0].shape) if not made else len(value.shape)
            last = new is layers[-1]
            name, takes = (own, function) if last else (None, None)
            for layer in self._line([new], number, stem, path, rank, own=name, old=old, function=takes):
                made.append(layer)
                value = _called(layer, value, order)
        return made, value

    def _replaced_layer(
        self, own: str, values: Sequence[Any], path: str, order: list[Any], function: Any, operation: Any
    ) -> Any:
        if own in self.chains:
            return _run(self.chains[own], values, order)
        number, edit = self.edits.layers[own]
        name = operation.name
        self.chains[own], value = self._chain(
            edit.layers, number, values, name, path, order, own=name, old=operation, function=function
        )
        return value


def _filled(arguments: Any, values: Sequence[Any]) -> Any:
    """The arguments of a call with other tensors, in the order in which Keras lists those of the call.

    It sorts arguments by name there, which mapping over them does not.
    """
    given, flat = (arguments.args, arguments.kwargs), iter(values)
    leaves = [next(flat) if isinstance(leaf, keras.KerasTensor) else leaf for leaf in keras.tree.flatten(given)]
    return keras.tree.pack_sequence_as(given, leaves)


def _models_in(operation: Any) -> list[str]:
    """What else to do with a class around models that are graphs."""
    for path, layer in walk(operation):
        if path and graph_of(layer) is not None:
            return [f"apply the rules to `{path}`, which is a model by itself, and build the whole of the result"]
    return []


def _called(layer: Any, value: Any, order: list[Any]) -> Any:
    result = layer(value)
    if layer not in order:
        order.append(layer)
    return result


def _run(layers: Sequence[Any], values: Sequence[Any], order: list[Any]) -> Any:
    first, *rest = layers
    value = _called(first, values[0] if len(values) == 1 else list(values), order)
    for layer in rest:
        value = _called(layer, value, order)
    return value


def _run_again(copy: Any, args: Any, kwargs: Any, name: str) -> Any:
    """A call of the given model, on what reaches it now."""
    try:
        return copy(*args, **kwargs)
    except Exception as problem:
        raise Diagnostic(
            "RW310",
            f"`{name}` does not take what comes to it after the change: {told(problem)}",
            help="change the layers between them too, or leave the place out with `except`",
        ).error() from problem


def _compile(model: Any, written: Any) -> bool:
    """Compiles the copy as the given model was; what cannot be taken over is left to the caller."""
    config = model.get_compile_config() if getattr(model, "compiled", False) else None
    if not config:
        return False
    try:
        written.compile_from_config(config)
    except Exception:  # a loss or metric that is no class of Keras: the model is right, and is not compiled
        return False
    return bool(written.compiled)
