"""`Report`: what matched, what missed and why, what changed. Data, its JSON form and its text form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from rewrite.errors import Diagnostic
from rewrite.source import printable

FORMAT_VERSION = 1
"""of the JSON form; it grows when a reader of the old form could go wrong"""


@dataclass(frozen=True)
class Totals:
    """Size of a model."""

    operations: int | None
    """calls in one forward pass, in the model's present mode; None where no rule had a forward read"""
    layers: int
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Site:
    """One match of one clause, and what happens there."""

    path: str
    """the call: a layer's path, or a scope's path and a function's name"""
    spelling: str
    """`nn.ReLU`, `F.relu`"""
    changes: tuple[str, ...]
    """one line each: `insert BatchNorm2d(num_features=64) as features.0_batchnorm2d`"""
    inferred: dict[str, object]
    """arguments that the site supplied"""
    mode: str = ""
    """`train` or `eval` for a call that is made in that mode only"""


@dataclass(frozen=True)
class ClauseReport:
    """One clause: its text, its sites, and why near misses were none."""

    text: str
    place: str
    """file:line:column"""
    sites: tuple[Site, ...]
    """the sites in the model's present mode, in order of execution"""
    other_mode: tuple[Site, ...] = ()
    """sites that exist only in the other of train and eval mode; edited just the same"""
    misses: tuple[str, ...] = ()
    """near misses with their reason, one line each"""
    skipped: bool = False
    """the model had this clause applied before"""

    def joined(self, later: ClauseReport) -> ClauseReport:
        """The report with the sites of a later round of the same clause."""
        return replace(
            self,
            sites=(*self.sites, *later.sites),
            other_mode=(*self.other_mode, *later.other_mode),
            misses=later.misses,
            skipped=self.skipped and later.skipped,
        )


@dataclass(frozen=True)
class Report:
    """All of what one application (or one plan) does."""

    model: str
    rules: str
    clauses: tuple[ClauseReport, ...]
    before: Totals
    after: Totals
    new_parameters: int
    """numbers in parameters that the rules add"""
    frozen_parameters: int
    """numbers in parameters that the rules stop from learning"""
    removed_keys: tuple[str, ...] = ()
    """keys of the state_dict that are gone"""
    new_keys: tuple[str, ...] = ()
    moved_keys: Mapping[str, str] = field(default_factory=dict)
    """old key -> new key of each tensor that has another name now; `migrate` renames a checkpoint so"""
    resized_keys: tuple[str, ...] = ()
    """keys under which there is a tensor of another shape now"""
    renewed_keys: tuple[str, ...] = ()
    """keys under which, or under the new key of which, there are other numbers now: drawn anew, or computed"""
    output: str = ""
    """what is known of the output: unchanged, or the promised shape"""
    runs: tuple[str, ...] = ()
    """what runs on real numbers have shown, a line for each mode; empty: there were none"""
    warnings: tuple[Diagnostic, ...] = ()
    scopes: tuple[tuple[str, str], ...] = ()
    """(path, why) of each module whose forward could not be captured"""
    scope_kinds: Mapping[str, int] = field(default_factory=dict)
    """`list`, `graph`, `opaque` -> how many modules have their forward edited in that way; empty: none was read"""

    @property
    def sites(self) -> int:
        """Number of sites over all clauses."""
        return sum(len(clause.sites) for clause in self.clauses)

    def as_json(self) -> dict[str, object]:
        """The JSON form: nothing is cut short in it."""
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "rules": self.rules,
            "clauses": [asdict(clause) for clause in self.clauses],
            "before": asdict(self.before),
            "after": asdict(self.after),
            "new_parameters": self.new_parameters,
            "frozen_parameters": self.frozen_parameters,
            "removed_keys": list(self.removed_keys),
            "new_keys": list(self.new_keys),
            "moved_keys": dict(self.moved_keys),
            "resized_keys": list(self.resized_keys),
            "renewed_keys": list(self.renewed_keys),
            "output": self.output,
            "runs": list(self.runs),
            "warnings": [warning.as_json() for warning in self.warnings],
            "scopes": dict(self.scope_kinds),
            "opaque": [{"path": path, "reason": why} for path, why in self.scopes],
        }

    def closing_lines(self) -> list[str]:
        """What is known of the output, and what runs have shown."""
        return [*([f"output: {self.output}"] if self.output else []), *(f"run: {line}" for line in self.runs)]

    def __str__(self) -> str:
        return self.render()

    def render(self, *, end: bool = True) -> str:
        """The text form, a site or a fact per line. Warnings are left out: they have a text of their own.

        Args:
            end: whether the table of totals and the line about the output, which come last, are wanted.

        """
        blocks = [_clause_text(clause) for clause in self.clauses]
        blocks.append(_keys_text(self))
        if self.scopes:
            lines = [f"{path or '(the model)'}  {why}" for path, why in self.scopes]
            title = f"{_many(len(lines), 'module')} whose forward was not captured; calls in them are seen one by one:"
            blocks.append([title, *_some(lines)])
        if end:
            blocks.append([*_columns(totals_table(self)), *self.closing_lines()])
        return "\n\n".join("\n".join(map(printable, block)) for block in blocks if block)


