"""`set ref.attribute = value`: attributes of a layer or of a call; `activation` is the activation behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rewrite import edit
from rewrite.actions.action import Assignment
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Call, Expression, Name
from rewrite.graph import Layer, Node
from rewrite.lookup import own_name
from rewrite.selectors import attribute
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS, find

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site

_SHAPING = frozenset(
    [
        "stride",
        "padding",
        "dilation",
        "output_padding",
        "output_size",
        "scale_factor",
        "size",
        "ceil_mode",
        "start_dim",
        "end_dim",
        "dim",
        "unflattened_size",
        "return_indices",
        "batch_first",
    ]
)
"""attributes that change the shape of an output"""

_BUILT_IN = frozenset(
    [
        "kernel_size",
        "groups",
        "num_groups",
        "affine",
        "elementwise_affine",
        "track_running_stats",
        "num_embeddings",
        "embedding_dim",
        "num_layers",
        "bidirectional",
        "num_heads",
        "num_parameters",
        "padding_mode",
    ]
)
"""attributes that a layer was built with: setting them later would not rebuild its weights"""


@dataclass(frozen=True)
class Set:
    """Assignments, in order.

    What it does: changes an attribute of a copy of the layer, or an argument of a function's call.
    What can go wrong: RW102 there is no such attribute, RW106 the layer's weights have that size.
    """

    assignments: tuple[Assignment, ...]
    span: Span

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return False

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return False

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One update for each layer or call that is meant."""
        done: dict[tuple[object, ...], object] = {}
        taken: dict[Span, list[Layer]] = {}
        meant: dict[int, Node] = {}
        for site in sites:
            for assignment in self.assignments:
                target = self._target(assignment, site, desk)
                name = assignment.target.attributes[-1]
                if isinstance(target, Node):
                    meant[target.index] = target
                if name == "activation":
                    self._set_activation(target, assignment, site, desk, done, taken)
                    continue
                value = desk.value(assignment.value, site)
                if isinstance(target, NewLayer):
                    self._set_new(target, name, value, site, assignment.target.span)
                else:
                    self._set_attribute(target, name, value, site, desk, done, assignment.target.span)
        _check_shared({_key(node): node for node in meant.values()}, meant, desk, self.span)
        for span, layers in taken.items():
            desk.warnings.append(_dropped(span, layers, desk))

    def _target(self, assignment: Assignment, site: Site, desk: Desk) -> Node | NewLayer:
        root = assignment.target.root
        found = site.names.get(root)
        if isinstance(found, Node | NewLayer):
            return found
        if root == "next":
            raise Diagnostic(
                "RW205",
                f"`next` is one call, and behind `{site.node.name}` there is not just one",
                assignment.target.span,
                notes=(_takers(site, desk),),
                help="select the consumer itself: `before ...`, or `between ... and ...`",
            ).error()
        raise Diagnostic("RW103", f"`{root}` is not bound at `{site.node.name}`", assignment.target.span).error()

    # ---- attributes

    def _set_new(self, target: NewLayer, name: str, value: object, site: Site, span: Span) -> None:
        if target.operation is not None:
            name = own_name(OPERATIONS[target.operation], name)
            known = [parameter.name for parameter in OPERATIONS[target.operation].parameters]
            if name not in known:
                raise _no_attribute(target.name, name, known, span)
        chain = next(chain for chain in site.inserts if target in chain)
        arguments, place = list(target.arguments), _place(target, name)
        if place < len(arguments):
            arguments[place] = value
            changed = replace(target, arguments=tuple(arguments))
        else:
            changed = replace(target, keywords={**target.keywords, name: value})
        chain[chain.index(target)] = changed
        site.names = {k: changed if v is target else v for k, v in site.names.items()}

    def _set_attribute(
        self,
        target: Node,
        name: str,
        value: object,
        site: Site,
        desk: Desk,
        done: dict[tuple[object, ...], object],
        span: Span,
    ) -> None:
        attributes = target.attributes
        name = attribute.own_name(target, name)
        operation = OPERATIONS.get(target.operation or "")
        if name not in attributes:
            raise _no_attribute(f"{target.name}` (`{target.spelling}`)", name, list(attributes), span)
        sized = {*operation.reads, *operation.writes} if operation is not None and target.layer is not None else set()
        if name in sized or (name in _BUILT_IN and target.layer is not None):
            kind = target.operation or target.spelling
            raise Diagnostic(
                "RW106",
                f"`{name}` of `{target.name}` cannot be set: the layer was built with it",
                span,
                help=f"build it anew: `replace {kind} with {kind}({name}={value!r})`",
            ).error()
        old = attributes[name]
        if name == "bias" and target.layer is not None:
            if value not in (None, False):
                raise Diagnostic("RW106", "`bias` can only be taken away: `set ...bias = none`", span).error()
            value = None
        else:
            value = _like(old, value, target, name, span)
        site.changes.append(f"set {name} = {value!r} (was {old!r})")
        if name in _SHAPING and value != old:
            desk.shape_changes.append(
                Diagnostic(
                    "RW310",
                    f"`{name}` = {value!r} may change the shape behind `{target.name}`",
                    span,
                    help="give an example input, and the output is checked by a run",
                )
            )
        key = (*_key(target), name)
        if key not in done and value != old:
            done[key] = value
            desk.edits.append(edit.Update(target.layer or target, {f".{name}": value}))

    # ---- activations

    def _set_activation(
        self,
        target: Node | NewLayer,
        assignment: Assignment,
        site: Site,
        desk: Desk,
        done: dict[tuple[object, ...], object],
        taken: dict[Span, list[Layer]],
    ) -> None:
        wanted = self._activation(assignment.value, site, desk)
        slot = target.layer.activation if isinstance(target, Node) and target.layer is not None else None
        if slot is None or not isinstance(target, Node) or target.layer is None:
            if wanted is None:
                # Between the call and this position there is no activation: it holds by construction.
                site.changes.append("activation in front is identity, by construction")
                return
            name = target.name
            raise Diagnostic(
                "RW102",
                f"`{name}` carries no activation of its own",
                assignment.target.span,
                help=f"insert one instead: `insert {wanted.name}`",
            ).error()
        if target.layer.operation is not None and wanted is None and assignment.target.root == "prev":
            # A layer's own activation is an operation behind it, and what is inserted comes between the two.
            site.changes.append("activation in front is identity, by construction")
            return
        key = (*_key(target), "activation")
        if key not in done:
            done[key] = wanted
            desk.edits.append(
                edit.Update(target.layer, {f".{slot}": wanted}, seed=f"{desk.text}\0{target.name}\0{slot}")
            )
            if wanted is None and not any(_is_activation(layer) for chain in site.inserts for layer in chain):
                taken.setdefault(assignment.target.span, []).append(target.layer)
        site.changes.append(f"set {slot} = {wanted or 'identity'}")

    def _activation(self, value: Expression, site: Site, desk: Desk) -> NewLayer | None:
        """The activation on the right side as a layer to build; None for identity."""
        function = value.function if isinstance(value, Call) else value
        operation = find(function.name) if isinstance(function, Name) else None
        if operation is None or (operation.family != "activation" and operation.name != "Identity"):
            raise Diagnostic(
                "RW101", "an activation is named here", value.span, help="`identity`, `ReLU`, `GELU`, ..."
            ).error()
        if operation.name == "Identity":
            return None
        arguments = desk.values(value.arguments, site) if isinstance(value, Call) else ()
        keywords = {k: desk.value(v, site) for k, v in value.keywords} if isinstance(value, Call) else {}
        return NewLayer(operation.name, None, arguments, keywords, f"{desk.text}\0{site.node.name}", value.span)


