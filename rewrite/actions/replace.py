"""`replace S with X`, `replace S with X -> Y`: other layers in the place of the matched ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rewrite import edit
from rewrite.actions.action import LayerSpec
from rewrite.edit import NewLayer
from rewrite.errors import EXAMPLE_HELP, Diagnostic
from rewrite.graph import Layer, Node, TensorType
from rewrite.selectors import relation
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, Shape

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Replace:
    """New layers in the place of each match.

    What it does: a layer is replaced at its path, for all its calls; a call of a function becomes a layer. Arguments
    not given come from the replaced layer where the class is the same; equal shapes keep the weights.
    What can go wrong: RW313 a layer with weights is called elsewhere too, RW310 the shape would change.
    """

    layers: tuple[LayerSpec, ...]
    span: Span
    per: Literal["call", "layer"] | None = None
    """one new layer for each call, or one for all calls of a layer"""
    subject: str | None = None
    """capture that it is about; None: what the clause selects"""

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return False

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """Turns the sites into edits, one for each layer or call."""
        done: dict[tuple[str, str, int] | str, list[NewLayer]] = {}
        for site in _outermost(sites):
            if len(site.nodes) > 1:
                self._replace_chain(site, desk)
                continue
            if self.layers[0].inputs:
                self._replace_with_inputs(site, desk)
                continue
            layer = site.node.layer
            together = layer is not None and self._whole_layer(site, sites, desk)
            key = layer.path if together and layer is not None else site.key
            if key not in done:
                done[key] = self._layers(site, desk)
                target = layer if together and layer is not None else site.node
                calls = desk.calls.get(layer.path, ()) if layer is not None else ()
                desk.edits.append(edit.Replace(target, tuple(done[key]), calls))
            text = " -> ".join(str(new) for new in done[key])
            site.changes.append(f"replace with {text}")
            gone = desk.inner_calls(site.node) if site.node.composite else 1
            site.operations += len(done[key]) - gone

    def _replace_chain(self, site: Site, desk: Desk) -> None:
        """The first call gives its place to the new layers, and the others are bypassed."""
        first, *rest = site.nodes
        for before, node in itertools.pairwise(site.nodes):
            others = list(relation.other_users(desk.graph, before, node))
            if others:
                raise Diagnostic(
                    "RW312",
                    f"cannot replace: `{before.name}` is used outside of what is replaced",
                    self.span,
                    notes=(f"also used by {', '.join(others[:4])}",),
                    help="`>>` matches only calls whose value goes nowhere else",
                ).error()
            if len(node.inputs) != 1 or node.outputs != 1:
                raise Diagnostic(
                    "RW204",
                    f"`{node.name}` in the middle of what is replaced takes {len(node.inputs)} values",
                    self.span,
                    notes=("the new layers would be given one of them only",),
                    help="say what they take: `match A as a -> add as s, B as b -> s: replace s with F(a, b)`",
                ).error()
            if node.on_layer or not node.linked:
                raise Diagnostic(
                    "RW320",
                    f"what stands around `{node.name}` is left as it is, so it cannot be replaced together with others",
                    self.span,
                    notes=("the forward around it could not be captured with certainty",),
                    help="replace the calls one by one, or give an example input",
                ).error()
        inner = site.part(first)
        incoming = desk.input_of(first)
        made = desk.chain(self.layers, inner, incoming, site.nodes)
        self._check_chain_shape(site, made, incoming, desk)
        layer = first.layer
        calls = desk.calls.get(layer.path, ()) if layer is not None else ()
        whole = layer is not None and len({(call.scope, call.local) for call in calls}) == 1
        desk.edits.append(edit.Replace(layer if whole and layer is not None else first, tuple(made), calls))
        desk.edits += [edit.Remove(node) for node in rest]
        text = " -> ".join(str(new) for new in made)
        site.changes.append(f"replace {' -> '.join(f'`{node.name}`' for node in site.nodes)} with {text}")
        site.operations += len(made) - len(site.nodes)

    def _replace_with_inputs(self, site: Site, desk: Desk) -> None:
        """One call becomes layers that take the captured values."""
        node = site.node
        if node.on_layer or not node.linked:
            raise Diagnostic(
                "RW320",
                f"what `{node.name}` takes cannot be changed: the forward around it is left as it is",
                self.span,
                notes=("it could not be captured with certainty",),
                help="give an example input, or leave it out with `except`",
            ).error()
        inputs = [found for name in self.layers[0].inputs if isinstance(found := site.names.get(name), Node)]
        if len(inputs) < len(self.layers[0].inputs) or any(source is node for source in inputs):
            missing = [name for name in self.layers[0].inputs if site.names.get(name) in (None, node)]
            raise Diagnostic(
                "RW315",
                f"`{missing[0]}` is {'missing here' if site.names.get(missing[0]) is None else 'what is replaced'}",
                self.layers[0].span,
                help="name captures of calls in front of the replaced one",
            ).error()
        made = desk.chain(self.layers, site, desk.inference.behind(inputs[0]))
        self._check_shape_of_inputs(site, made, inputs, desk)
        unused = tuple(other for other in site.nodes_of_match if other is not node and other not in inputs)
        desk.edits.append(edit.Replace(node, tuple(made), inputs=tuple(inputs), unused=unused))
        listed = ", ".join(f"`{source.name}`" for source in inputs)
        site.changes.append(f"replace with {' -> '.join(map(str, made))} of {listed}")
        site.operations += len(made) - 1

    def _check_shape_of_inputs(self, site: Site, made: Sequence[NewLayer], inputs: Sequence[Node], desk: Desk) -> None:
        """Notes layers with captured inputs whose output may have another shape than the call that they replace."""
        node = site.node
        types = [desk.inference.behind(source) for source in inputs]
        before = desk.inference.behind(node)
        exact = [known.shape for known in types if known.shape is not None]
        if before.shape is not None and len(exact) == len(types):
            got = desk.trial(made, *exact)
            if got != before.shape:
                _note(site, made, f"the shape of its output from {before.shape}", f"{got}", desk, self.span)
            return
        row = OPERATIONS.get(node.operation or "")
        if row is not None and row.shape in (Shape.SAME, Shape.BROADCAST):
            # Values of one shape broadcast to that shape, whatever it is.
            shapes = [desk.samples(known, made) for known in types]
            alike = all(shape == shapes[0] for shape in shapes)
            if alike and all(desk.trial(made, *([shape] * len(inputs))) == shape for shape in shapes[0]):
                return
        desk.shape_changes.append(
            Diagnostic(
                "RW203",
                f"the shape at `{node.name}` is not known, so `{made[-1]}` cannot be checked there",
                self.span,
                help=EXAMPLE_HELP,
            )
        )

    def _check_chain_shape(self, site: Site, made: Sequence[NewLayer], incoming: TensorType, desk: Desk) -> None:
        """Notes a replacement of a chain whose output may have another shape than the chain's."""
        before = desk.inference.behind(site.nodes[-1])
        if incoming.shape is not None and before.shape is not None:
            got = desk.trial(made, incoming.shape)
            if got != before.shape:
                _note(site, made, f"the shape of its output from {before.shape}", f"{got}", desk, self.span)
            return
        olds = [_as_new(node, self.span) for node in site.nodes]
        if all(old is not None for old in olds):
            old = [layer for layer in olds if layer is not None]
            for shape in desk.samples(incoming, [*old, *made]):
                was, now = desk.trial(old, shape), desk.trial(made, shape)
                if was != now:
                    taken = ", ".join(f"{k}={v!r}" for new in made for k, v in new.keywords.items())
                    note = f"of a value of shape {shape}; arguments not given are those of what is replaced: {taken}"
                    _note(site, made, f"the shape of its output from {was}", f"{now}", desk, self.span, note=note)
                    return
            return
        desk.shape_changes.append(
            Diagnostic(
                "RW203",
                f"the shape behind `{site.nodes[-1].name}` is not known, so what takes its place cannot be checked",
                self.span,
                help=EXAMPLE_HELP,
            )
        )

    def _layers(self, site: Site, desk: Desk) -> list[NewLayer]:
        node = site.node
        incoming = desk.input_of(node)
        made = desk.chain(self.layers, site, incoming, (node,) if len(self.layers) == 1 else ())
        self._check_shape(site, made, incoming, desk)
        return made

    def _whole_layer(self, site: Site, sites: Sequence[Site], desk: Desk) -> bool:
        """Whether the layer itself is replaced (all its calls are matched and may share one), or each call alone."""
        node, layer = site.node, site.node.layer
        assert layer is not None, "called for the call of a layer"
        calls = desk.calls.get(layer.path, ())
        keys = {(call.scope, call.local) for call in calls}
        if self.per == "call" and len(keys) > 1 and not node.on_layer:
            return False
        matched = {(other.node.scope, other.node.local) for other in sites if other.node.layer is layer}
        if keys <= matched or not calls:
            brings_weights = any(
                spec.operation is None or OPERATIONS[spec.operation].reads or spec.operation == "PReLU"
                for spec in self.layers
            )
            # Called at several places, it would share new weights between them; each call gets layers of its own.
            shared = self.per == "layer" or node.on_layer or not brings_weights or _has_weights(layer)
            return len(keys) < 2 or shared
        if _has_weights(layer) or node.on_layer:
            raise Diagnostic(
                "RW313",
                f"`{layer.path}` is called {len(calls)} times, and only {len(matched)} of these calls "
                f"{'is' if len(matched) == 1 else 'are'} matched",
                self.span,
                notes=("its weights belong to all of its calls",)
                if _has_weights(layer)
                else ("the forward around one of its calls cannot be edited, so the layer is replaced as a whole",),
                help=f'match all calls of the layer, or name it by its path, `"{layer.path}"`',
            ).error()
        return False

    def _keeps_sample_shapes(self, site: Site, made: Sequence[NewLayer], incoming: TensorType, desk: Desk) -> bool:
        """Whether the old layer and the new ones make the same shape of shapes that agree with all that is known."""
        node = site.node
        row = OPERATIONS.get(node.operation or "")
        if row is None or row.signature is None:
            return False
        old = None
        if row.shape is not Shape.SAME:
            known = {p.name: node.attributes[p.name] for p in row.parameters if p.name in node.attributes}
            if any(p.required and p.name not in known for p in row.parameters):
                return False
            old = NewLayer(row.name, None, (), known, "", self.span)
        for shape in desk.samples(incoming, [old] if old is not None else made):
            was = desk.trial([old], shape) if old is not None else shape
            if isinstance(was, str) or desk.trial(made, shape) != was:
                return False
        return True

    def _check_shape(self, site: Site, made: Sequence[NewLayer], incoming: TensorType, desk: Desk) -> None:
        """Notes a replacement whose output may have another shape than that of what it replaces."""
        node = site.node
        old = OPERATIONS.get(node.operation or "")
        same = [n.operation is not None and OPERATIONS[n.operation].shape is Shape.SAME for n in made]
        if old is not None and old.shape is Shape.SAME and all(same):
            return
        if len(made) == 1 and made[0].operation == node.operation and old is not None:
            # Any argument but these can change the shape, where the operation does not keep it.
            given = dict(zip((p.name for p in old.parameters), made[0].arguments, strict=False)) | dict(
                made[0].keywords
            )
            free = {"bias", "eps", "momentum", "affine", "p", "inplace", "padding_mode", "num_embeddings"}
            same_as = node.attributes
            if all(k in free or k in old.reads or (k in same_as and same_as[k] == v) for k, v in given.items()):
                return
        before = (
            desk.inference.behind(node) if node.linked else desk.inference.type_of(desk.inference.main_output(node))
        )
        if incoming.shape is not None and before.shape is not None:
            got = desk.trial(made, incoming.shape)
            if got != before.shape:
                _note(site, made, f"the shape of its output from {before.shape}", f"{got}", desk, self.span)
            return
        after = incoming
        for new in made:
            after = desk.behind_layer(new, after)
        if self._keeps_sample_shapes(site, made, incoming, desk):
            return
        kept = old is not None and _only_sizes(old, made)
        for axis in (1, -1):
            was, now = before.size(axis), after.size(axis)
            if was is not None and now is not None and was != now:
                size = "size of its last axis" if axis == -1 or before.rank == 2 else "number of its channels"
                rest = ", _" * ((before.rank or 4) - 2) if axis == 1 else ""
                _note(site, made, f"the {size} from {was}", f"{now}", desk, self.span, f"(_, {now}{rest})")
                return
            kept = kept and (axis == 1 or was == now)
        if not kept:
            _note(
                site, made, "the shape of its output from one that is not known", "one that may differ", desk, self.span
            )


