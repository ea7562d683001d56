"""`match(clause, graph)`: the sites of a clause, and why near misses are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from rewrite import globs
from rewrite.errors import Diagnostic, RewriteError, nearest
from rewrite.expression import Expression, evaluate, truth
from rewrite.graph import Graph, Layer, Node, Operand, Value
from rewrite.pattern import Anything, Kind, Path, Selector, Unit
from rewrite.rule import Clause
from rewrite.selectors import attribute, kind, path, position, relation, scope
from rewrite.source import Span
from rewrite.vocabulary import OPERATIONS, by_function, by_method, by_module, expand
from rewrite.vocabulary.operation import Operation


@dataclass(frozen=True, eq=False)
class Match:
    """One site: the matched call, the side of it that is meant, and the names bound there."""

    node: Node
    operand: Operand | None = None
    """`before`, `between`: the input whose edge is meant; None: the output, or the call itself"""
    names: Mapping[str, Node] = field(default_factory=dict)
    """captures, and `prev` or `next` where there is just one"""


@dataclass(frozen=True)
class Context:
    """What selectors need beside the graph."""

    constants: Mapping[str, object]
    classes: Mapping[str, str]
    """names given by the caller -> dotted name of the class"""


@dataclass
class Found:
    """The result of matching one selector."""

    nodes: list[tuple[Node, Unit]]
    failures: dict[str, Counter[str]]
    """stage (`base`, `tests`, `in`, `except`, `where`) -> why, how often"""
    passed: Counter[str]
    """stage -> how many nodes came as far as it and passed"""
    unlinked: str = ""
    """why neighbours are not known, where that may be the reason that there is no site"""


class Matcher:
    """Matches selectors on one graph."""

    def __init__(self, graph: Graph, context: Context) -> None:
        self.graph = graph
        self.context = context

    # ---- clauses

    def sites(self, clause: Clause) -> tuple[list[Match], Found]:
        """All sites of a clause, in order of execution."""
        found = self.select(clause.selector, self.layer_nodes() if self.layers_only(clause) else self.graph.nodes)
        match clause.header:
            case "before":
                return [m for node, unit in found.nodes for m in self._before(clause.selector, node, unit)], found
            case "between":
                return self._between(clause, found)
            case "after":
                return [
                    Match(node, None, _captured(clause.selector, node, prev=node)) for node, _ in found.nodes
                ], found
            case _:
                return [Match(node, None, _captured(clause.selector, node)) for node, _ in found.nodes], found

    def _before(self, selector: Selector, node: Node, unit: Unit) -> list[Match]:
        return [
            Match(node, operand, _captured(selector, node, next=node, prev=operand.value.producer))
            for operand in self._ports(node, unit)
        ]

    def _ports(self, node: Node, unit: Unit) -> list[Operand]:
        if unit.port == "*" and node.linked:
            return list(node.inputs)
        if unit.port is None:
            if len(node.inputs) == 1:
                return list(node.inputs)
            if not node.linked and node.layer is not None:
                return [Operand("input", 0, Value(None, known=False))]
            if not node.inputs:
                raise Diagnostic(
                    "RW204",
                    f"`{node.name}` has no input that is a value of the model",
                    unit.span,
                    notes=("what it takes are parameters or constants",),
                    help=f'leave it out: `except "{node.name}"`',
                ).error()
            listed = ", ".join(f"`@{operand.name}`" for operand in node.inputs)
            raise Diagnostic(
                "RW204",
                f"`{node.name}` has {len(node.inputs)} inputs; which one is meant?",
                unit.span,
                notes=(f"its inputs are {listed}",),
                help=f"name one, `{unit_text(unit)}@{node.inputs[0].name}`, or all, `{unit_text(unit)}@*`",
            ).error()
        for operand in node.inputs:
            if unit.port in (operand.name, operand.number):
                return [operand]
        if not node.linked and unit.port in (0, "input", "query"):
            return [Operand("input", 0, Value(None, known=False))]
        if not node.linked:
            raise Diagnostic(
                "RW206",
                f"what `{node.name}` takes is not known, so `@{unit.port}` cannot be found",
                unit.span,
                notes=(self.why_unlinked(node),),
                help=f'`{unit_text(unit)}@0` can be reached; or leave this one out: `except "{node.name}"`',
            ).error()
        listed = ", ".join(f"`@{operand.name}`" for operand in node.inputs) or "none that is a value of the model"
        raise Diagnostic(
            "RW204",
            f"`{node.name}` has no input `@{unit.port}`",
            unit.span,
            notes=(f"its inputs are {listed}",),
            help=f'name one of them, or leave this call out: `except "{node.name}"`',
        ).error()

    def _between(self, clause: Clause, firsts: Found) -> tuple[list[Match], Found]:
        assert clause.second is not None, "between has two selectors"
        seconds = self.select(clause.second, self.graph.nodes)
        wanted = {node.index for node, _ in firsts.nodes}
        sites: list[Match] = []
        taken: set[tuple[int, tuple[int | str, ...], int, str, int]] = set()
        for node, unit in seconds.nodes:
            for operand in node.inputs:
                if unit.port not in (None, "*", operand.name, operand.number):
                    continue
                producer = next((p for p in relation.producers(operand.value) if p.index in wanted), None)
                if producer is None or any(outer.index == producer.index for outer in _owners(node)):
                    continue
                key = (producer.index, operand.value.index, node.index, operand.name, operand.number)
                if key in taken:
                    continue
                taken.add(key)
                names = {**_captured(clause.selector, producer), **_captured(clause.second, node)}
                sites.append(Match(node, operand, {**names, "prev": producer, "next": node}))
        # An outer call and the call inside it may both take the value: the outermost one that is named is meant.
        chosen = {match.node.index for match in sites}
        sites = [m for m in sites if not any(outer.index in chosen for outer in _owners(m.node))]
        if not sites:
            unlinked = next((node for node, _ in (*firsts.nodes, *seconds.nodes) if not node.linked), None)
            firsts.unlinked = self.why_unlinked(unlinked) if unlinked is not None else ""
            firsts.failures["between"] = Counter([self._no_edge(firsts, seconds)])
        return sites, firsts

    def _no_edge(self, firsts: Found, seconds: Found) -> str:
        """Why `between` found nothing, with the shortest way from one to the other if there is one."""
        text = f"the first selector fits {len(firsts.nodes)} and the second {len(seconds.nodes)}, but no value goes"
        if not firsts.nodes or not seconds.nodes:
            return f"the first selector fits {len(firsts.nodes)} calls and the second {len(seconds.nodes)}"
        import networkx  # 0.3 s, and only this explanation needs it

        flow = networkx.DiGraph()
        flow.add_nodes_from(node.index for node in self.graph.nodes)
        flow.add_edges_from(
            (producer.index, node.index)
            for node in self.graph.nodes
            for operand in node.inputs
            for producer in relation.producers(operand.value)
        )
        ends = {node.index for node, _ in seconds.nodes}
        distances, ways = networkx.multi_source_dijkstra(flow, {node.index for node, _ in firsts.nodes})
        reached = [index for index in ends if distances.get(index)]
        if not reached:
            return f"{text} from one to the other"
        way = ways[min(reached, key=lambda index: (distances[index], index))]
        names = " -> ".join(f"`{self.graph.nodes[index].name}`" for index in way[:6])
        return f"{text} directly from one to the other; the shortest way is {names}"

    @staticmethod
    def layers_only(clause: Clause) -> bool:
        """Whether a clause is about layers, called or not, so that no forward needs to be read for it."""
        return clause.header is None and all(getattr(action, "on_layers", False) for action in clause.actions)

    def layer_nodes(self) -> list[Node]:
        """Every layer, called or not, in the form of a call: what `freeze` and `reset` choose from."""
        return [scope.as_node(layer) for layer in self.graph.layers.values()]

    # ---- selectors

    def select(self, selector: Selector, nodes: Iterable[Node]) -> Found:
        """The calls that a selector chooses, in the order of `nodes`."""
        found = Found([], {}, Counter())
        candidates = list(nodes)
        per_unit: list[tuple[int, Node, Unit]] = []
        taken: set[int] = set()
        for unit in selector.alternatives:
            passed = [
                (number, node) for number, node in enumerate(candidates) if self._chosen(selector, unit, node, found)
            ]
            if unit.pick is not None:
                passed = self._pick(selector, unit, passed)
            for number, node in passed:
                if number not in taken:
                    taken.add(number)
                    per_unit.append((number, node, unit))
        per_unit.sort(key=lambda item: item[0])
        found.nodes = [(node, unit) for _, node, unit in per_unit]
        return found

    def _pick(self, selector: Selector, unit: Unit, passed: list[tuple[int, Node]]) -> list[tuple[int, Node]]:
        """Applies `first`, `last`, ...: per `within` instance where there is one, else over the model."""
        assert unit.pick is not None, "called for a unit with a pick"
        if not selector.within:
            return position.choose(unit.pick, passed)
        groups: dict[str, list[tuple[int, Node]]] = {}
        for number, node in passed:
            groups.setdefault(self._instance(selector, node), []).append((number, node))
        return [item for group in groups.values() for item in position.choose(unit.pick, group)]

    def _instance(self, selector: Selector, node: Node) -> str:
        """Path of the module that a `within` names, around this call."""
        units = selector.within[-1]
        for where, layer in scope.enclosing(self.graph, node):
            if (
                layer is not None
                and layer is not node.layer
                and any(self._unit_is_layer(u, where, layer) for u in units)
            ):
                return where
        return ""

    def _unit_is_layer(self, unit: Unit, where: str, layer: Layer) -> bool:
        if isinstance(unit.base, Path):
            return globs.compiled(unit.base.glob).fullmatch(where) is not None
        return self.fits(unit, scope.as_node(layer))

    def _chosen(self, selector: Selector, unit: Unit, node: Node, found: Found) -> bool:
        why = self.explain_base(unit, node)
        if why is not None:
            return False
        if isinstance(unit.base, Anything) and node.index < 0 and _is_empty(node):
            return False  # a container holds nothing of its own that could be frozen or reset
        found.passed["base"] += 1
        for test in unit.tests:
            why = attribute.explain(test, node, self._constant)
            if why is not None:
                found.failures.setdefault("tests", Counter())[why] += 1
                return False
        found.passed["tests"] += 1
        for units in (*selector.scopes, *selector.within):
            if not scope.is_inside(self.graph, node, units, self.context.classes):
                found.failures.setdefault("in", Counter())[""] += 1
                return False
        found.passed["in"] += 1
        if selector.excluded and scope.is_inside(self.graph, node, selector.excluded, self.context.classes):
            found.failures.setdefault("except", Counter())[""] += 1
            return False
        found.passed["except"] += 1
        if selector.where is not None and not self._holds(selector, node):
            found.failures.setdefault("where", Counter())[""] += 1
            return False
        if node.layer is not None and node.layer.uncallable and node.index >= 0:
            found.failures.setdefault("uncallable", Counter())[node.layer.uncallable] += 1
            return False
        found.passed["where"] += 1
        return True

    def explain_base(self, unit: Unit, node: Node) -> str | None:
        """None if the call is of the unit's kind or at its path, else why not."""
        match unit.base:
            case Kind():
                return kind.explain(unit.base, node, self.context.classes)
            case Path():
                return path.explain(unit.base, node)
            case Anything():
                return None

    def fits(self, unit: Unit, node: Node) -> bool:
        """Whether a call is what one unit says, scopes and picks aside."""
        if self.explain_base(unit, node) is not None:
            return False
        return all(attribute.explain(test, node, self._constant) is None for test in unit.tests)

    # ---- where

    def _constant(self, expression: Expression) -> object:
        return evaluate(expression, self.context.constants)

    def _holds(self, selector: Selector, node: Node) -> bool:
        assert selector.where is not None, "called for a selector with a where"
        names: dict[str, object] = {**self.context.constants, "self": node, "prev": node, "next": node}
        if selector.capture:
            names[selector.capture] = node
        value = evaluate(selector.where, names, self.read, self._relate(node))
        return truth(value, selector.where.span)

    def read(self, value: object, name: str, span: Span) -> object:
        """`value.name` in an expression, where value is a call."""
        if not isinstance(value, Node):
            raise Diagnostic("RW102", f"{value!r} has no attribute `{name}`", span).error()
        return attribute.read(value, name, span)

    def _relate(self, node: Node) -> Callable[[str, object, tuple[object, ...], Span], bool]:
        def relate(name: str, subject: object, units: tuple[object, ...], span: Span) -> bool:
            def fits(other: Node) -> bool:
                return any(isinstance(unit, Unit) and self.fits(unit, other) for unit in units)

            if name == "is":
                return isinstance(subject, Node) and fits(subject)
            if node.index < 0:
                raise Diagnostic(
                    "RW009",
                    f"`{name}` asks about a call, and `freeze`, `unfreeze` and `reset` are about layers, called or not",
                    span,
                    help="name the layers by class, path or attribute",
                ).error()
            if not node.linked:
                raise Diagnostic(
                    "RW206",
                    f"what stands beside `{node.name}` is not known, so `{name}` has no answer",
                    span,
                    notes=(self.why_unlinked(node),),
                    help=f'leave it out, `except "{node.name}"`, or choose without `{name}`',
                ).error()
            match name:
                case "has_next":
                    return relation.has_next(self.graph, node, fits)
                case "has_prev":
                    return relation.has_prev(self.graph, node, fits)
                case _:
                    return relation.only_next(self.graph, node, fits)

        return relate

    def relate_anywhere(self, name: str, subject: object, units: tuple[object, ...], span: Span) -> bool:
        """Relations in an expression outside a `where`: only `is` has a call in front of it."""
        return isinstance(subject, Node) and any(isinstance(u, Unit) and self.fits(u, subject) for u in units)

    def why_unlinked(self, node: Node) -> str:
        """Why the neighbours of a call are not known."""
        where = node.scope
        while True:
            if where in self.graph.opaque:
                return f"the forward of `{where or self.graph.name}` could not be captured: {self.graph.opaque[where]}"
            if not where:
                return "the forward around it could not be captured"
            where = where.rpartition(".")[0]

    # ---- misses

    def no_match(self, clause: Clause, found: Found) -> Diagnostic:
        """RW301, or RW201 where a path is the reason: what was there, and at which test it failed."""
        selector = clause.selector
        units = selector.alternatives
        what = " | ".join(unit_text(unit) for unit in units)
        base = found.passed["base"]
        if not base and len(units) == 1 and isinstance(units[0].base, Path):
            return self._no_path(units[0], units[0].base.glob)
        notes: list[str] = []
        label, help_text, span = "", "", selector.span
        if not base:
            label = f"no call in {self.graph.name} is {what}"
            notes += self._near_kinds(units)
            notes += self._uncallable(selector)
            notes += self._unseen()
            help_text = self._nearest_kind_help(units)
        else:
            notes.append(f"{base} {'call is' if base == 1 else 'calls are'} {what}")
            for stage, one, several in (
                ("tests", "fails the attribute test", "fail the attribute test"),
                ("in", "lies outside of the scope", "lie outside of the scope"),
                ("except", "is left out by `except`", "are left out by `except`"),
                ("where", "fails the `where`", "fail the `where`"),
                ("uncallable", "cannot be edited", "cannot be edited"),
                ("between", "", ""),
            ):
                reasons = found.failures.get(stage, Counter())
                if stage == "between":
                    notes += reasons
                elif reasons:
                    shown = [f"{why} ({count})" for why, count in reasons.most_common(3) if why]
                    text = one if reasons.total() == 1 else several
                    notes.append(f"{reasons.total()} of them {text}" + (f": {'; '.join(shown)}" if shown else ""))
            if found.failures.get("in"):
                places = self._places_of(units)
                notes.append(f"places where there are any: {', '.join(places)}")
                notes += self._uncallable(selector)
                help_text = "name one of these places, or drop the scope"
        if found.unlinked:
            notes.append(found.unlinked)
        rule = f"rule `{clause.rule}`" if clause.rule else "the rule"
        return Diagnostic(
            "RW301",
            f"{rule} matched nothing in {self.graph.name} (expected {clause.count})",
            span,
            label,
            tuple(notes),
            help_text or "`expect any matches` allows zero",
        )

    def _no_path(self, unit: Unit, glob: str) -> Diagnostic:
        paths = list(dict.fromkeys([*self.graph.layers, *(node.name for node in self.graph.nodes)]))
        paths = [p for p in paths if p]
        stem = glob.replace(".**", "").replace("**.", "").replace(".*", "")
        close = nearest(stem, paths)
        there = close or [p for p in paths if "." not in p][:6]
        return Diagnostic(
            "RW201",
            f'the path "{glob}" matches nothing in {self.graph.name}',
            unit.span,
            notes=(f"{'nearest' if close else 'its first'} paths: {', '.join(f'`{p}`' for p in there)}",),
            help=f'did you mean "{close[0]}"?' if close else "`rewrite show` lists the paths of a model",
        )

    def _near_kinds(self, units: Iterable[Unit]) -> list[str]:
        """Operations of the same family that are there instead, and their number."""
        notes = []
        families: set[str] = set()
        for unit in units:
            if isinstance(unit.base, Kind):
                operation = OPERATIONS.get(unit.base.operation or "")
                if operation is not None and operation.family:
                    families.add(operation.family)
        for family in sorted(families):
            there = Counter(
                node.operation
                for node in self.graph.nodes
                if node.operation and OPERATIONS[node.operation].family == family
            )
            if there:
                listed = ", ".join(f"`{name}` ({count})" for name, count in there.most_common(5))
                notes.append(f"the {family} operations here are {listed}")
        for unit in units:
            if isinstance(unit.base, Kind) and unit.base.dotted:
                notes += self._other_spellings(unit.base.dotted)
        return notes

    def _uncallable(self, selector: Selector) -> list[str]:
        """Layers that are what a selector names, within its scope, and that nothing calls."""
        found = []
        for layer in self.graph.layers.values():
            if not layer.uncallable:
                continue
            node = scope.as_node(layer)
            inside = all(
                scope.is_inside(self.graph, node, units, self.context.classes)
                for units in (*selector.scopes, *selector.within)
            )
            if inside and any(self.fits(unit, node) for unit in selector.alternatives):
                found.append(f"`{layer.path}` cannot be edited: {layer.uncallable}")
        return found[:3]

    def _unseen(self) -> list[str]:
        """Forwards whose functions nobody can see."""
        unseen = list(self.graph.opaque.items())
        if not unseen:
            return []
        path, why = unseen[0]
        more = f", and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        return [f"functions called in the forward of `{path or self.graph.name}`{more} are not seen: {why}"]

    def _other_spellings(self, dotted: str) -> list[str]:
        last = dotted.rpartition(".")[2].lower().rstrip("_")
        other = Counter(n.spelling for n in self.graph.nodes if n.operation and n.operation.lower() == last)
        return [f"spelled otherwise: {', '.join(f'`{s}` ({c})' for s, c in other.most_common(5))}"] if other else []

    def _nearest_kind_help(self, units: Iterable[Unit]) -> str:
        classes = {layer.class_name for layer in self.graph.layers.values()}
        there = {node.operation for node in self.graph.nodes if node.operation}
        for unit in units:
            operation = _spelled_operation(unit)
            if operation is not None and operation.name in there:
                return f"`{operation.name}` is every spelling of it"
            if isinstance(unit.base, Kind):
                close = nearest(unit.base.text, [*there, *classes])
                if close:
                    return f"did you mean `{close[0]}`?"
        return ""

    def _places_of(self, units: Iterable[Unit]) -> list[str]:
        units = list(units)
        places = Counter(
            node.name.partition(".")[0] for node in self.graph.nodes if any(self.fits(unit, node) for unit in units)
        )
        return [f'"{place}.**" ({count})' for place, count in places.most_common(6)]

    def near_misses(self, clause: Clause, other: Graph | None) -> list[str]:
        """Layers that are what the clause names and yet are no site, each with the reason."""
        if self.layers_only(clause):
            return []
        called = {*self.graph.calls, *(other.calls if other is not None else ())}
        lines = []
        for layer in self.graph.layers.values():
            if layer.path in called or not layer.path:
                continue
            node = scope.as_node(layer)
            if node.composite or not any(self._is_named(unit, node) for unit in clause.selector.alternatives):
                continue
            lines.append(f"`{layer.path}` ({node.spelling}): {layer.uncallable or 'no forward calls it'}")
        return lines

    def _is_named(self, unit: Unit, node: Node) -> bool:
        return isinstance(unit.base, Kind) and self.fits(unit, node)

    def other_spellings(self, selector: Selector) -> list[Diagnostic]:
        """A warning for each operation of which the selector names one spelling while the model has others as well."""
        found = []
        seen: set[str] = set()
        for unit in selector.alternatives:
            operation = _spelled_operation(unit)
            if operation is None or operation.name in seen:
                continue
            seen.add(operation.name)
            every = replace(unit, base=Kind(operation.name, operation=operation.name), pick=None)
            chosen = self._that_pass(selector, every)
            named: Counter[str] = Counter()
            others: Counter[str] = Counter()
            for node in chosen:
                by = next((u for u in selector.alternatives if self.explain_base(u, node) is None), None)
                (others if by is None else named)[node.spelling if by is None else unit_text(by)] += 1
            if not named or not others:
                continue
            hits = ", ".join(f"`{text}` matched {count}" for text, count in named.items())
            left = ", ".join(f"`{spelling}` {count}" for spelling, count in others.most_common(5))
            found.append(
                Diagnostic(
                    "RW405",
                    f"other spellings were left out: {hits}, {left} not",
                    unit.span,
                    help=f"`{operation.name}` is every spelling; if this one is meant: "
                    f"`except {' | '.join(spelling for spelling, _ in others.most_common())}`",
                )
            )
        return found

    def _that_pass(self, selector: Selector, unit: Unit) -> list[Node]:
        """The calls that one unit would choose in the place of the alternatives, as far as its tests can be asked."""
        chosen = []
        for node in self.graph.nodes:
            try:
                if self._chosen(selector, unit, node, Found([], {}, Counter())):
                    chosen.append(node)
            except RewriteError:  # the condition asks what only the named spelling has
                continue
        return chosen

    def unseen_functions(self, selector: Selector) -> list[Diagnostic]:
        """A warning for each opaque forward whose code names a function that the selector may mean."""
        names = {name for unit in selector.alternatives for name in _function_names(unit)}
        found = []
        for where, mentioned in self.graph.mentioned.items():
            # A layer of the same name is seen, and found by its path.
            layers = {child.rpartition(".")[2] for child in self.graph.layers[where].children}
            seen = sorted((names & mentioned) - layers)
            if seen:
                found.append(
                    Diagnostic(
                        "RW405",
                        f"`{seen[0]}` in the forward of `{where or self.graph.name}` is left out, should it be called",
                        selector.span,
                        notes=(f"that forward could not be captured: {self.graph.opaque[where]}",),
                        help="layers in it are reached one by one; its functions are not",
                    )
                )
        return found

    def unmatched_alternatives(self, selector: Selector, found: Found) -> list[Diagnostic]:
        """A warning for each of several alternatives that chose nothing."""
        if len(selector.alternatives) < 2:
            return []
        hit = {id(unit) for _, unit in found.nodes}
        return [
            Diagnostic(
                "RW302",
                f"`{unit_text(unit)}` matched nothing in {self.graph.name}; the other alternatives did",
                unit.span,
                notes=tuple(self._near_kinds([unit])),
            )
            for unit in selector.alternatives
            if id(unit) not in hit and not any(self.fits(unit, node) for node, _ in found.nodes)
        ]


