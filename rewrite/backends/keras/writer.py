"""A changed copy of a Keras model: its graph is called anew, layer by layer, with copies of its layers.

No layer is shared with the given model: an activation that is set, or a flag, would be set there too. The copies have
variables of their own with the same values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rewrite.backends.backend import Written
from rewrite.backends.keras.attributes import activation_for, changed_call, changed_config
from rewrite.backends.keras.depth import room_for
from rewrite.backends.keras.edits import Chain, Place, Step, sorted_edits
from rewrite.backends.keras.in_code import Altered, Series, alter, direct, given_class, replace
from rewrite.backends.keras.in_code import Place as PlaceInCode
from rewrite.backends.keras.layers import Builder
from rewrite.backends.keras.optimizers import carry_state
from rewrite.backends.keras.own_layers import HalfFrozenBatchNormalization, computing_policy
from rewrite.backends.keras.reader import (
    ACTIVATION,
    KerasReading,
    children_of,
    graph_of,
    input_shape,
    locals_of,
    walk,
)
from rewrite.backends.keras.refusal import cannot, told
from rewrite.backends.keras.spellings import FUSED, bases, functional_class, fused_activation
from rewrite.backends.keras.weights import (
    Pair,
    carry_over,
    carry_training,
    origins,
    update_weights,
    variables_of,
    wanted_training,
)
from rewrite.edit import Edit, NewLayer
from rewrite.errors import Diagnostic
from rewrite.graph import Node

_NORMS = (keras.layers.BatchNormalization, HalfFrozenBatchNormalization)
_STEPS = ("train_step", "test_step", "predict_step", "compute_loss")
"""methods by which a class trains or predicts in a way of its own"""


class Writer:
    """One write.

    Args:
        reading: the model.
        builder: makes new layers.
        edits: what changes.

    """

    def __init__(self, reading: KerasReading, builder: Builder, edits: Sequence[Edit]) -> None:
        self.reading = reading
        self.builder = builder
        self.edits = sorted_edits(edits)
        self.edits.remade |= {path for path in self.edits.updates if self._changes_halves(path)}
        self.count = len(edits)
        self.names: dict[int, list[str]] = {number: [] for number in range(len(edits))}
        self.copies: dict[int, Any] = {}
        """identity of an operation of the given model -> its copy"""
        self.chains: dict[str, list[Any]] = {}
        """path of a replaced layer -> what stands there now"""
        self.shared: dict[str, list[Any]] = {}
        self.acts: dict[str, Any] = {}
        """path of a layer -> the layer that its activation has become"""
        self.bare: set[str] = set()
        """paths of layers whose activation is applied by the layer that wraps them"""
        self.taken: dict[str, set[str]] = {}
        """path of a model -> the names in it"""
        self.configured: set[str] = set()
        """paths of layers that were made by their own configuration"""
        self.pairs: list[Pair] = []
        """layers and their copies, whose variables are filled when all are built"""
        self.warnings: list[Diagnostic] = []
        self.beside: Any = None
        """the operation around whose call new layers come to stand"""

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

        Raises:
            PlanError: one of them is part of something else as well, and its copy is not (RW320).

        """
        for was, now in _same_parts(old, new):
            if self.copies.setdefault(id(was), now) is not now:
                raise cannot(
                    f"`{self.reading.paths.get(id(old)) or old.name}` ({type(old).__name__}) cannot be copied: it "
                    f"shares `{was.name}` with another part of the model, and its copy would have one of its own",
                    None,
                    "a layer that stands in the configuration of another one is made again with it",
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
            _same_parts(operation, copy)
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

    # ---- what the code of a class calls

    def _altered(self, old: Any, new: Any, path: str) -> Any:
        """A copy in which other layers stand in the places of some that its code calls."""
        if isinstance(old, functional_class() | keras.Sequential):
            raise cannot(
                f"`{path or old.name}` ({type(old).__name__}) is made of a graph, and calls it in code of its own",
                None,
                "what stands in that graph is not called by name",
                help="make a model of the graph alone, change it, and build the class of the result",
            )
        made_of = old._made_of if isinstance(old, Altered) else keras.saving.serialize_keras_object(old)
        if not _same_parts(old, new):
            new.build_from_config(old.get_build_config())  # makes the layers that the constructor has not made
        if not _same_parts(old, new):
            raise cannot(
                f"the layers of `{path or old.name}` ({type(old).__name__}) are not all made by its constructor",
                None,
                help="make them in `__init__` or in `build`",
            )
        series = dict(new._series) if isinstance(new, Altered) else {}
        try:
            self._alter(old, new, path, (), series)
            return alter(new, made_of, series)
        except ValueError as problem:
            help_text = "keep layers in attributes, or in lists or tables of them"
            raise cannot(str(problem), None, help=help_text) from problem

    def _alter(self, old: Any, new: Any, path: str, place: PlaceInCode, series: dict[PlaceInCode, Series]) -> None:
        """Goes through the layers that an object holds.

        Args:
            old: the object.
            new: its copy, made by its class.
            path: of the object.
            place: of the object within the outermost one that a file knows.
            series: what stands in which place, filled here.

        """
        self.copies[id(old)] = new
        self.pairs.append(Pair(old, new, whole=False))
        self.taken[path] = {part.name for part in children_of(old)}
        for number, (was, now) in enumerate(zip(direct(old), direct(new), strict=True)):
            here = (*place, number)
            given = list(zip(was.layers, now.layers, strict=True)) if isinstance(was, Series) else [(was, now)]
            layers: list[Any] = []
            main = own = None
            for index, (part, copy) in enumerate(given):
                made_by_class = not isinstance(was, Series) or index == was.own
                ahead, core, behind = self._in_code(part, copy, path, here if made_by_class else None, series)
                if core and (not isinstance(was, Series) or index == was.main):
                    main = len(layers) + len(ahead)
                if made_by_class and core == [copy]:
                    own = len(layers) + len(ahead)
                layers += [*ahead, *core, *behind]
            if layers != (now.layers if isinstance(now, Series) else [now]):
                series[here] = Series(layers, main, own)
                replace(new, now, series[here])

    def _in_code(
        self, part: Any, copy: Any, path: str, place: PlaceInCode | None, series: dict[PlaceInCode, Series]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """What a part becomes: the layers in front of it, what stands for it, and the layers behind it.

        Args:
            part: of the given object.
            copy: the one that the object's copy has made for it.
            path: of the object.
            place: of the part, if the object's class has made it.
            series: what stands in which place.

        """
        own = self.reading.paths[id(part)]
        call = (path, f":{own}")
        rank = len(next(iter((getattr(part, "_build_shapes_dict", None) or {"": (None,) * 4}).values())) or ())
        self.builder.policy = _policy(part)
        carries = fused_activation(part) is not None
        function = self._function(own, part) if carries else None
        parted = own in self.edits.parted
        if call in self.edits.bypassed:
            core: list[Any] = []
        elif own in self.edits.layers:
            number, edit = self.edits.layers[own]
            if own not in self.chains:
                takes = None if parted else function
                self.chains[own] = self._line(
                    edit.layers, number, part.name, path, rank, own=part.name, old=part, function=takes
                )
            core = self.chains[own]
            if not parted and self._keeps_own(own):
                function = None
            parted = parted or not self._took(own)
        elif not self._is_touched(own):
            core = [copy]
            self.copies[id(part)] = copy
            self.pairs.append(Pair(part, copy))
        elif place is not None and graph_of(part) is None and children_of(part):
            core = [copy]
            self._alter(part, copy, own, place, series)
        else:
            core = [self._copy(part)]
        ahead = self._steps(self.edits.ahead.get((*call, 0), [])[::-1], f"before_{part.name}", path, rank)
        behind = self._steps(self.edits.behind.get(call, []), part.name, path, rank)
        if carries:
            act = (path, f"{call[1]}{ACTIVATION}")
            behind += self._steps(
                self.edits.ahead.get((*act, 0), [])[::-1], f"before_{part.name}_activation", path, rank
            )
            if act in self.edits.calls:
                number, edit = self.edits.calls[act]
                behind += self._line(edit.layers, number, part.name, path, rank)
            elif parted and function is not None and act not in self.edits.bypassed:
                behind.append(self._activation(own, function, path))
            behind += self._steps(self.edits.behind.get(act, []), part.name, path, rank)
        return ahead, core, behind

    def _is_touched(self, own: str) -> bool:
        """Whether a part is not what its object's class makes of it."""
        return self.edits.touch(own) or own in self.edits.remade or own in self.edits.parted

    def _steps(self, steps: Sequence[Step], stem: str, path: str, rank: int) -> list[Any]:
        found: list[Any] = []
        for step in steps:
            assert isinstance(step, Chain), "calls in code are not moved"
            found += self._line(step.layers, step.number, stem, path, rank)
        return found

    # ---- calls in a graph

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
        plain, half = _NORMS
        if type(layer) not in _NORMS or not changes & {"trainable", "statistics"}:
            return type(layer), config
        learns, moves = wanted_training(self.reading._layers[path], self.edits.updates[path])
        config = {key: value for key, value in config.items() if key != "frozen"}
        if learns == moves:
            return plain, config
        return half, {**config, "frozen": "params" if moves else "stats"}

    def _changes_halves(self, path: str) -> bool:
        """Whether a BatchNormalization is half frozen before or after, but not both times in the same way."""
        layer = self.reading.places[path]
        if type(layer) not in _NORMS:
            return False
        learns, moves = wanted_training(self.reading._layers[path], self.edits.updates[path])
        return getattr(layer, "frozen", None) != (None if learns == moves else "params" if moves else "stats")

    def _config(self, layer: Any, config: dict[str, Any], path: str) -> dict[str, Any]:
        self.configured.add(path)
        self.builder.policy = _policy(layer)
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

    def _function(self, own: str, operation: Any) -> Any:
        """The activation that a layer applies itself, after a `set`; None: the identity."""
        for update in reversed(self.edits.updates.get(own, ())):
            if ".activation" in update.changes:
                found = activation_for(update.changes[".activation"], self.builder)
                return None if found == "linear" else keras.activations.get(found)
        return fused_activation(operation)

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

    def _activation(self, own: str, function: Any, path: str) -> Any:
        if own not in self.acts:
            name = self._name(f"{own.rpartition('.')[2]}_activation", path)
            if isinstance(function, keras.Layer):
                layer = type(function).from_config({**function.get_config(), "name": name})
                self.pairs.append(Pair(function, layer))
            else:
                layer = keras.layers.Activation(function, name=name, dtype=_policy(self.reading.places[own]))
            self.acts[own] = layer
        return self.acts[own]

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
        self.builder.policy = _policy(old, values[0], self.beside)
        value: Any = values[0] if len(values) == 1 else list(values)
        for new in layers:
            rank = len(values[0].shape) if not made else len(value.shape)
            last = new is layers[-1]
            name, takes = (own, function) if last else (None, None)
            for layer in self._line([new], number, stem, path, rank, own=name, old=old, function=takes):
                made.append(layer)
                value = _called(layer, value, order)
        return made, value

    def _line(
        self,
        layers: Sequence[NewLayer],
        number: int,
        stem: str,
        path: str,
        rank: int,
        *,
        own: str | None = None,
        old: Any = None,
        function: Any = None,
    ) -> list[Any]:
        """New layers that are not called yet; the arguments are those of a chain."""
        made: list[Any] = []
        for new in layers:
            name = own if new is layers[-1] else None
            around = self._around(old, new) if new.wraps else None
            for layer in self._new(new, stem, name, path, number, rank, around):
                if old is not None and type(layer) is type(old):
                    self.pairs.append(Pair(old, layer))  # equal shapes keep the weights
                made.append(layer)
                if new is layers[-1]:
                    _take_activation(layer, function)
        return made

    def _new(
        self, new: NewLayer, stem: str, name: str | None, path: str, number: int, rank: int, around: Any
    ) -> list[Any]:
        if new.share and new.share in self.shared:
            return self.shared[new.share]
        name = name or self._name(f"{stem}_{new.stem}", path)
        *ahead, layer = self.builder.build(new, rank, around)
        layer.name = name
        for one in ahead:
            one.name = self._name(f"{name}_pad", path)
        self.names[number].append(f"{path}.{name}" if path else name)
        if new.share:
            self.shared[new.share] = [*ahead, layer]
        return [*ahead, layer]

    def _around(self, old: Any, new: NewLayer) -> Any:
        """The layer that a new one is made around; a LoRA applies its activation itself."""
        if new.operation is not None and fused_activation(old) is not None:
            self.bare.add(self.reading.paths[id(old)])
        copy = self._copy(old)
        if new.operation is not None:
            copy.name = "base_layer"
        return copy

    def _name(self, name: str, path: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        taken, found, number = self.taken[path], name, 0
        while found in taken:
            number += 1
            found = f"{name}_{number}"
        taken.add(found)
        return found

    def _keeps_own(self, own: str) -> bool:
        """Whether a layer goes on inside of a class of the caller's, where it applies its activation as before."""
        return any(new.wraps and new.operation is None for new in self.edits.layers[own][1].layers)

    def _took(self, own: str) -> bool:
        """Whether what stands in the place of a layer applies its activation itself."""
        last = self.chains[own][-1]
        return any(base in FUSED for base in bases(type(last)))

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


def _policy(*beside: Any) -> Any:
    """The policy of numbers at a place: that of the first layer, or of the layer behind the first value, that has one.

    None: it is nowhere told, as behind an input.
    """
    for origin in beside:
        if isinstance(origin, keras.KerasTensor):
            origin = origin._keras_history.operation
        if isinstance(origin, keras.layers.InputLayer) or origin is None:
            continue
        functional = graph_of(origin)
        if functional is not None:
            found = _policy(*functional.outputs)
        elif isinstance(origin, keras.Layer):
            found = computing_policy(origin)
        else:
            found = _policy(*origin._inbound_nodes[0].arguments.keras_tensors)
        if found is not None:
            return found
    return None


def _filled(arguments: Any, values: Sequence[Any]) -> Any:
    """The arguments of a call with other tensors, in the order in which Keras lists those of the call.

    It sorts arguments by name there, which mapping over them does not.
    """
    given, flat = (arguments.args, arguments.kwargs), iter(values)
    leaves = [next(flat) if isinstance(leaf, keras.KerasTensor) else leaf for leaf in keras.tree.flatten(given)]
    return keras.tree.pack_sequence_as(given, leaves)


def _take_activation(layer: Any, function: Any) -> None:
    """What was fused stays fused where the new layer can."""
    if function is not None and any(base in FUSED for base in bases(type(layer))):
        if isinstance(function, keras.Layer):
            function = type(function).from_config(function.get_config())
        layer.activation = function


def _models_in(operation: Any) -> list[str]:
    """What else to do with a class around models that are graphs."""
    for path, layer in walk(operation):
        if path and graph_of(layer) is not None:
            return [f"apply the rules to `{path}`, which is a model by itself, and build the whole of the result"]
    return []


def _same_parts(old: Any, new: Any) -> list[tuple[Any, Any]]:
    """The layers inside of two that are made in the same way, in pairs.

    Those of the second take the names of the first: Keras counts names that a constructor leaves to it, and rules name
    layers by them.
    """
    olds, news = list(walk(old))[1:], list(walk(new))[1:]
    if len(olds) != len(news):
        return []
    pairs = [(was, now) for (_, was), (_, now) in zip(olds, news, strict=True)]
    for was, now in pairs:
        now.name = was.name
    return pairs


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
