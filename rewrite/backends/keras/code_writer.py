"""Writes what the code of a class calls: other layers in the places of those that an object holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from rewrite.backends.keras.edits import Chain, Step
from rewrite.backends.keras.in_code import Altered, Place, Series, alter, direct, replace
from rewrite.backends.keras.making import Making, Pair, policy
from rewrite.backends.keras.reader import ACTIVATION, children_of, graph_of, walk
from rewrite.backends.keras.refusal import cannot
from rewrite.backends.keras.spellings import functional_class, fused_activation


class CodeWriter(Making):
    """The part of a write that is about objects with a `call` of their own."""

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
        if not same_parts(old, new):
            new.build_from_config(old.get_build_config())  # makes the layers that the constructor has not made
        if not same_parts(old, new):
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

    def _alter(self, old: Any, new: Any, path: str, place: Place, series: dict[Place, Series]) -> None:
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
        self, part: Any, copy: Any, path: str, place: Place | None, series: dict[Place, Series]
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
        self.builder.policy = policy(part)
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


def same_parts(old: Any, new: Any) -> list[tuple[Any, Any]]:
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