def _check_shared(targets: Mapping[object, Node], meant: Mapping[int, Node], desk: Desk, span: Span) -> None:
    """Refuses to set an attribute of a layer that is called at further places, where it would hold as well."""
    for node in targets.values():
        calls = desk.graph.calls.get(node.layer.path, ()) if node.layer is not None else ()
        others = [call for call in calls if call.index not in meant]
        if others:
            raise Diagnostic(
                "RW313",
                f"`{node.name}` is called {len(calls)} times, and {len(others)} of these calls "
                f"{'is' if len(others) == 1 else 'are'} not matched",
                span,
                notes=("an attribute belongs to the layer, so it holds for all of its calls",),
                help=f'match all calls of the layer, or name it by its path, `"{node.name}"`',
            ).error()


def _dropped(span: Span, layers: Sequence[Layer], desk: Desk) -> Diagnostic:
    """The warning that activations are gone: whose, and which they were."""
    places = [f"{layer.path}.{layer.activation}".lstrip(".") for layer in layers]
    classes = [desk.graph.layers[place].class_name for place in places if place in desk.graph.layers]
    listed = ", ".join(f"`{place}`" for place in places[:8])
    more = f", and {len(places) - 8} more" if len(places) > 8 else ""
    whose = f"`{layers[0].path or desk.graph.name}`" if len(layers) == 1 else f"{len(layers)} modules"
    return Diagnostic(
        "RW402",
        f"this removes the activation of {whose}",
        span,
        notes=(f"{listed}{more}: nothing puts {'it' if len(places) == 1 else 'them'} back",),
        help=f"to put it back at another place: `insert {classes[0] if classes else 'ReLU'}`",
    )


