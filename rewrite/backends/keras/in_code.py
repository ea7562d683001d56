"""Layers that the code of a class calls: how they are changed where no graph says who calls them.

A class with a `call` of its own makes its layers in its constructor, and a changed copy of it is made by that
constructor as well. Then a `Series` takes the place of each layer that is changed, wherever the object holds it. The
class of the copy is a subclass of the given one, whose configuration says what stands in these places, so that a file
keeps it.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

Place = tuple[int, ...]
"""a layer in the code of a class: its number among the layers that the object holds, then in that one, and so on"""


def direct(layer: keras.Layer) -> list[Any]:
    """The layers that an object holds itself, in the order in which it came to hold them."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


class Series(keras.layers.Layer):  # type: ignore[misc]
    """Layers one behind the other, where the code of a class calls one; it answers for that one.

    Args:
        layers: what is called, in this order; none: the input is handed on.
        main: number of the layer that stands for the one that was there, and takes whatever the code gives besides the
            first input; None: it was taken out.
        own: number of the layer that was there; None: it is there no more.

    """

    def __init__(self, layers: Sequence[Any], main: int | None, own: int | None) -> None:
        super().__init__()
        self.layers = list(layers)
        self.main = main
        self.own = own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layers; masks, casts and modes are a matter of each of them."""
        return self._through(lambda layer, *given, **named: layer(*given, **named), args, kwargs)

    call = __call__

    def build(self, *args: Any, **kwargs: Any) -> None:
        """Builds those that are not built yet."""

        def step(layer: Any, *given: Any, **named: Any) -> Any:
            if not layer.built:
                layer.build(*given, **named)
            return _shape_behind(layer, *given, **named)

        self._through(step, args, kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Shape behind the last."""
        return self._through(_shape_behind, args, kwargs)

    def _through(self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        first, rest = (None, args[1:]) if args else (self._first_name(kwargs), ())
        value = args[0] if first is None else kwargs[first]
        others: tuple[Any, ...] = ()
        for number, layer in enumerate(self.layers):
            if number != self.main:
                value = step(layer, value)
                continue
            named = {key: item for key, item in kwargs.items() if key != first}
            if self.own is None:
                named = _accepted(layer, named)
            value = step(layer, value, *rest, **named) if first is None else step(layer, **{first: value}, **named)
            if isinstance(value, tuple | list) and number + 1 < len(self.layers) and _is_several(value):
                value, *more = value
                others = tuple(more)
        return (value, *others) if others else value

    def _first_name(self, kwargs: dict[str, Any]) -> str:
        if self.main is not None:
            for name in inspect.signature(self.layers[self.main].call).parameters:
                if name in kwargs:
                    return name
        return next(iter(kwargs))

    @property
    def standing(self) -> Any:
        """The layer that stands for the one that was there; None: that was taken out."""
        return None if self.main is None else self.layers[self.main]

    @property
    def built(self) -> bool:
        """Whether all are."""
        return all(layer.built for layer in self.layers)

    @built.setter
    def built(self, value: bool) -> None:
        """Each layer says so itself."""

    def __getattr__(self, name: str) -> Any:
        """Attributes are those of the layer that it answers for: code reads `self.dense.kernel`."""
        inherited = getattr(super(), "__getattr__", None)  # PyTorch's modules have one, other layers none
        try:
            if inherited is not None:
                return inherited(name)
        except AttributeError:
            pass
        held = self.__dict__
        if name.startswith("_") or held.get("main") is None or "layers" not in held:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        return getattr(held["layers"][held["main"]], name)


def _is_several(value: Any) -> bool:
    """Whether these are several values, or several shapes, and not one shape."""
    return not all(item is None or isinstance(item, int) for item in value)


def _accepted(layer: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """What a layer takes of the arguments that were meant for another."""
    parameters = inspect.signature(layer.call).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(named)
    names = {parameter.name for parameter in parameters}
    return {key: item for key, item in named.items() if key in names}


def _shape_behind(layer: Any, *given: Any, **named: Any) -> Any:
    try:
        return layer.compute_output_shape(*given, **named)
    except NotImplementedError:
        made = keras.tree.map_shape_structure(keras.KerasTensor, (given, named))
        spec = layer.compute_output_spec(*made[0], **made[1])
        return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), spec)


_LISTS = ("_layers", "_modules", "_tracker", "_series", "_made_of")
"""attributes that say what an object holds; it calls nothing by them"""


def put(holder: keras.Layer, old: keras.Layer, new: keras.Layer) -> bool:
    """Puts a layer in the place of another one, wherever an object holds that; whether it does."""
    tracker, held = holder._tracker, {**vars(holder), **vars(holder).get("_modules", {})}
    number = next((n for n, layer in enumerate(holder._layers) if layer is old), None)
    locked = tracker.locked
    tracker.unlock()  # a built layer takes no new ones
    found = False
    for name, value in held.items():
        if name in _LISTS:
            continue
        changed = _swapped(value, old, new)
        if changed is not None:
            setattr(holder, name, changed)
            found = True
    if found and number is not None:
        tracker.untrack(old)
        layers = holder._layers
        at = next((n for n, layer in enumerate(layers) if layer is new), None)
        if at is not None:
            layers.insert(min(number, len(layers) - 1), layers.pop(at))
    if locked:
        tracker.lock()
    return found