def _spelled_operation(unit: Unit) -> Operation | None:
    """The operation of a unit that is one exact spelling of the vocabulary."""
    if not isinstance(unit.base, Kind) or unit.base.dotted is None:
        return None
    full = expand(unit.base.dotted)
    if full.startswith("torch.Tensor."):
        return by_method(full)
    return by_module(full) or by_function(full)


def _function_names(unit: Unit) -> set[str]:
    """Names of functions and methods by which a forward can call what a unit means."""
    if not isinstance(unit.base, Kind) or unit.base.class_name is not None:
        return set()
    kind_ = unit.base
    if kind_.dotted is not None:
        return {kind_.dotted.rpartition(".")[2]} if kind_.dotted.startswith(("F.", "torch.", "Tensor.")) else set()
    rows = [row for row in OPERATIONS.values() if row.name == kind_.operation or row.family == kind_.family is not None]
    return {name.rpartition(".")[2] for row in rows for name in (*row.functions, *row.methods)}


def unit_text(unit: Unit) -> str:
    """A unit's base as it is written."""
    match unit.base:
        case Kind(text):
            return text
        case Path(glob):
            return f'"{glob}"'
        case Anything():
            return "any"


def _is_empty(node: Node) -> bool:
    return node.layer is not None and not (node.layer.parameters or node.layer.statistics)


def _captured(selector: Selector, node: Node, **names: Node | None) -> dict[str, Node]:
    found = {name: other for name, other in names.items() if other is not None}
    if selector.capture:
        found[selector.capture] = node
    return found


def _owners(node: Node) -> Iterable[Node]:
    outer = node.owner
    while outer is not None:
        yield outer
        outer = outer.owner
