"""`match(clause, graph)`: the sites of a clause, and why near misses are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from rewrite import globs
from rewrite.errors import EXAMPLE_HELP, Diagnostic
from rewrite.expression import SELECTED, Expression, evaluate, names_in, truth
from rewrite.flow import Flow
from rewrite.graph import Graph, Layer, Node, Operand, Value
from rewrite.pattern import Anything, Bound, Kind, Path, Pick, Selector, Unit, unit_text
from rewrite.rule import Clause
from rewrite.selectors import attribute, kind, path, position, relation, scope
from rewrite.source import Span
from rewrite.subgraphs import Chosen, Search
from rewrite.vocabulary import OPERATIONS


@dataclass(frozen=True, eq=False)
class Match:
    """One site: the matched call, the side of it that is meant, and the names bound there."""

    node: Node
    operand: Operand | None = None
    """`before`, `between`: the input whose edge is meant; None: the output, or the call itself"""
    names: Mapping[str, Node | None] = field(default_factory=dict)
    """captures (None: one that may be missing, and is), and `prev` or `next` where there is just one"""
    nodes: tuple[Node, ...] = ()
    """all calls of a chain, in the order of its links"""


@dataclass(frozen=True)
class Context:
    """What selectors need beside the graph."""

    constants: Mapping[str, object]
    classes: Mapping[str, str]
    """names given by the caller -> dotted name of the class"""
    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict)
    """names given by the caller -> what a `where` can call"""
    as_object: Callable[[Node], object] = lambda node: node
    """what such a function is handed for a call: the layer itself where there is one"""


@dataclass(frozen=True, eq=False)
class Miss:
    """A call that is what a selector names and yet no site: the first test that it fails."""

    node: Node
    stage: str
    """`tests`, `in`, `except`, `where`, `uncallable`, `chain`, `pick` or `between`"""
    why: str
    chosen: Chosen | None = None
    """what failed the `where`"""


@dataclass
class Found:
    """The result of matching one selector."""

    chosen: list[Chosen] = field(default_factory=list)
    misses: list[Miss] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    """stage -> how many nodes came as far as it and passed"""
    unlinked: str = ""
    """why neighbours are not known, where that may be the reason that there is no site"""

    @property
    def nodes(self) -> list[tuple[Node, Unit]]:
        """The chosen calls, of a chain those of its last link, and which alternative each of them is."""
        return [(chosen.calls[last], chosen.units[last]) for chosen in self.chosen for last in [max(chosen.calls)]]

    def failures(self, stage: str) -> Counter[str]:
        """Why calls failed at a stage, and how many did."""
        return Counter(miss.why for miss in self.misses if miss.stage == stage)


class Matcher:
    """Matches selectors on one graph."""

    def __init__(self, graph: Graph, context: Context) -> None:
        self.graph = graph
        self.context = context
        self._calls_of: dict[int, tuple[object, frozenset[Node]]] = {}
        """number of a selector in a question -> that selector, and the calls that it means"""

    @cached_property
    def flow(self) -> Flow:
        """Questions about the dataflow."""
        return Flow(self.graph)

    @cached_property
    def _by_operation(self) -> dict[str | None, list[Node]]:
        found: dict[str | None, list[Node]] = {}
        for node in self.graph.nodes:
            found.setdefault(node.operation, []).append(node)
        for row in OPERATIONS.values():
            if row.by_rank:  # a name for several operations
                kinds = set(row.by_rank.values())
                found[row.name] = [node for node in self.graph.nodes if node.operation in kinds]
        return found

    # ---- clauses

    def sites(self, clause: Clause) -> tuple[list[Match], Found]:
        """All sites of a clause, in order of execution."""
        selector = clause.selector
        if clause.second is not None and selector.where is not None and _is_about_both(selector.where, clause.second):
            selector = replace(selector, where=None)  # asked of each pair
        found = self.select(selector, self.layer_nodes() if self.layers_only(clause) else self.graph.nodes)
        match clause.header:
            case "before":
                return [match for chosen in found.chosen for match in self._before(selector, chosen)], found
            case "between":
                return self._between(clause, found)
            case "after":
                matches = []
                for chosen in found.chosen:
                    last = chosen.calls[max(chosen.calls)]
                    matches.append(_match(last, None, _captured(selector, chosen, prev=last), chosen))
                return matches, found
            case _:
                ends = [chosen.calls[max(chosen.calls)] for chosen in found.chosen]
                return [
                    _match(node, None, _captured(selector, chosen), chosen)
                    for node, chosen in zip(ends, found.chosen, strict=True)
                ], found

    def _before(self, selector: Selector, chosen: Chosen) -> list[Match]:
        first = min(chosen.calls)
        node, unit = chosen.calls[first], chosen.units[first]
        return [
            _match(node, operand, _captured(selector, chosen, next=node, prev=operand.value.producer), chosen)
            for operand in self.ports(node, unit)
        ]

    def ports(self, node: Node, unit: Unit) -> list[Operand]:
        """The inputs of a call that a unit points at.

        Raises:
            SiteError: it has several and none is named, or has no such input (RW204, RW206).

        """
        absent = self.graph.guessed.get(node.scope) if node.linked and not node.inputs else None
        if absent is not None:
            raise Diagnostic(
                "RW206",
                f"what `{node.name}` takes is not known: the forward around it was read without `{absent}`",
                unit.span,
                help=f'{EXAMPLE_HELP}; or leave it out: `except "{node.name}"`',
            ).error()
        if unit.port == "*" and (node.linked or node.inputs):
            return list(node.inputs)
        if unit.port is None:
            if len(node.inputs) == 1:
                return list(node.inputs)
            if not node.linked and node.layer is not None:
                return [Operand("input", 0, Value(None, known=False))]
            if not node.inputs and not node.linked:
                raise self._unknown_input(node, unit)
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
        if not node.linked and node.layer is not None and unit.port in (0, "input", "query"):
            return [Operand("input", 0, Value(None, known=False))]
        if not node.linked and (node.layer is not None or not node.inputs):
            raise self._unknown_input(node, unit)
        listed = ", ".join(f"`@{operand.name}`" for operand in node.inputs) or "none that is a value of the model"
        raise Diagnostic(
            "RW204",
            f"`{node.name}` has no input `@{unit.port}`",
            unit.span,
            notes=(f"its inputs are {listed}",),
            help=f'name one of them, or leave this call out: `except "{node.name}"`',
        ).error()

    def _unknown_input(self, node: Node, unit: Unit) -> Exception:
        reached = f"`{unit_text(unit)}@0` can be reached; or " if node.layer is not None else ""
        return Diagnostic(
            "RW206",
            f"what `{node.name}` takes is not known, so `@{'*' if unit.port is None else unit.port}` cannot be found",
            unit.span,
            notes=(self.why_unlinked(node),),
            help=f'{reached}leave this one out: `except "{node.name}"`',
        ).error()

    def _between(self, clause: Clause, firsts: Found) -> tuple[list[Match], Found]:
        assert clause.second is not None, "between has two selectors"
        seconds = self.select(clause.second, self.graph.nodes)
        wanted = {chosen.calls[max(chosen.calls)].index: chosen for chosen in reversed(firsts.chosen)}
        sites: list[Match] = []
        taken: set[tuple[int, tuple[int | str, ...], int, str, int]] = set()
        for second in seconds.chosen:
            first = min(second.calls)
            node, unit = second.calls[first], second.units[first]
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
                chosen = wanted[producer.index]
                names = {**_captured(clause.selector, chosen), **_captured(clause.second, second)}
                nodes = (*_in_order(chosen), *_in_order(second))
                sites.append(Match(node, operand, {**names, "prev": producer, "next": node}, nodes))
        if clause.selector.where is not None and _is_about_both(clause.selector.where, clause.second):
            kept = [match for match in sites if self._holds_between(clause.selector.where, match)]
            firsts.misses += [Miss(m.node, "where", "the `where` does not hold") for m in sites if m not in kept]
            sites = kept
        # An outer call and the call inside it may both take the value: the outermost one that is named is meant.
        outermost = {match.node.index for match in sites}
        sites = [m for m in sites if not any(outer.index in outermost for outer in _owners(m.node))]
        if not sites and not any(miss.stage == "where" and miss.chosen is None for miss in firsts.misses):
            unlinked = next((node for node, _ in (*firsts.nodes, *seconds.nodes) if not node.linked), None)
            firsts.unlinked = self.why_unlinked(unlinked) if unlinked is not None else ""
            near = firsts.nodes or seconds.nodes
            firsts.misses += [Miss(near[0][0], "between", self._no_edge(firsts, seconds))] if near else []
        return sites, firsts

    def _no_edge(self, firsts: Found, seconds: Found) -> str:
        """Why `between` found nothing, with the shortest way from one to the other if there is one."""
        text = f"the first selector fits {len(firsts.nodes)} and the second {len(seconds.nodes)}, but no value goes"
        if not firsts.nodes or not seconds.nodes:
            calls = "call" if len(firsts.nodes) == 1 else "calls"
            return f"the first selector fits {len(firsts.nodes)} {calls} and the second {len(seconds.nodes)}"
        way = self.flow.shortest((node for node, _ in firsts.nodes), (node for node, _ in seconds.nodes))
        if way is None:
            return f"{text} from one to the other"
        names = " -> ".join(f"`{node.name}`" for node in way[:6])
        return f"{text} directly from one to the other; the shortest way is {names}"

    @staticmethod
    def layers_only(clause: Clause) -> bool:
        """Whether a clause is about layers, called or not, so that no forward needs to be read for it."""
        about_layers = all(getattr(action, "on_layers", False) for action in clause.actions)
        return clause.header is None and clause.selector.is_single and about_layers

    def layer_nodes(self) -> list[Node]:
        """Every layer, called or not, in the form of a call: what `freeze` and `reset` choose from."""
        return [scope.as_node(layer) for layer in self.graph.layers.values()]

    # ---- selectors

    def select(self, selector: Selector, nodes: Iterable[Node]) -> Found:
        """What a selector chooses, in the order of execution; single calls come from `nodes`."""
        found = Found()
        if selector.is_single:
            self._select_single(selector, list(nodes), found)
        else:
            self._select_chains(selector, found)
        return found

    def _select_single(self, selector: Selector, candidates: list[Node], found: Found) -> None:
        per_unit: list[tuple[int, Node, Unit]] = []
        taken: set[int] = set()
        for unit in selector.alternatives:
            passed = [
                (number, node) for number, node in enumerate(candidates) if self._chosen(selector, unit, node, found)
            ]
            if unit.pick is not None:
                kept = self._pick(selector, unit, passed)
                for number, node in passed:
                    if (number, node) not in kept:
                        found.misses.append(Miss(node, "pick", f"`{unit.pick.word}` picks another one"))
                passed = kept
            for number, node in passed:
                if number not in taken:
                    taken.add(number)
                    per_unit.append((number, node, unit))
        per_unit.sort(key=lambda item: item[0])
        found.chosen = [Chosen({0: node}, {0: unit}) for _, node, unit in per_unit]

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
        """Whether a call passes all tests of a single selector; `found` takes note of the first one that it fails."""
        if self.explain_base(unit, node) is not None:
            return False
        if isinstance(unit.base, Anything) and node.index < 0 and _is_empty(node):
            return False  # a container holds nothing of its own that could be frozen or reset
        found.passed["base"] += 1
        for stage, why in self._tests(selector, unit, node):
            if why is not None:
                found.misses.append(Miss(node, stage, why))
                return False
            found.passed[stage] += 1
        chosen = Chosen({0: node}, {0: unit})
        if selector.where is not None and not self._holds(selector, chosen):
            found.misses.append(Miss(node, "where", "", chosen))
            return False
        if node.layer is not None and node.layer.uncallable and node.index >= 0:
            found.misses.append(Miss(node, "uncallable", node.layer.uncallable))
            return False
        found.passed["where"] += 1
        return True

    def _tests(self, selector: Selector, unit: Unit, node: Node) -> Iterable[tuple[str, str | None]]:
        """(stage, None or why not) for the tests of one call behind its kind, in order."""
        why = None
        for test in unit.tests:
            why = attribute.explain(test, node, self._constant, self.uses)
            if why is not None:
                break
        yield "tests", why
        inside = (
            scope.is_inside(self.graph, node, units, self.context.classes)
            for units in (*selector.scopes, *selector.within)
        )
        yield "in", None if all(inside) else ""
        excluded = selector.excluded and scope.is_inside(self.graph, node, selector.excluded, self.context.classes)
        yield "except", "" if excluded else None

    def first_failed(self, selector: Selector, node: Node) -> tuple[str, str] | None:
        """(stage, why) of the first test that a call of the kind of the first link fails, if it passes no unit."""
        failed: tuple[str, str] | None = None
        for unit in selector.links[0].alternatives:
            if self.explain_base(unit, node) is not None or (isinstance(unit.base, Anything) and node.composite):
                continue
            this = next(((stage, why) for stage, why in self._tests(selector, unit, node) if why is not None), None)
            if this is None:
                return None
            failed = failed or this
        return failed

    def is_in_scope(self, selector: Selector, node: Node) -> bool:
        """Whether a call lies where a selector looks."""
        unit = Unit(Anything(), selector.span)
        return all(why is None for _, why in self._tests(selector, unit, node))

    def explain_base(self, unit: Unit, node: Node, names: Mapping[str, object] | None = None) -> str | None:
        """None if the call is of the unit's kind, at its path or the captured one, else why not."""
        match unit.base:
            case Kind():
                return kind.explain(unit.base, node, self.context.classes)
            case Path():
                return path.explain(unit.base, node)
            case Bound(name):
                meant = (names or {}).get(name)
                return None if meant is node else f"it is not `{name}`"
            case Anything():
                return None

    def fits(self, unit: Unit, node: Node, names: Mapping[str, object] | None = None) -> bool:
        """Whether a call is what one unit says, scopes and picks aside."""
        if self.explain_base(unit, node, names) is not None:
            return False
        return all(attribute.explain(test, node, self._constant, self.uses) is None for test in unit.tests)

    def can_be(self, unit: Unit, node: Node) -> bool:
        """Whether a call is what one unit of a chain says; `any` is none that is only the sum of its parts."""
        return not (isinstance(unit.base, Anything) and node.composite) and self.fits(unit, node)

    def uses(self, node: Node) -> int:
        """How often a value of a call is taken by other calls, and as an output of the model."""
        users = [user for user, _ in self.graph.taken.get(node.index, ()) if not relation.is_outer(self.graph, user)]
        return len(users) + len(relation.outputs(self.graph, node))

    # ---- chains

    def search(self, selector: Selector) -> Search:
        """The search for the chains of a selector in this graph."""

        def fit(number: int, node: Node) -> Unit | str:
            why = "nothing is asked for"
            for unit in selector.links[number].alternatives:
                if isinstance(unit.base, Anything) and node.composite:
                    why = "it is an outer call"
                    continue
                base = self.explain_base(unit, node)
                if base is not None:
                    why = base
                    continue
                failed = next(
                    ((stage, text) for stage, text in self._tests(selector, unit, node) if text is not None), None
                )
                if failed is None:
                    if node.layer is not None and node.layer.uncallable:
                        return node.layer.uncallable
                    return unit
                why = failed[1] or {"in": "it lies outside of the scope", "except": "`except` leaves it out"}[failed[0]]
            return why

        return Search(self.graph, selector, fit, self._by_operation)

    def _select_chains(self, selector: Selector, found: Found) -> None:
        search = self.search(selector)
        kept = search.run(lambda chosen: selector.where is None or self._holds(selector, chosen))
        found.misses += [Miss(_last(chosen), "where", "", chosen) for chosen in search.failed]
        found.passed["base"] = len(kept) + len(search.failed)
        for number, link in enumerate(selector.links):
            if any(unit.pick is not None for unit in link.alternatives):
                kept = self._picked(selector, number, kept, found)
        found.chosen = kept
        if not kept:
            unlinked = next((n for n in self.graph.nodes if not n.linked and self._is_start(selector, n)), None)
            found.unlinked = self.why_unlinked(unlinked) if unlinked is not None else ""

    def _picked(self, selector: Selector, number: int, matches: list[Chosen], found: Found) -> list[Chosen]:
        """The matches whose call of one link is picked, and those in which that link is missing."""
        calls = {chosen.calls[number].index: chosen.calls[number] for chosen in matches if number in chosen.calls}
        units: dict[int, Unit] = {}
        picks: dict[int, Pick] = {}
        for unit in reversed(selector.links[number].alternatives):
            fitting = [(index, node) for index, node in sorted(calls.items()) if self.can_be(unit, node)]
            if unit.pick is not None:
                picks |= {index: unit.pick for index, _ in fitting}
                fitting = self._pick(selector, unit, fitting)
            units |= {index: unit for index, _ in fitting}
        kept = []
        for chosen in matches:
            index = chosen.calls[number].index if number in chosen.calls else -1
            if index in units:
                kept.append(Chosen(chosen.calls, {**chosen.units, number: units[index]}))
            elif index < 0:
                kept.append(chosen)
            else:
                why = f"`{picks[index].word}` picks another one"
                found.misses.append(Miss(chosen.calls[number], "pick", why, chosen))
        return kept

    def _is_start(self, selector: Selector, node: Node) -> bool:
        return self.is_in_scope(selector, node) and any(
            self.explain_base(unit, node) is None for unit in selector.alternatives if isinstance(unit.base, Kind)
        )

    # ---- where

    def _constant(self, expression: Expression) -> object:
        return evaluate(expression, self.context.constants, call=self.call)

    def _holds(self, selector: Selector, chosen: Chosen) -> bool:
        assert selector.where is not None, "called for a selector with a where"
        return truth(self.value(selector, chosen, selector.where), selector.where.span)

    def value(self, selector: Selector, chosen: Chosen, expression: Expression) -> object:
        """The value of an expression, or a part of one, behind the `where` of a selector."""
        node = chosen.calls[min(chosen.calls) if selector.word == "before" else max(chosen.calls)]
        names: dict[str, object] = {**self.context.functions, **self.context.constants, "self": node}
        match selector.word:
            case "after":
                users = relation.leaf_consumers(self.graph, node)
                names |= {"prev": node, "next": users[0] if len(users) == 1 else None}
            case "before":
                port = chosen.units[min(chosen.calls)].port
                taken = [o for o in node.inputs if port in (None, o.name, o.number)]
                names |= {"next": node, "prev": taken[0].value.producer if len(taken) == 1 else None}
            case "between":
                names["prev"] = node
        names |= _captured(selector, chosen)
        return evaluate(expression, names, self.read, self._relate(node, names), self.call)

    def _holds_between(self, where: Expression, match: Match) -> bool:
        """Whether a condition about both ends of an edge holds for one."""
        names = {**self.context.functions, **self.context.constants, **match.names}
        producer = match.names["prev"]
        assert producer is not None, "an edge has two ends"
        return truth(evaluate(where, names, self.read, self._relate(producer, names), self.call), where.span)

    def read(self, value: object, name: str, span: Span) -> object:
        """`value.name` in an expression, where value is a call."""
        if not isinstance(value, Node):
            what = "a call that is not there, or not alone," if value is None else repr(value)
            raise Diagnostic("RW102", f"{what} has no attribute `{name}`", span).error()
        return attribute.read(value, name, span, self.uses)

    def call(self, function: object, arguments: list[object], keywords: Mapping[str, object], span: Span) -> object:
        """`my.f(c)` in an expression: the function gets the layer of a call, or the call itself where it has none."""
        if not callable(function):
            raise Diagnostic("RW106", "this is no function", span).error()
        given = [self.context.as_object(item) if isinstance(item, Node) else item for item in arguments]
        named = {k: self.context.as_object(item) if isinstance(item, Node) else item for k, item in keywords.items()}
        try:
            result: object = function(*given, **named)
        except Exception as problem:  # the caller's code: whatever it raises is told with the place in the rule
            raise Diagnostic(
                "RW106",
                f"the function raised {type(problem).__name__}: {problem}",
                span,
                help="it is called with the layer of each call that is asked about",
            ).error() from problem
        return result

    def _relate(
        self, node: Node, names: Mapping[str, object]
    ) -> Callable[[str, object, tuple[object, ...], Span], bool]:
        def relate(name: str, subject: object, units: tuple[object, ...], span: Span) -> bool:
            def fits(other: Node) -> bool:
                return any(isinstance(unit, Unit) and self.fits(unit, other, names) for unit in units)

            if name == "is":
                return isinstance(subject, Node) and fits(subject)
            asked = node if subject is SELECTED else subject
            if not isinstance(asked, Node):
                what = "a call that is missing" if subject is None else "what is no call"
                raise Diagnostic("RW106", f"`{name}` is asked of {what}", span).error()
            return self._question(name, asked, fits, lambda: self._meant(units, names), span)

        return relate

    def _meant(self, units: tuple[object, ...], names: Mapping[str, object]) -> frozenset[Node]:
        """All calls that some units stand for."""
        meant = {
            node
            for unit in units
            if isinstance(unit, Unit) and isinstance(unit.base, Bound)
            for node in [names.get(unit.base.name)]
            if isinstance(node, Node) and self.fits(unit, node, names)
        }
        found = self._calls_of.get(id(units))
        if found is None:
            plain = [unit for unit in units if isinstance(unit, Unit) and not isinstance(unit.base, Bound)]
            calls = frozenset(node for node in self.graph.nodes if any(self.fits(unit, node) for unit in plain))
            found = self._calls_of[id(units)] = (units, calls)
        return found[1] | meant if meant else found[1]

    def _question(
        self,
        name: str,
        node: Node,
        fits: Callable[[Node], bool],
        meant: Callable[[], frozenset[Node]],
        span: Span,
    ) -> bool:
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
            case "only_next":
                return relation.only_next(self.graph, node, fits)
        others = meant()
        match name:
            case "reaches":
                return self.flow.reaches(node, others)
            case "reached_from":
                return self.flow.reached_from(node, others)
            case "dominates":
                return self.flow.dominates(node, others)
            case _:
                return self.flow.in_branch(node, others)

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


def _is_about_both(where: Expression, second: Selector) -> bool:
    """Whether the condition of a `between` asks about its second call too."""
    return bool(names_in(where) & {"next", *(link.capture for link in second.links if link.capture)})


def _match(node: Node, operand: Operand | None, names: Mapping[str, Node | None], chosen: Chosen) -> Match:
    return Match(node, operand, names, _in_order(chosen))


def _in_order(chosen: Chosen) -> tuple[Node, ...]:
    return chosen.nodes


def _captured(selector: Selector, chosen: Chosen, **names: Node | None) -> dict[str, Node | None]:
    """The captures of a selector, and other names as far as they stand for a call."""
    found: dict[str, Node | None] = {name: other for name, other in names.items() if other is not None}
    for number, link in enumerate(selector.links):
        if link.capture:
            found[link.capture] = chosen.calls.get(number)
    return found


def _last(chosen: Chosen) -> Node:
    return chosen.calls[max(chosen.calls)]


def _is_empty(node: Node) -> bool:
    return node.layer is not None and not (node.layer.parameters or node.layer.statistics)


def _owners(node: Node) -> Iterable[Node]:
    outer = node.owner
    while outer is not None:
        yield outer
        outer = outer.owner