def _swapped(value: Any, old: Any, new: Any) -> Any:
    """A value with one layer in the place of another; None: it does not hold that."""
    if value is old:
        return new
    if isinstance(value, dict):
        items = {key: _swapped(item, old, new) for key, item in value.items()}
        if all(item is None for item in items.values()):
            return None
        return {key: value[key] if item is None else item for key, item in items.items()}
    if isinstance(value, tuple | list):
        found = [_swapped(item, old, new) for item in value]
        if all(item is None for item in found):
            return None
        swapped = [was if item is None else item for was, item in zip(value, found, strict=True)]
        if isinstance(value, list):
            return swapped
        return type(value)(*swapped) if hasattr(value, "_fields") else tuple(swapped)
    return None


# ---- the class of what was changed


class Altered:
    """A class with a `call` of its own, in which a `Series` stands in the place of some layers."""

    _series: Mapping[Place, Series]
    _made_of: Mapping[str, Any]

    def get_config(self) -> dict[str, Any]:
        """How the object as it was is made, and what stands in its places."""
        now = {"name": self.name, "trainable": self.trainable}  # type: ignore[attr-defined]
        config = {**self._made_of["config"]}
        config |= {key: value for key, value in now.items() if key in config}
        return {
            "layer": {**self._made_of, "config": config},
            "series": [
                {
                    "place": list(place),
                    "main": series.main,
                    "layers": [
                        None if number == series.own else keras.saving.serialize_keras_object(layer)
                        for number, layer in enumerate(series.layers)
                    ],
                }
                for place, series in self._series.items()
            ],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Any:
        """The object as it was, made by its own class and altered again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what it has not built yet is built by its first call
            layer = keras.saving.deserialize_keras_object(config["layer"], custom_objects=custom_objects)
        found: dict[Place, Series] = {}
        for entry in sorted(config["series"], key=lambda entry: -len(entry["place"])):
            holder, old = find(layer, entry["place"])
            layers = [
                old if item is None else keras.saving.deserialize_keras_object(item, custom_objects=custom_objects)
                for item in entry["layers"]
            ]
            own = next((number for number, item in enumerate(entry["layers"]) if item is None), None)
            series = found[tuple(entry["place"])] = Series(layers, entry["main"], own)
            replace(holder, old, series)
        return alter(layer, config["layer"], found)


keras.saving.register_keras_serializable("rewrite", "Altered")(Altered)


def find(layer: keras.Layer, place: Sequence[int]) -> tuple[Any, Any]:
    """The layer at a place, and the object that holds it."""
    holder, found = None, layer
    for number in place:
        holder, held = found, direct(found)
        if number >= len(held):
            raise ValueError(f"`{layer.name}` ({type(layer).__name__}) does not make the layers that are changed in it")
        found = held[number]
    return holder, found


def replace(holder: Any, old: Any, series: Series) -> None:
    """Lets an object call a series in the place of a layer of its own, which says by what shapes the others are built.

    Raises:
        ValueError: the object does not hold the layer in an attribute, a list or a table.

    """
    if not put(holder, old, series):
        raise ValueError(f"`{old.name}` is held by no attribute of `{holder.name}` ({type(holder).__name__})")
    known = old.standing if isinstance(old, Series) else old
    shapes = getattr(known, "_build_shapes_dict", None)
    if shapes and not series.built:
        try:
            series.build(*shapes.values())
        except Exception:  # shapes that are not known before the call: Keras builds them there
            return


def alter(layer: Any, made_of: Mapping[str, Any], series: Mapping[Place, Series]) -> Any:
    """Gives an object that was changed the class that a file keeps it by."""
    cls: Any = given_class(type(layer))
    layer.__class__ = altered_class(cls)
    layer.__dict__["_made_of"] = made_of
    layer.__dict__["_series"] = dict(series)
    return layer


@functools.cache
def altered_class(cls: type) -> type:
    """The given class, with the configuration of what was changed; under its own name, which people know it by."""
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    made = type(cls.__name__, (Altered, cls), names)
    return keras.saving.register_keras_serializable("rewrite", "Altered")(made)  # type: ignore[no-any-return]


def given_class(cls: type) -> type:
    """The class behind that of something altered."""
    return cls.__mro__[2] if issubclass(cls, Altered) and cls is not Altered else cls


def parts(layer: keras.Layer) -> Iterator[Any]:
    """The layers that an object calls, those of a `Series` one by one."""
    for child in direct(layer):
        if isinstance(child, Series):
            yield from child.layers
        else:
            yield child
