"""What is told of a clause that matched nothing, or less than it may seem: nearest kinds, places, spellings."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from rewrite.errors import EXAMPLE_HELP, Diagnostic, RewriteError, nearest
from rewrite.graph import Graph, Node
from rewrite.matcher import Context, Found, Matcher
from rewrite.pattern import Kind, Link, Path, Selector, Unit, unit_text
from rewrite.rule import Clause
from rewrite.selectors import relation, scope
from rewrite.subgraphs import Stuck
from rewrite.vocabulary import OPERATIONS, by_function, by_method, by_module, expand
from rewrite.vocabulary.operation import Operation


class Misses:
    """Explains, for one matcher, what it did not find."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher
        self.graph = matcher.graph
        self.context: Context = matcher.context

    def no_match(self, clause: Clause, found: Found) -> Diagnostic:
        """RW301, or RW201 where a path is the reason: what was there, and at which test it failed."""
        selector = clause.selector
        units = selector.alternatives
        what = " | ".join(unit_text(unit) for unit in units)
        base = found.passed["base"]
        if not selector.is_single:
            return self._no_chain(clause, found)
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
                reasons = found.failures(stage)
                if stage == "between":
                    notes += reasons
                elif reasons:
                    shown = [f"{why} ({count})" for why, count in reasons.most_common(3) if why]
                    text = one if reasons.total() == 1 else several
                    notes.append(f"{reasons.total()} of them {text}" + (f": {'; '.join(shown)}" if shown else ""))
            if found.failures("in"):
                places = self.places_of(units)
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

    def _no_chain(self, clause: Clause, found: Found) -> Diagnostic:
        """RW301 for linked calls: how many there are of each, and where the longest beginnings end."""
        selector = clause.selector
        notes = self.of_each_link(selector)
        failed = found.failures("where").total()
        if failed:
            notes.append(f"{failed} {'match fails' if failed == 1 else 'matches fail'} the `where`")
        elif found.failures("between"):
            notes += found.failures("between")
        else:
            notes += [*self.nearest_chains(clause)[:3], *self.other_way_round(selector)]
        absent = [
            unit
            for link in selector.links
            if not any(
                self.matcher.explain_base(u, node) is None for u in link.alternatives for node in self.graph.nodes
            )
            for unit in link.alternatives
        ]
        notes += self._near_kinds(absent)
        if found.unlinked:
            notes.append(found.unlinked)
        rule = f"rule `{clause.rule}`" if clause.rule else "the rule"
        message = f"{rule} matched nothing in {self.graph.name} (expected {clause.count})"
        help_text = self._nearest_kind_help(absent)
        help_text = help_text or "`expect any matches` allows zero; `rewrite explain` shows how far each beginning came"
        return Diagnostic("RW301", message, selector.span, "", tuple(notes), help_text)

    def _is_there(self, link: Link) -> bool:
        """Whether any call is of the kind of a link."""
        return bool(link.joins) or any(
            self.matcher.explain_base(unit, node) is None for unit in link.alternatives for node in self.graph.nodes
        )

    def of_each_link(self, selector: Selector) -> list[str]:
        """How many calls are of the kind of each link, and how many of these in its scope."""
        notes = []
        for link in selector.links:
            if link.joins:
                continue
            calls = [node for node in self.graph.nodes if any(self.matcher.can_be(u, node) for u in link.alternatives)]
            text = " | ".join(_with_tests(unit) for unit in link.alternatives)
            note = f"{len(calls)} {'call is' if len(calls) == 1 else 'calls are'} {text}"
            if calls and (selector.scopes or selector.within or selector.excluded):
                inside = sum(self.matcher.is_in_scope(selector, node) for node in calls)
                note += f", {inside} of them in the scope"
            notes.append(note)
        return notes

    def nearest_chains(self, clause: Clause) -> list[str]:
        """Where the beginnings of a chain end, the longest and most frequent first, one line each."""
        groups: dict[tuple[int, int, str], list[Stuck]] = {}
        for stuck in self.matcher.search(clause.selector).explain():
            why = re.sub(r"`[^`]*`", "`...`", stuck.why[0]) if stuck.why else ""
            groups.setdefault((len(stuck.calls), stuck.link, why), []).append(stuck)
        ordered = sorted(groups.items(), key=lambda item: (-item[0][0], -len(item[1])))
        return [
            described(clause.selector, group[0]) + (f" ({len(group)} such)" if len(group) > 1 else "")
            for _, group in ordered
        ]

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
            if inside and any(self.matcher.fits(unit, node) for unit in selector.alternatives):
                found.append(f"`{layer.path}` cannot be edited: {layer.uncallable}")
        return found[:3]

    def _unseen(self) -> list[str]:
        """Forwards whose functions nobody can see."""
        unseen = list(self.graph.opaque.items())
        if not unseen:
            return []
        path, why = unseen[0]
        more = f", and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        where = f"`{path or self.graph.name}`{more}"
        return [f"in the forward of {where}, only layers and functions that its code names are seen: {why}"]

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
                close = nearest(unit.base.text, [name for name in (*there, *classes) if name != unit.base.text])
                if close:
                    return f"did you mean `{close[0]}`?"
        return ""

    def other_way_round(self, selector: Selector) -> list[str]:
        """Neighbours of a chain between which values go in the other direction only, one line for each such pair."""
        notes = []
        for chain in selector.chains:
            for first, second in itertools.pairwise(chain):
                ahead, back = self._edges(first, second), self._edges(second, first)
                if back and not ahead:
                    one, other = (" | ".join(unit_text(u) for u in link.alternatives) for link in (first, second))
                    notes.append(f"values go from {other} to {one} here ({back}), never from {one} to {other}")
        return notes

    def _edges(self, source: Link, target: Link) -> int:
        """How many values go from a call of one link to a call of another."""
        return sum(
            any(self.matcher.fits(u, p) for p in relation.producers(operand.value) for u in source.alternatives)
            for node in self.graph.nodes
            if any(self.matcher.fits(unit, node) for unit in target.alternatives)
            for operand in node.inputs
        )

    def places_of(self, units: Iterable[Unit]) -> list[str]:
        """The outermost modules in which there are calls that units name, and how many."""
        units = list(units)
        places = Counter(
            node.name.partition(".")[0]
            for node in self.graph.nodes
            if any(self.matcher.fits(unit, node) for unit in units)
        )
        return [f'"{place}.**" ({count})' for place, count in places.most_common(6)]

    def near_misses(self, clause: Clause, other: Graph | None) -> list[str]:
        """Layers that are what the clause names and yet are no site, each with the reason."""
        if self.matcher.layers_only(clause):
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
        return isinstance(unit.base, Kind) and self.matcher.fits(unit, node)

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
            named: Counter[str] = Counter()
            others: Counter[str] = Counter()
            for node in self._that_pass(selector, unit, every):
                by = next((u for u in selector.alternatives if self.matcher.explain_base(u, node) is None), None)
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

    def akin(self, selector: Selector) -> list[Diagnostic]:
        """A warning for each operation that may be meant along with a named one and is another (`SeparableConv2d`)."""
        there = {node.operation for node in self.graph.nodes}
        akin = [operation for operation in OPERATIONS.values() if operation.akin and operation.name in there]
        found = []
        named = {unit.base.operation for unit in selector.alternatives if isinstance(unit.base, Kind)}
        for unit in selector.alternatives:
            if not isinstance(unit.base, Kind) or unit.base.operation is None or unit.base.dotted:
                continue
            for operation in akin:
                if operation.akin != unit.base.operation or operation.name in named:
                    continue
                other = replace(unit, base=Kind(operation.name, operation=operation.name), pick=None)
                left = len(self._that_pass(selector, unit, other))
                if left:
                    found.append(
                        Diagnostic(
                            "RW405",
                            f"`{operation.name}` is no `{unit.base.text}`, and {left} of them are left out",
                            unit.span,
                            help=f"`{unit.base.text} | {operation.name}` means both; if not: `except {operation.name}`",
                        )
                    )
        return found

    def _that_pass(self, selector: Selector, unit: Unit, every: Unit) -> list[Node]:
        """The calls that `every` would choose in the place of a unit, as far as its tests can be asked."""
        if not selector.is_single:
            return self._in_chains(selector, unit, every)
        chosen = []
        for node in self.graph.nodes:
            try:
                if self.matcher.select(
                    replace(selector, chains=((replace(selector.links[0], alternatives=(every,)),),)), [node]
                ).chosen:
                    chosen.append(node)
            except RewriteError:  # the condition asks what only the named spelling has
                continue
        return chosen

    def _in_chains(self, selector: Selector, unit: Unit, every: Unit) -> list[Node]:
        """The calls that stand for one link in the matches that there would be with `every` in the place of a unit."""
        number = next(n for n, link in enumerate(selector.links) if any(other is unit for other in link.alternatives))
        chains = tuple(
            tuple(
                replace(link, alternatives=tuple(every if other is unit else other for other in link.alternatives))
                for link in chain
            )
            for chain in selector.chains
        )
        try:
            found = self.matcher.select(replace(selector, chains=chains), ())
        except RewriteError:  # as above, or the search takes too long
            return []
        return list(dict.fromkeys(chosen.calls[number] for chosen in found.chosen if number in chosen.calls))

    def unseen_functions(self, selector: Selector) -> list[Diagnostic]:
        """A warning for opaque forwards with functions, or calls that cannot be followed, that may be meant."""
        names = {name for unit in selector.alternatives for name in _function_names(unit)}
        found = self.unlinked_calls(selector)
        places: dict[tuple[str, str, str], list[str]] = {}
        for where, mentioned in self.graph.mentioned.items():
            # A layer of the same name is seen, and found by its path.
            layers = {child.rpartition(".")[2] for child in self.graph.layers[where].children}
            seen = sorted((names & mentioned) - layers)
            if not seen:
                continue
            help_text = "layers in it are reached, and functions that its code names in full, such as `F.relu(x)`"
            if where in self.graph.opaque:
                why = f"that forward could not be captured: {self.graph.opaque[where]}"
            elif where in self.graph.closed:
                why = f"it stands in `{self.graph.closed[where]}`, which is one call of that forward"
            else:
                why = f"that forward was read without `{self.graph.guessed[where]}`, and nothing tells how it is called"
                help_text = EXAMPLE_HELP
            places.setdefault((seen[0], why, help_text), []).append(where or self.graph.name)
        for (name, why, help_text), forwards in places.items():
            more = f" and {len(forwards) - 1} more" if len(forwards) > 1 else ""
            message = f"`{name}` in the forward of `{forwards[0]}`{more} is left out, should it be called"
            found.append(Diagnostic("RW405", message, selector.span, notes=(why,), help=help_text))
        return found

    def unlinked_calls(self, selector: Selector) -> list[Diagnostic]:
        """A warning where calls that a pattern may mean are left out, as what stands beside them is not known."""
        if selector.is_single:
            return []
        left = [
            node
            for node in self.graph.nodes
            if not node.linked
            and self.matcher.is_in_scope(selector, node)
            and any(self._is_named(unit, node) for unit in selector.alternatives)
        ]
        if not left:
            return []
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        message = f"`{left[0].name}`{more} cannot be followed, so no pattern with it is found"
        help_text = "single calls in such a forward are reached one by one; or leave it out with `except`"
        return [
            Diagnostic("RW405", message, selector.span, notes=(self.matcher.why_unlinked(left[0]),), help=help_text)
        ]

    def unmatched_alternatives(self, selector: Selector, found: Found) -> list[Diagnostic]:
        """A warning for each of several alternatives that chose nothing."""
        several = [unit for link in selector.links if len(link.alternatives) > 1 for unit in link.alternatives]
        hit = {id(unit) for chosen in found.chosen for unit in chosen.units.values()}
        return [
            Diagnostic(
                "RW302",
                f"`{unit_text(unit)}` matched nothing in {self.graph.name}; the other alternatives did",
                unit.span,
                notes=tuple(self._near_kinds([unit])),
            )
            for unit in several
            if id(unit) not in hit and not any(self.matcher.fits(unit, n) for c in found.chosen for n in c.nodes)
        ]


