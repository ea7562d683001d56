"""`Site`: one match while its edits are being planned, and `Desk`: what planning needs to know of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rewrite.actions.action import LayerSpec
from rewrite.edit import Edit, NewLayer, extends_layer
from rewrite.errors import EXAMPLE_HELP, Diagnostic
from rewrite.expression import CallFunction, Expression, ReadAttribute, Relate, Star, evaluate
from rewrite.graph import Graph, Node, Operand, TensorType
from rewrite.inference import Inference
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS
from rewrite.vocabulary.operation import Operation, Shape

Trial = Callable[..., tuple[int, ...] | str]
"""(layers, shape of each input) -> shape behind them, or why they do not take it; nothing is computed"""

_EXTENTS = (23, 30)
"""two different extents for the axes behind the channels, when the real ones are not known"""


@dataclass(eq=False)
class Site:
    """One match."""

    node: Node
    operand: Operand | None
    names: Mapping[str, object]
    inserts: list[list[NewLayer]] = field(default_factory=list)
    """the chains that the clause inserts here, in text order"""
    changes: list[str] = field(default_factory=list)
    """what happens here, one line each, beside the inserts"""
    inferred: dict[str, object] = field(default_factory=dict)
    operations: int = 0
    """by how many calls one forward pass grows here, beside the inserts"""
    nodes: tuple[Node, ...] = ()
    """all calls of a chain, in its order"""
    parts: list[Site] = field(default_factory=list)
    """of a chain, the single calls that actions are about; what happens there is told of the whole"""

    whole: Site | None = None
    """the match that this is a part of"""

    @property
    def nodes_of_match(self) -> tuple[Node, ...]:
        """All calls of the match that this site is, or is a part of."""
        return (self.whole or self).nodes

    def part(self, node: Node, operand: Operand | None = None) -> Site:
        """One call of this match, as a site of its own."""
        for part in self.parts:
            if part.node is node and part.operand is operand:
                part.names = {**self.names, "self": node}
                return part
        made = Site(
            node, operand, {**self.names, "self": node}, changes=self.changes, inferred=self.inferred, whole=self
        )
        self.parts.append(made)
        return made

    @property
    def key(self) -> tuple[str, str, int]:
        """What is edited: equal for the calls that one edit changes together."""
        number = -1 if self.operand is None else self.operand.number
        if self.node.layer is not None and extends_layer(self.node, None if self.operand is None else number):
            return "<layer>", self.node.layer.path, number
        return self.node.scope, self.node.local, number


@dataclass(eq=False)
class Desk:
    """Everything that the actions of one clause plan with."""

    graph: Graph
    inference: Inference
    text: str
    """the clause, which seeds the new weights"""
    read: ReadAttribute
    relate: Relate
    call: CallFunction
    trial: Trial
    calls: Mapping[str, tuple[Node, ...]]
    """layer path -> its calls in either mode"""
    edits: list[Edit] = field(default_factory=list)
    warnings: list[Diagnostic] = field(default_factory=list)
    shape_changes: list[Diagnostic] = field(default_factory=list)
    """sites where the shape changes or cannot be told, each an error unless the output is checked by a run"""

    # ---- values

    def value(self, expression: Expression, site: Site) -> object:
        """The value of an expression at a site."""
        return evaluate(expression, site.names, self.read, self.relate, self.call)

    def values(self, expressions: Sequence[Expression], site: Site) -> tuple[object, ...]:
        """The values of arguments at a site, those behind `*` one by one."""
        found: list[object] = []
        for expression in expressions:
            if isinstance(expression, Star):
                value = self.value(expression.value, site)
                if not isinstance(value, tuple | list):
                    raise Diagnostic("RW106", "only a tuple or list has items to spread", expression.span).error()
                found += value
            else:
                found.append(self.value(expression, site))
        return tuple(found)

    def incoming(self, site: Site, specs: Sequence[LayerSpec]) -> TensorType:
        """Type of the value on the edge of a position, as far as the layers to insert there ask for it."""
        wanted = _axes(specs)
        if wanted is None:
            return TensorType()
        if site.operand is not None:
            return self._operand_type(site.node, site.operand, wanted)
        return self.inference.behind(site.node, wanted) if site.node.linked else self._stated_output(site.node)

    def input_of(self, node: Node) -> TensorType:
        """Type of the first input of a call."""
        if node.inputs:
            return self._operand_type(node, node.inputs[0])
        return self._stated_input(node)

    def _operand_type(self, node: Node, operand: Operand, axes: Sequence[int] = (1, -1)) -> TensorType:
        found = self.inference.type_of(operand.value, axes)
        if found.shape is None and not found.sizes and operand.number == 0:
            stated = self._stated_input(node)
            return TensorType(stated.sizes, found.rank or stated.rank, stated.shape)
        return found

    def _stated_input(self, node: Node) -> TensorType:
        """What a layer says of its own input; what is inside an outer call says it for that."""
        exact = self.graph.types.get((node.index, ("input",)))
        if exact is not None:
            return exact
        operation = OPERATIONS.get(node.operation or "")
        sizes: dict[int, int] = {}
        if operation is not None and (node.layer is None or node.layer.exact):
            for argument, axis in operation.reads.items():
                stated = node.attributes.get(argument)
                if isinstance(stated, int):
                    sizes[axis] = stated
                elif isinstance(stated, tuple) and stated:
                    sizes[axis] = stated[-1]
        elif node.composite:
            first = next((n for n in self.graph.nodes[node.index + 1 :] if not n.composite), None)
            if first is not None and _inside(first, node):
                return self._stated_input(first)
        return TensorType(sizes, operation.rank if operation is not None else None)

    def _stated_output(self, node: Node) -> TensorType:
        exact = self.graph.types.get((node.index, ()))
        if exact is not None:
            return exact
        operation = OPERATIONS.get(node.operation or "")
        if operation is None:
            return TensorType()
        if operation.shape is Shape.SAME:
            return self._stated_input(node)
        sizes = {
            axis: stated
            for argument, axis in operation.writes.items()
            if isinstance(stated := node.attributes.get(argument), int)
        }
        return TensorType(sizes, operation.rank)

    # ---- new layers

    def chain(
        self, specs: Sequence[LayerSpec], site: Site, incoming: TensorType, replaced: Sequence[Node] = ()
    ) -> list[NewLayer]:
        """The layers of a flow with all arguments known, each fed by the one before it.

        A layer takes the arguments that it is not given from the one of its kind among `replaced`, if there is just one
        of that kind on either side.

        Raises:
            SiteError: an argument is neither given nor to be had from the site (RW202).

        """
        made: list[NewLayer] = []
        for number, spec in enumerate(specs):
            row = OPERATIONS.get(spec.operation or "")
            kinds = (row.name, *row.by_rank.values()) if row is not None else ()
            alike = [node for node in replaced if node.operation in kinds]
            alone = len(alike) == 1 == sum(other.operation == spec.operation for other in specs)
            new = self._layer(spec, site, incoming, self._inherited(alike[0]) if alone else None, number)
            made.append(new)
            site.inferred.update(new.inferred)
            incoming = _behind(new, incoming)
        return made

    def _inherited(self, node: Node) -> Mapping[str, object]:
        """The arguments of a call that a layer in its place takes over; a function's weights are not among them."""
        row = OPERATIONS[node.operation or ""]
        if node.layer is not None or not row.writes:
            return node.attributes
        made = self.inference.behind(node, tuple(row.writes.values()))
        sizes = {argument: size for argument, axis in row.writes.items() if (size := made.size(axis)) is not None}
        return {**sizes, **node.attributes}

    def _layer(
        self, spec: LayerSpec, site: Site, incoming: TensorType, inherit: Mapping[str, object] | None, number: int
    ) -> NewLayer:
        arguments = self.values(spec.arguments, site)
        keywords = {key: self.value(item, site) for key, item in spec.keywords}
        seed = f"{self.text}\0{site.node.name}\0{site.node.local}\0{len(site.inserts)}.{number}"
        if spec.operation is None:
            return NewLayer(None, spec.external, arguments, keywords, seed, spec.span)
        operation = self._for_rank(OPERATIONS[spec.operation], site, incoming, spec.span)
        given = dict(zip((p.name for p in operation.parameters), arguments, strict=False)) | keywords
        inferred: dict[str, object] = {}
        for parameter in operation.parameters:
            name = parameter.name
            if name in given:
                _check_kind(operation, name, parameter.default, given[name], spec.span)
                if name in operation.reads:
                    self._check_given(operation, name, given[name], incoming, site, spec.span)
                continue
            if inherit is not None and name in inherit:
                keywords[name] = given[name] = inherit[name]
            elif not parameter.required:
                continue
            elif name in operation.reads:
                size = _size_for(operation, name, incoming)
                if size is None:
                    raise self._cannot_infer(operation, name, site, incoming, spec.span)
                keywords[name] = given[name] = inferred[name] = size
            elif (
                name in operation.defaults
                and operation.defaults[name] in given
                and (inherit is None or name not in operation.writes)
            ):
                keywords[name] = given[name] = inferred[name] = given[operation.defaults[name]]
            else:
                raise Diagnostic(
                    "RW202",
                    f"`{operation.name}` needs `{name}`, which nothing at `{site.node.name}` tells",
                    spec.span,
                    help=f"give it: `{operation.name}({name}=...)`; the signature is "
                    f"`{operation.name}({operation.signature})`",
                ).error()
        return NewLayer(operation.name, None, arguments, keywords, seed, spec.span, inferred)

    def _for_rank(self, operation: Operation, site: Site, incoming: TensorType, span: Span) -> Operation:
        """The operation itself, or the one that it is for the number of axes at a site."""
        if not operation.by_rank:
            return operation
        name = operation.by_rank.get(incoming.rank) if incoming.rank is not None else None
        if name is not None:
            return OPERATIONS[name]
        known = f"it has {incoming.rank}" if incoming.rank is not None else "nothing tells how many there are"
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(operation.by_rank.values()))
        raise Diagnostic(
            "RW202",
            f"which `{operation.name}` is meant at `{site.node.name}` depends on the number of axes there",
            span,
            notes=(known,),
            help=f"name the one that is meant: {names}",
        ).error()

    def wrapper(self, spec: LayerSpec, site: Site) -> NewLayer:
        """A layer around the one at a site, which comes as its first argument."""
        arguments = self.values(spec.arguments, site)
        keywords = {key: self.value(item, site) for key, item in spec.keywords}
        seed = f"{self.text}\0{site.node.name}\0wrap"
        return NewLayer(spec.operation, spec.external, arguments, keywords, seed, spec.span, wraps=True)

    @staticmethod
    def insert_behind(site: Site, layers: list[NewLayer]) -> None:
        """Puts layers whose arguments are known behind the call of a site, outside of what stands there already."""
        site.inserts.append(layers)

    def _check_given(
        self, operation: Operation, name: str, value: object, incoming: TensorType, site: Site, span: Span
    ) -> None:
        known = _size_for(operation, name, incoming)
        stated = value[-1] if isinstance(value, tuple) and value else value
        if known is not None and isinstance(stated, int) and stated != known:
            raise Diagnostic(
                "RW106",
                f"`{operation.name}({name}={value!r})` does not fit `{site.node.name}`, where that size is {known}",
                span,
                help=f"leave `{name}` out, and each site supplies its own",
            ).error()

    def _cannot_infer(self, operation: Operation, name: str, site: Site, incoming: TensorType, span: Span) -> Exception:
        axis = operation.reads[name]
        which = "number of channels" if axis == 1 else "last size"
        where = f"in front of input {site.operand.name} of" if site.operand is not None else "behind"
        if operation.family == "norm" and operation.rank is not None and incoming.rank not in (None, operation.rank):
            return self._wrong_rank(site, operation, incoming, span)
        notes = [f"the {which} {where} `{site.node.name}` ({site.node.spelling}) follows from no layer around it"]
        return Diagnostic(
            "RW202",
            f"`{name}` of `{operation.name}` cannot be inferred at `{site.node.name}`",
            span,
            notes=tuple(notes),
            help=f"write `{operation.name}({name}=...)`, or {EXAMPLE_HELP}",
        ).error()

    def behind_layer(self, new: NewLayer, incoming: TensorType) -> TensorType:
        """What is known of the value behind a new layer."""
        return _behind(new, incoming)

    def inner_calls(self, outer: Node) -> int:
        """How many calls of layers and functions an outer call makes."""
        return sum(not node.composite and _inside(node, outer) for node in self.graph.nodes[outer.index + 1 :])

    # ---- shapes

    def check_inserted(self, site: Site, layers: Sequence[NewLayer], incoming: TensorType) -> None:
        """Notes a chain that would change the shape of the value it is inserted on."""
        self._check_rank(site, layers[0], incoming)
        if all(n.operation is not None and OPERATIONS[n.operation].shape is Shape.SAME for n in layers):
            return
        for shape in self.samples(incoming, layers):
            got = self.trial(layers, shape)
            if got != shape:
                self._note_shape(site, layers, shape, got, known=bool(incoming.sizes) or incoming.shape is not None)
                return

    def _check_rank(self, site: Site, first: NewLayer, incoming: TensorType) -> None:
        operation = OPERATIONS.get(first.operation or "")
        if operation is None or incoming.rank is None:
            return
        taken = operation.ranks or ((operation.rank,) if operation.rank is not None else ())
        if not taken or incoming.rank in taken:
            return
        if operation.rank is not None and operation.family != "norm" and incoming.rank == operation.rank - 1:
            return  # one image without a batch is taken as well
        raise self._wrong_rank(site, operation, incoming, first.span)

    def _wrong_rank(self, site: Site, operation: Operation, incoming: TensorType, span: Span) -> Exception:
        taken = " or ".join(map(str, operation.ranks or (operation.rank,)))
        return Diagnostic(
            "RW310",
            f"`{operation.name}` takes a value with {taken} axes; that at `{site.node.name}` has {incoming.rank}",
            span,
            help="choose the layer for that number of axes, such as `BatchNorm1d` behind a `Linear`",
        ).error()

    def _note_shape(
        self,
        site: Site,
        layers: Sequence[NewLayer],
        shape: tuple[int | None, ...],
        got: tuple[int, ...] | str,
        *,
        known: bool,
    ) -> None:
        text = " -> ".join(str(layer) for layer in layers)
        if isinstance(got, str) and not known:
            self.shape_changes.append(
                Diagnostic(
                    "RW203",
                    f"the shape at `{site.node.name}` is not known, so `{text}` cannot be checked there",
                    layers[0].span,
                    notes=(f"tried with {shape}: {got}",),
                    help=EXAMPLE_HELP,
                )
            )
            return
        result = (
            f"does not take a value of shape {shape}: {got}" if isinstance(got, str) else f"turns {shape} into {got}"
        )
        self.shape_changes.append(
            Diagnostic(
                "RW310",
                f"`{text}` at `{site.node.name}` {result}",
                layers[0].span,
                notes=("sizes that no layer states stand for any size",) if not self.graph.types else (),
                help="choose arguments that keep the shape (for a convolution `padding = (kernel_size - 1) / 2`), "
                "or give an example input and the output itself is checked",
            )
        )

    def samples(self, incoming: TensorType, layers: Sequence[NewLayer]) -> list[tuple[int | None, ...]]:
        """Shapes to try a chain with: the real one, or two that agree with what is known."""
        if incoming.shape is not None:
            return [incoming.shape]
        first = OPERATIONS.get(layers[0].operation or "")
        rank = incoming.rank or (first.rank if first is not None else None)
        channels, last = incoming.sizes.get(1), incoming.sizes.get(-1)
        if rank is None:
            rank = 2 if last is not None or channels is None else 4
        if rank == 2:
            return [(2, last or channels or 8)]
        return [(2, channels or 8, *([extent] * (rank - 3)), last or extent) for extent in _EXTENTS]


