"""Long lines of rule text, broken where the language lets a line go on.

A line may be broken in front of `where with in except and or -> >> |` and behind a comma, wherever they stand; see
the layout rules in `grammar/rewrite.lark`. Which of these places is the better one is all that is decided here.
"""

from __future__ import annotations

import itertools

from rewrite.layout import PARTS

WIDTH = 100
"""columns of a line, without the comment behind it"""

INDENT = 4

# Within each pair of brackets, the lower one is broken first.
_CLAUSES = {"where": 0, "with": 0, "in": 1, "except": 1, ",": 1, "->": 2, ">>": 2, "|": 3, "or": 4, "and": 5}
_CONDITION = {"with": 0, ",": 1, "or": 2, "and": 3, "in": 4, "|": 5, "->": 5, ">>": 5}


def break_line(text: str, indent: int, hang: int = INDENT) -> list[str]:
    """The lines of `text`, which is one line of canonical text.

    Args:
        text: without indentation.
        indent: columns in front of the first line.
        hang: columns more in front of the others.

    """
    return _broken(text, indent, hang, condition=False)


def _broken(text: str, indent: int, hang: int, *, condition: bool) -> list[str]:
    """Parts of a long text fill lines; a part that is too long is broken in turn."""
    points = _points(text, condition) if indent + len(text) > WIDTH else []
    if not points:
        return [" " * indent + text]
    weakest = min(strength for strength, _ in points)
    cuts = [0, *(offset for strength, offset in points if strength == weakest), len(text)]
    lines: list[str] = []
    whole = False  # whether the last line may be filled up
    for start, end in itertools.pairwise(cuts):
        part = text[start:end].strip()
        if whole and weakest[1] and len(lines[-1]) + 1 + len(part) <= WIDTH:
            lines[-1] += f" {part}"
            continue
        inside = part.startswith("where ") or (condition and not part.startswith("with "))
        found = _broken(part, indent + hang if lines else indent, hang if not lines else INDENT, condition=inside)
        lines += found
        whole = len(found) == 1
    return lines


def _points(text: str, condition: bool) -> list[tuple[tuple[int, int], int]]:
    """Where the text may be broken: how deep in brackets and which word, and the offset."""
    strengths = _CONDITION if condition else _CLAUSES
    points = []
    depth = 0
    pair = text.startswith("between ")
    for match in PARTS.finditer(text):
        part, offset = match[0], match.start()
        if part in "([":
            depth += 1
        elif part in ")]":
            depth -= 1
        elif part == ",":
            points.append(((depth, strengths[part]), match.end()))
        elif part in strengths and text[offset - 1 : offset] == text[match.end() : match.end() + 1] == " ":
            is_pair = pair and part == "and" and not depth
            points.append(((depth, 0 if is_pair else strengths[part]), offset))
            pair = pair and not is_pair
    return [point for point in points if 0 < point[1] < len(text)]
