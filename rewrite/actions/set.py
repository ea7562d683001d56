"""`set ref.attribute = value`: attributes of a layer or of a call; `activation` is the activation behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewrite import edit
from rewrite.actions.action import Assignment
from rewrite.actions.site import Desk, Site
from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic, nearest
from rewrite.expression import Call, Expression, Name
from rewrite.graph import Node
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS, find

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

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One update for each layer or call that is meant."""
        done: dict[tuple[object, ...], object] = {}
        for site in sites:
            for assignment in self.assignments:
                target = self._target(assignment, site)
                name = assignment.target.attributes[-1]
                if name == "activation":
                    self._set_activation(target, assignment.value, site, desk, done)
                    continue
                value = desk.value(assignment.value, site)
                if isinstance(target, NewLayer):
                    self._set_new(target, name, value, site)
                else:
                    self._set_attribute(target, name, value, site, desk, done)

    def _target(self, assignment: Assignment, site: Site) -> Node | NewLayer:
        root = assignment.target.root
        found = site.names.get(root)
        if isinstance(found, Node | NewLayer):
            return found
        if root == "next":
            raise Diagnostic(
                "RW205",
                f"`next` is not one call behind `{site.node.name}`",
                assignment.target.span,
                help="select the consumer itself: `before ...`, or `between ... and ...`",
            ).error()
        raise Diagnostic("RW103", f"`{root}` is not bound at `{site.node.name}`", assignment.target.span).error()

    # ---- attributes

    def _set_new(self, target: NewLayer, name: str, value: object, site: Site) -> None:
        if target.operation is not None:
            known = [parameter.name for parameter in OPERATIONS[target.operation].parameters]
            if name not in known:
                raise _no_attribute(target.name, name, known, self.span)
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
        self, target: Node, name: str, value: object, site: Site, desk: Desk, done: dict[tuple[object, ...], object]
    ) -> None:
        attributes = target.attributes
        operation = OPERATIONS.get(target.operation or "")
        if name not in attributes:
            raise _no_attribute(f"{target.name}` (`{target.spelling}`)", name, list(attributes), self.span)
        sized = {*operation.reads, *operation.writes} if operation is not None and target.layer is not None else set()
        if name in sized or (name in _BUILT_IN and target.layer is not None):
            kind = target.operation or target.spelling
            raise Diagnostic(
                "RW106",
                f"`{name}` of `{target.name}` cannot be set: the layer was built with it",
                self.span,
                help=f"build it anew: `replace {kind} with {kind}({name}={value!r})`",
            ).error()
        old = attributes[name]
        if name == "bias" and target.layer is not None:
            if value not in (None, False):
                raise Diagnostic("RW106", "`bias` can only be taken away: `set ...bias = none`", self.span).error()
            value = None
        else:
            value = _like(old, value, target, name, self.span)
        site.changes.append(f"set {name} = {value!r} (was {old!r})")
        if name in _SHAPING and value != old:
            desk.shape_changes.append(
                Diagnostic(
                    "RW310",
                    f"`{name}` = {value!r} may change the shape behind `{target.name}`",
                    self.span,
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
        value: Expression,
        site: Site,
        desk: Desk,
        done: dict[tuple[object, ...], object],
    ) -> None:
        wanted = self._activation(value, site, desk)
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
                self.span,
                help=f"insert one instead: `insert {wanted.name}`",
            ).error()
        key = (*_key(target), "activation")
        if key not in done:
            done[key] = wanted
            desk.edits.append(
                edit.Update(target.layer, {f".{slot}": wanted}, seed=f"{desk.text}\0{target.name}\0{slot}")
            )
            if wanted is None:
                desk.warnings.append(
                    Diagnostic(
                        "RW402",
                        f"this takes the activation `{slot}` out of `{target.name}`",
                        self.span,
                        notes=("nothing puts it back",),
                        help="insert it where it is wanted: `insert ReLU`",
                    )
                )
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
        arguments = tuple(desk.value(item, site) for item in value.arguments) if isinstance(value, Call) else ()
        keywords = {k: desk.value(v, site) for k, v in value.keywords} if isinstance(value, Call) else {}
        return NewLayer(operation.name, None, arguments, keywords, f"{desk.text}\0{site.node.name}", value.span)


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