def _axes(specs: Sequence[LayerSpec]) -> tuple[int, ...] | None:
    """The axes whose sizes a flow asks for; None where it takes any value at all, as a Dropout does."""
    rows = [OPERATIONS[spec.operation] if spec.operation is not None else None for spec in specs]
    if any(row is None or row.shape is not Shape.SAME for row in rows):
        return (1, -1)
    axes = {axis for row in rows if row is not None for axis in row.reads.values()}
    if not axes and all(row is not None and row.rank is None for row in rows):
        return None
    # Behind a linear layer the channels are on the last axis.
    return tuple(
        sorted(axes | ({-1} if any(row is not None and row.reads and row.rank is None for row in rows) else set()))
    )


def _behind(new: NewLayer, incoming: TensorType) -> TensorType:
    operation = OPERATIONS.get(new.operation or "")
    if operation is None:
        return TensorType()
    if operation.shape is Shape.SAME:
        return incoming
    given = dict(zip((p.name for p in operation.parameters), new.arguments, strict=False)) | dict(new.keywords)
    sizes = {axis: size for name, axis in operation.writes.items() if isinstance(size := given.get(name), int)}
    if operation.shape is Shape.CHANNELS and (channels := incoming.size(1)) is not None:
        sizes.setdefault(1, channels)
    rank = operation.rank if operation.rank is not None else incoming.rank if operation.family == "linear" else None
    return TensorType(sizes, rank)


def _check_kind(operation: Operation, name: str, default: object, value: object, span: Span) -> None:
    """Refuses a text for a number or a flag, which PyTorch would keep until a forward trips over it."""
    if isinstance(default, int | float) and isinstance(value, str):
        raise Diagnostic(
            "RW106",
            f"`{name}` of `{operation.name}` is a {'flag' if isinstance(default, bool) else 'number'}, not {value!r}",
            span,
            help=f"`{operation.name}({operation.signature})`",
        ).error()


def _size_for(operation: Operation, name: str, incoming: TensorType) -> int | None:
    axis = operation.reads[name]
    size = incoming.size(axis)
    if size is None and axis == 1 and operation.rank is None and incoming.rank in (None, 2) and incoming.shape is None:
        size = incoming.size(-1)  # BatchNorm1d behind a Linear: with two axes the last is the channel axis
    return size


def _inside(node: Node, outer: Node) -> bool:
    owner = node.owner
    while owner is not None:
        if owner is outer:
            return True
        owner = owner.owner
    return False
