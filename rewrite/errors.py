"""Every error this package raises, and the one table of diagnostic codes.

    RewriteError
    ├── RuleError     RW0xx, RW1xx   the rule text is wrong; no model was looked at
    ├── SiteError     RW2xx          a site lacks what a rule needs to know about it
    ├── PlanError     RW3xx          the rule and the model do not fit together
    └── SafetyError   RW5xx          a file that may not be read or written

RW4xx are warnings: they are listed in the report and never raised.
Exit codes: 0 clean, 1 findings (the rules and the model disagree), 2 the run could not be done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rewrite.source import Span, draw, printable


class RewriteError(Exception):
    """One or more diagnostics; `str(error)` is the full text that the command line prints."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(diagnostic.render() for diagnostic in self.diagnostics))

    @property
    def code(self) -> str:
        """The code of the first diagnostic, such as `RW301`."""
        return self.diagnostics[0].code

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 1 for findings, 2 when the run could not be done."""
        return max(CODES[diagnostic.code].exit_code or diagnostic.strict for diagnostic in self.diagnostics)


class RuleError(RewriteError):
    """The rule text is wrong (RW0xx) or cannot mean anything (RW1xx)."""


class SiteError(RewriteError):
    """A site lacks what a rule needs to know about it (RW2xx)."""


class PlanError(RewriteError):
    """The rules and the model do not fit together (RW3xx)."""


class SafetyError(RewriteError):
    """A file that may not be read or written (RW5xx)."""


@dataclass(frozen=True)
class Code:
    """One row of the table of diagnostics."""

    title: str
    error: type[RewriteError] | None
    exit_code: int = 1


CODES: dict[str, Code] = {
    "RW001": Code("unexpected word", RuleError, 2),
    "RW002": Code("unknown keyword", RuleError, 2),
    "RW003": Code("dedent fits no block", RuleError, 2),
    "RW004": Code("tabs mixed with spaces", RuleError, 2),
    "RW005": Code("missing `:` or `{`", RuleError, 2),
    "RW006": Code("unclosed bracket or string", RuleError, 2),
    "RW007": Code("empty block", RuleError, 2),
    "RW008": Code("unsupported language version", RuleError, 2),
    "RW009": Code("statement not allowed here", RuleError, 2),
    "RW010": Code("rule file cannot be read", RuleError, 2),
    "RW011": Code("no rule in this text", RuleError, 2),
    "RW012": Code("rule file too large", RuleError, 2),
    "RW013": Code("too many words", RuleError, 2),
    "RW014": Code("nested too deep", RuleError, 2),
    "RW015": Code("too many includes", RuleError, 2),
    "RW016": Code("expands to too much", RuleError, 2),
    "RW017": Code("number too large", RuleError, 2),
    "RW018": Code("repeated too often", RuleError, 2),
    "RW101": Code("unknown operation or layer", RuleError, 2),
    "RW102": Code("no such attribute", RuleError, 2),
    "RW103": Code("unbound name", RuleError, 2),
    "RW104": Code("unused capture", None, 0),
    "RW105": Code("capture hides an operation", RuleError, 2),
    "RW106": Code("bad argument", RuleError, 2),
    "RW107": Code("`self` before `insert`", RuleError, 2),
    "RW108": Code("pattern that can never match", RuleError, 2),
    "RW109": Code("duplicate name", RuleError, 2),
    "RW110": Code("unknown parameter given", RuleError, 2),
    "RW111": Code("include or use cannot be found", RuleError, 2),
    "RW112": Code("new layer too large", RuleError, 2),
    "RW201": Code("path matches nothing", SiteError),
    "RW202": Code("argument cannot be inferred", SiteError),
    "RW203": Code("shape unknown", SiteError),
    "RW204": Code("which input", SiteError),
    "RW205": Code("one node needed, several found", SiteError),
    "RW206": Code("forward cannot be captured", SiteError),
    "RW207": Code("call differs from the captured one", SiteError),
    "RW301": Code("no match", PlanError),
    "RW302": Code("alternative matched nothing", None, 0),
    "RW303": Code("number of matches differs from what is expected", PlanError),
    "RW310": Code("shape changes at a site", PlanError),
    "RW311": Code("model output changes", PlanError),
    "RW312": Code("value used outside of the match", PlanError),
    "RW313": Code("shared parameters", PlanError),
    "RW314": Code("overlapping matches", None, 0),
    "RW315": Code("edit would make a cycle", PlanError),
    "RW316": Code("repeat does not come to rest", PlanError),
    "RW317": Code("not equivalent", PlanError),
    "RW318": Code("fold needs fixed statistics", PlanError),
    "RW319": Code("inserted layer did not run", PlanError),
    "RW320": Code("layer cannot be edited this way", PlanError),
    "RW321": Code("matching takes too many steps", PlanError),
    "RW322": Code("rule test failed", PlanError),
    "RW401": Code("already applied", None, 0),
    "RW402": Code("nonlinearity dropped", None, 0),
    "RW403": Code("bias in front of a normalisation", None, 0),
    "RW404": Code("splits an earlier insertion", None, 0),
    "RW405": Code("other spellings were left out", None, 0),
    "RW406": Code("statistics still move", None, 0),
    "RW407": Code("rule made dead by an earlier one", None, 0),
    "RW408": Code("new layers are untrained", None, 0),
    "RW409": Code("tapped value is overwritten", None, 0),
    "RW410": Code("statistics of single values", None, 0),
    "RW411": Code("class not kept", None, 0),
    "RW412": Code("not reached by the example input", None, 0),
    "RW501": Code("rules want to run Python", SafetyError, 2),
    "RW502": Code("model file holds code", SafetyError, 2),
    "RW503": Code("output exists", SafetyError, 2),
    "RW504": Code("model cannot be read", SafetyError, 2),
    "RW505": Code("unknown model builder", SafetyError, 2),
    "RW506": Code("output cannot be written", SafetyError, 2),
}
"""code -> title, the exception that carries it (None: a warning), exit code of the command line"""


EXAMPLE_HELP = "give an example input: `example_inputs=` in Python, `--input 1x3x224x224` on the command line"
"""the remedy wherever only a run can tell a size"""


@dataclass(frozen=True)
class Diagnostic:
    """What is wrong, where, why and what to do: the one form of every error and warning."""

    code: str
    message: str
    """what is wrong: lower case, stands alone, no full stop"""
    span: Span | None = None
    """where in the rule text"""
    label: str = ""
    """why here: short, beside the carets"""
    notes: tuple[str, ...] = ()
    """facts"""
    help: str = ""
    """what to do, with text to paste"""
    strict: bool = False
    """a warning that is an error here, because the caller asked for that"""

    @property
    def severity(self) -> Literal["error", "warning"]:
        return "warning" if CODES[self.code].error is None and not self.strict else "error"

    def error(self) -> RewriteError:
        """The diagnostic as the exception of its code's class."""
        return raisable([self])

    def render(self) -> str:
        """The text form: title line, place, drawing, notes and help."""
        lines = [f"{self.severity}[{self.code}]: {printable(self.message)}"]
        if self.span is not None:
            lines.append(f"  --> {self.span}")
            lines += draw(self.span, self.label)
        lines += [f"  = note: {printable(note)}" for note in self.notes]
        if self.help:
            lines.append(f"  = help: {printable(self.help)}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The JSON form, one flat object."""
        place = None
        if self.span is not None:
            place = {
                "file": self.span.source.name,
                "line": self.span.line,
                "column": self.span.column,
                "length": self.span.length,
            }
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "place": place,
            "label": self.label,
            "notes": list(self.notes),
            "help": self.help,
        }


def raisable(diagnostics: Iterable[Diagnostic]) -> RewriteError:
    """The exception that carries all of `diagnostics`; its class is that of the first error's code."""
    listed = tuple(diagnostics)
    kinds = [PlanError if diagnostic.strict else CODES[diagnostic.code].error for diagnostic in listed]
    kind = next((kind for kind in kinds if kind is not None), RewriteError)
    return kind(listed)


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The words of `known` closest to `word`, best first: what "did you mean" offers.

    A word that differs in letter case only comes first.
    """
    import difflib  # only a run that found a mistake pays for it

    by_lower: dict[str, str] = {}
    for candidate in known:
        by_lower.setdefault(candidate.lower(), candidate)
    found = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.6)
    return [by_lower[name] for name in found]