def _is_activation(layer: NewLayer) -> bool:
    return layer.operation is not None and OPERATIONS[layer.operation].family == "activation"


def _takers(site: Site, desk: Desk) -> str:
    """Who takes the value behind a site, in words."""
    if site.operand is not None or not site.node.linked:
        return "the calls behind it are not known"
    names = dict.fromkeys(node.name for node, _ in desk.graph.uses.get(site.node.index, ()))
    if not names:
        return "no call takes its value"
    return f"its value goes to {', '.join(f'`{name}`' for name in names)}"


def _place(target: NewLayer, name: str) -> int:
    """Position of an argument by which the layer's constructor takes it."""
    names = [parameter.name for parameter in OPERATIONS[target.operation].parameters] if target.operation else []
    return names.index(name) if name in names else len(target.arguments)


def _key(target: Node) -> tuple[object, ...]:
    return (target.layer.path,) if target.layer is not None else (target.scope, target.local)


def _like(old: object, value: object, target: Node, name: str, span: Span) -> object:
    """`value` in the form of the old one: `2` for `(1, 1)` is `(2, 2)`.

    Raises:
        RuleError: it is of another kind (RW106).

    """
    if isinstance(old, tuple) and isinstance(value, int | float) and not isinstance(value, bool):
        return (value,) * len(old)
    if isinstance(old, tuple) and isinstance(value, list | tuple) and len(value) == len(old):
        return tuple(value)
    if old is None or value is None or isinstance(value, type(old)) or (isinstance(old, float) and type(value) is int):
        return float(value) if isinstance(old, float) and type(value) is int else value
    raise Diagnostic("RW106", f"`{name}` of `{target.name}` is {old!r}, and {value!r} is of another kind", span).error()


def _no_attribute(who: str, name: str, known: Sequence[str], span: Span) -> Exception:
    close = nearest(name, known)
    return Diagnostic(
        "RW102",
        f"`{who}` has no attribute `{name}`" if not who.endswith(")") else f"`{who} has no attribute `{name}`",
        span,
        notes=(f"it has {', '.join(f'`{item}`' for item in known)}",),
        help=f"did you mean `{close[0]}`?" if close else "",
    ).error()