def _as_new(node: Node, span: Span) -> NewLayer | None:
    """A call as a layer to try shapes with; None where its arguments are not all known."""
    row = OPERATIONS.get(node.operation or "")
    if row is None or row.signature is None:
        return None
    if row.shape is Shape.SAME:
        return NewLayer("Identity", None, (), {}, "", span)
    known = {p.name: node.attributes[p.name] for p in row.parameters if p.name in node.attributes}
    if any(p.required and p.name not in known for p in row.parameters):
        return None
    return NewLayer(row.name, None, (), known, "", span)


def _only_sizes(old: Operation, made: Sequence[NewLayer]) -> bool:
    """Whether nothing but the last size of a linear layer could change, in the old layers and the new."""
    return old.family == "linear" and all(
        new.operation is not None
        and (OPERATIONS[new.operation].shape is Shape.SAME or OPERATIONS[new.operation].family == "linear")
        for new in made
    )


def _note(
    site: Site,
    made: Sequence[NewLayer],
    was: str,
    now: str,
    desk: Desk,
    span: Span,
    output: str = "(_, 10)",
    note: str = "",
) -> None:
    text = " -> ".join(str(new) for new in made)
    desk.shape_changes.append(
        Diagnostic(
            "RW310",
            f"`{text}` in the place of `{site.node.name}` changes {was} to {now}",
            span,
            notes=(note,) if note else (),
            help=f"if the model's output may change, say so: `expect output {output}`; "
            "else give an example input, and the output is checked by a run",
        )
    )


def _outermost(sites: Sequence[Site]) -> list[Site]:
    """Without the sites that lie inside another one, which goes as a whole."""
    paths = {site.node.layer.path for site in sites if site.node.layer is not None}

    def inside(site: Site) -> bool:
        where = site.node.name
        while "." in where:
            where = where.rpartition(".")[0]
            if where in paths:
                return True
        return False

    return [site for site in sites if not inside(site)]


def _has_weights(layer: Layer) -> bool:
    return bool(layer.parameters) or layer.statistics or bool(layer.children)
