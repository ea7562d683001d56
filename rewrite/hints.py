"""What to write instead: the slips in rule text that people make most, and the help that each gets."""

from __future__ import annotations

from typing import NamedTuple


class Slip(NamedTuple):
    """Where reading a rule text ended: words are given by their names in the grammar."""

    kind: str
    """of the word that does not fit"""
    text: str
    accepted: frozenset[str]
    """what would fit"""
    before: frozenset[str]
    """the words of the statement so far that nothing has closed yet"""
    previous: str
    """the word in front; empty if that is part of something larger"""
    statement: bool
    """whether the word starts a statement elsewhere"""
    clause: bool
    """whether it starts a clause elsewhere"""


CHARACTERS = {
    "→": "an arrow is written `->`",
    "≥": "write `>=`",
    "≤": "write `<=`",
    "≠": "write `!=`",
    "&": "write `and`, and `|` between operations",
    "!": "write `not`",
    "$": "a name has no sign in front",
    "`": 'a string stands in "',
    **dict.fromkeys("“”„‘’«»", 'a string stands in "'),
    **dict.fromkeys("–—−", "a minus is written `-`, an arrow `->`"),
}
"""help for a character that is none of the language"""

_SELECTING = frozenset(("AFTER", "BEFORE", "AT_WORD", "MATCH", "REMOVE", "FREEZE", "UNFREEZE", "RESET", "TAP"))
_FLOWS = frozenset(("INSERT", "REPLACE", "GIVEN", "WANT"))


def hint(slip: Slip) -> str:
    """Help for a word that does not fit, or nothing."""
    return _of_statement(slip) or _of_selector(slip) or _of_anything(slip)


def _of_statement(slip: Slip) -> str:
    """What is peculiar to one statement or header."""
    kind, text, accepted, before, previous, *_ = slip
    if kind == "SOLE" and before & _FLOWS and "WITH" not in accepted:
        return "new layers are joined by `->`"
    if kind == "COMMA" and before & {"INSERT", "REPLACE"} and "PER" in accepted:
        return "new layers are joined by `->`"
    if kind in ("ARROW", "SOLE", "COMMA") and "WRAP" in before and "WITH" in before:
        return "one layer is wrapped around another: `wrap A with F(...)`; more of them with another `wrap`"
    if "WRAP" in before and "WITH" not in before:
        return "write `wrap A with F(...)`; `in` tells where A lies"
    if "WITH" in accepted and "REPLACE" in before:
        return "write `replace A with B`"
    if "FOLD" in before and "INTO" not in before:
        return "write `fold B into A`: B goes away, A keeps its place"
    if "MOVE" in before and accepted & {"AFTER", "BEFORE"}:
        return "write `move a after b` or `move a before b`"
    if "TAP" in before and accepted == {"EQUAL"}:
        return "a tap has a name: `tap features = last ReLU`"
    if "REPEAT" in before:
        return "write `repeat max 5:`, or `repeat:` without a number"
    if accepted == {"NAME"} and previous == "TEST":
        return 'a test says which rule it tries: `test bn "not twice":`'
    if accepted == {"NAME"} and previous == "RULE":
        return 'a rule has a name: `rule bn "behind every convolution":`'
    if "EQUIVALENT" in accepted and text.startswith(("equal", "same", "identical")):
        return "write `expect equivalent`"
    if "EQUIVALENT" in accepted:
        return "write `expect 3 matches`, `expect 3.. matches`, `expect output (_, 10)` or `expect equivalent`"
    if "MATCHES" in accepted:
        return "write `expect 3 matches`"
    if "MODEL" in before and "INPUT" in accepted:
        return "write `model resnet18() input (1, 3, 224, 224)`"
    if previous == "INCLUDE":
        return 'a file stands in quotes: `include "other.rw"`'
    if previous == "PER":
        return "`per call` makes a new layer for each call, `per layer` one for all calls of a layer"
    if "USE" in before and kind in ("NAME", "STAR", "COMMA"):
        return "names of a module stand in brackets: `use my_package.layers (SEBlock, LayerScale)`"
    if kind == "CMP" and previous == "OUTPUT":
        return "write `expect output (_, 10)`; `_` is any size"
    if before & {"LET", "PARAM"} and accepted == {"EQUAL"}:
        return "write `let wide = 256`" if "LET" in before else "write `param rate = 0.1`"
    if "WITHIN" in before and kind in ("ARROW", "SOLE"):
        return "`within` names modules, without links: `within BasicBlock | Bottleneck`"
    if "SET" in before and accepted == {"DOT"}:
        return "what is set is an attribute: `set self.momentum = 0.01`"
    if "BETWEEN" in before and "AND" not in before:
        return "write `between A and B`"
    return ""


def _of_selector(slip: Slip) -> str:
    """What is peculiar to selectors."""
    kind, _, accepted, before, *_ = slip
    if kind in ("EQUAL", "CMP") and "ARROW" in accepted:
        return "an arrow is written `->`"
    if kind in ("INT", "STAR") and slip.previous == "DOT":
        return 'a module path is written in quotes: "layer4.0", "features.**"'
    if kind == "NOT" and accepted & {"IN", "EXCEPT"} and "WHERE" in accepted:
        return 'write `except`: `ReLU except "layer1.**"`'
    if kind == "AND" and "MATCH" in before and "WHERE" in accepted:
        return "a comma stands between two chains: `match A as a -> B, a -> C`"
    if kind in ("COMMA", "OR", "AND") and (
        "WITHIN" in before or (before & _SELECTING and "WHERE" in accepted and "WHERE" not in before)
    ):
        return "`|` stands between operations: `ReLU | GELU`"
    if kind in ("AND", "OR") and "RSQB" in accepted:
        return "a comma stands between tests: `Conv2d[groups==1, bias]`"
    if kind == "QUESTION" and "AS" not in accepted:
        return "`?` stands in front of `as`: `ReLU? as r`"
    if kind == "AS" and "WHERE" in accepted:
        return '`as` stands in front of `in` and `except`: `Conv2d as c in "features.**"`'
    if kind in ("NAME", "STRING") and "MATCH" in before and "SOLE" in accepted:
        return "two operations in a row are linked by `->` or `>>`"
    return ""


def _of_anything(slip: Slip) -> str:
    kind, text, accepted, before, previous, statement, clause = slip
    if clause:
        return "a rule stands on a line of its own"
    if statement and "SEMICOLON" in accepted:
        return "put `;` or a new line between two statements"
    if kind == "CMP" and "CMP" in before:
        return "comparisons do not chain: write `1 < x and x < 4`"
    if kind == "CMP" and "EQUAL" in accepted:
        return "a value is set with `=`"
    if kind == "EQUAL" and "CMP" in accepted:
        return "two values are compared with `==`"
    if kind == "NAME" and text in ("like", "matches", "glob") and "CMP" in accepted:
        return '`~` compares a text with a glob: `c.path ~ "features.*"`'
    if kind == "DOT" and "FLOAT" in accepted:
        return "write the zero: `0.5`"
    if kind == "EQUAL" and previous == "EQUAL":
        return "a value is set with one `=`"
    return ""