def _with_tests(unit: Unit) -> str:
    """A unit with its attribute tests, as it is written."""
    tests = [
        test.span.source.lines[test.span.line - 1][test.span.column - 1 :][: test.span.length] for test in unit.tests
    ]
    return f"{unit_text(unit)}[{', '.join(tests)}]" if tests else unit_text(unit)


def described(selector: Selector, stuck: Stuck) -> str:
    """How far a chain came from one start, and why no further, on one line."""
    between = " -> " if len(selector.chains) == 1 else ", "
    way = between.join(f"`{stuck.calls[number].name}`" for number in sorted(stuck.calls))
    fit = f"{way} {'fits' if len(stuck.calls) == 1 or between == ' -> ' else 'fit'}"
    wanted = " | ".join(unit_text(unit) for unit in selector.links[stuck.link].alternatives)
    known = stuck.calls[stuck.known]
    if not stuck.why:
        if not known.linked:
            return f"{fit}, and what stands beside `{known.name}` is not known"
        if stuck.ahead and known.owner is not None and not known.owner.linked:
            return f"{fit}, and what takes the value of `{known.name}` is not known"
        if stuck.ahead:
            return f"{fit}, and no call takes the value of `{known.name}`, so there is no {wanted}"
        return f"{fit}, and `{known.name}` takes no value of a call, so there is no {wanted}"
    reasons = [
        f"`{node.name}`: {why}" if f"`{node.name}`" not in why else why
        for node, why in zip(stuck.tried, stuck.why, strict=True)
    ]
    more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f"{fit}, then {wanted} does not: {'; '.join(reasons[:3])}{more}"


def _spelled_operation(unit: Unit) -> Operation | None:
    """The operation of a unit that is one exact spelling of the vocabulary."""
    if not isinstance(unit.base, Kind) or unit.base.dotted is None:
        return None
    full = expand(unit.base.dotted)
    if full.startswith("torch.Tensor."):
        return by_method(full)
    return by_module(full) or by_function(full)


def _function_names(unit: Unit) -> set[str]:
    """Names of functions and methods by which a forward can call what a unit means; those of Keras are dotted."""
    if not isinstance(unit.base, Kind) or unit.base.class_name is not None:
        return set()
    kind_ = unit.base
    if kind_.dotted is not None:
        return {kind_.dotted.rpartition(".")[2]} if kind_.dotted.startswith(("F.", "torch.", "Tensor.")) else set()
    rows = [row for row in OPERATIONS.values() if row.name == kind_.operation or row.family == kind_.family is not None]
    keras = {name for row in rows if row.keras is not None for name in row.keras.functions}
    return keras | {name.rpartition(".")[2] for row in rows for name in (*row.functions, *row.methods)}