def totals_table(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows of the table at the end: heading, before, after, difference."""
    rows = [("", "before", "after", "change")]
    names = {"operations": "operations", "layers": "layers", "parameters": "parameters", "trainable": "trainable"}
    for field_name, title in names.items():
        before, after = getattr(report.before, field_name), getattr(report.after, field_name)
        if before is None or after is None:
            rows.append((title, "not counted", "not counted", ""))
            continue
        rows.append((title, f"{before:,}", f"{after:,}", f"{after - before:+,}" if after != before else "0"))
    return rows


_MOST_LINES = 12
"""of near misses, keys and modules in the text form; the JSON form has all"""


def _clause_text(clause: ClauseReport) -> list[str]:
    lines = [f"{clause.place}: {clause.text}"]
    if clause.skipped:
        lines.append("  skipped: the model has this clause applied already")
        return lines
    lines.append(f"  {_many(len(clause.sites), 'site')}")
    lines += _site_lines(clause.sites)
    if clause.other_mode:
        mode = clause.other_mode[0].mode or "the other"
        lines.append(f"  {_many(len(clause.other_mode), 'further site')} in {mode} mode only")
        lines += _site_lines(clause.other_mode)
    if clause.misses:
        lines.append(f"  {_many(len(clause.misses), 'near miss', 'near misses')}")
        lines += _some(list(clause.misses), indent="    ")
    return lines


def _site_lines(sites: tuple[Site, ...]) -> list[str]:
    rows = []
    for site in sites:
        changes = "; ".join(site.changes)
        if site.inferred:
            changes += "  [" + ", ".join(f"{name}={value!r}" for name, value in site.inferred.items()) + " inferred]"
        rows.append((site.path, site.spelling, changes))
    return [f"    {line}" for line in _columns(rows, numbers=False)]


def _keys_text(report: Report) -> list[str]:
    lines = [
        f"new parameters: {report.new_parameters:,}",
        f"frozen parameters: {report.frozen_parameters:,}",
    ]
    moved = [f"{old} -> {new}" for old, new in report.moved_keys.items()]
    came = [key for key in report.new_keys if key not in report.moved_keys.values()]
    went = [key for key in report.removed_keys if key not in report.moved_keys]
    for title, keys in (("new", came), ("removed", went), ("moved", moved)):
        if keys:
            lines += [f"{title} keys of the state_dict: {len(keys)}", *_some(list(keys))]
    return lines


def _some(lines: list[str], indent: str = "  ") -> list[str]:
    """The first of `lines`, and how many more there are."""
    shown = [f"{indent}{line}" for line in lines[:_MOST_LINES]]
    left = len(lines) - _MOST_LINES
    if left > 0:
        shown.append(f"{indent}... and {left:,} more; --json lists them all")
    return shown


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _columns(rows: Sequence[tuple[str, ...]], *, numbers: bool = True) -> list[str]:
    """`rows` as lines, every column as wide as its widest cell; numbers stand right in theirs."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if numbers and index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
