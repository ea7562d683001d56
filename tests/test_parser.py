"""Rule text to syntax tree: layout, limits, several errors at once, and that no text at all gets an exception."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import lark
import pytest

from rewrite import formatter, parser, syntax
from rewrite.errors import RuleError
from rewrite.layout import DEEPEST, KEYWORDS, MOST_CHARACTERS, MOST_TOKENS
from rewrite.source import Source

ROOT = Path(__file__).parent.parent
GRAMMAR = (ROOT / "grammar" / "rewrite.lark").read_text(encoding="utf-8")

LITERAL = "after Conv2d: insert BatchNorm2d; set prev.activation=identity"

WORKED = """\
rw 1                                                                  # language version, first line
param rate = 0.1
after Conv2d: insert BatchNorm2d; set prev.activation=identity        # the literal example
after Conv2d:                                                         # the same, indented
    insert BatchNorm2d
    set prev.activation=identity
after Conv2d { insert BatchNorm2d; set prev.activation=identity }     # the same, braced
rule bn "BN behind every conv":
    after Conv2d in "features.**" where not has_next(BatchNorm2d):
        insert BatchNorm2d(eps=1e-3)

        # a comment that stands less far in than its block
        set prev.bias=none                                            # the BN makes it redundant
        expect 13 matches
after ReLU: insert Dropout(rate)
after nn.ReLU except "layer4.**": insert Dropout(rate)
remove Dropout | Dropout2d
replace ReLU | ReLU6 with GELU
replace last Linear with Linear(out_features=10); expect output (_, 10)
replace "classifier" with Linear(out_features=256) -> ReLU -> Dropout(0.5) -> Linear(out_features=10)
freeze any except "fc.**"
freeze params "features.**"; unfreeze BatchNorm2d in "features.**"
reset Linear in "classifier.**" with kaiming_normal(nonlinearity="relu")
within BasicBlock | Bottleneck: after last BatchNorm2d: insert Dropout(0.1)
between BatchNorm2d and add: insert Dropout(rate)
before add@0: insert Dropout
before cat@* in InceptionA: insert BatchNorm2d
before MultiheadAttention@query: insert Dropout
replace BatchNorm2d as b with GroupNorm(num_groups=min(32, b.num_features))
at BatchNorm2d: set self.momentum=0.01, self.eps=1e-3
replace Conv2d[kernel_size==(3,3), groups==1, out_channels>=64] as c where c.groups == 1
    with Conv2d(kernel_size=3, padding=1, groups=c.in_channels)
      -> Conv2d(out_channels=c.out_channels, kernel_size=1)
before first Conv2d: insert Normalize(mean=[0.485, 0.456, 0.406], std=[0.229,
0.224, 0.225])
within "encoder.**" { freeze any; unfreeze LayerNorm; expect any matches }
remove every(2) ReLU
remove nth(3) ReLU; expect 3..5 matches
remove GELU
expect ..4 matches
"""


def parse(text: str) -> syntax.File:
    return parser.parse(Source("<test>", text))


def canonical(text: str) -> list[str]:
    return [formatter.statement(line) for line in parse(text).lines]


def codes(text: str) -> list[str]:
    with pytest.raises(RuleError) as caught:
        parse(text)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


# ---- the grammar --------------------------------------------------------------------------------------------------


class Plain:
    """Lets the grammar be built without the layout."""

    always_accept = ("_NL",)

    def process(self, stream: object) -> object:
        return stream


@pytest.mark.parametrize("lexer", ["contextual", "basic"])
def test_grammar_has_no_conflict_and_no_collision(lexer: str) -> None:
    lark.Lark(GRAMMAR, parser="lalr", lexer=lexer, postlex=Plain(), strict=True)


def test_every_terminal_has_words() -> None:
    built = lark.Lark(GRAMMAR, parser="lalr", postlex=Plain())
    assert {terminal.name for terminal in built.terminals} | {"_INDENT", "_DEDENT", "$END"} == set(parser.WORDS)


def test_keywords_that_start_a_line_are_those_of_the_grammar() -> None:
    words = {parser.WORDS[kind].strip("`") for kind in parser._CLAUSE | parser._STATEMENT}
    assert words == KEYWORDS


# ---- what it reads ------------------------------------------------------------------------------------------------


def test_literal_example() -> None:
    (clause,) = parse(LITERAL).lines
    assert isinstance(clause, syntax.Clause)
    assert isinstance(clause.header, syntax.Position)
    assert clause.header.word == "after"
    insert, change = clause.body
    assert isinstance(insert, syntax.Insert)
    assert [stage.name.text for stage in insert.stages] == ["BatchNorm2d"]
    assert isinstance(change, syntax.Set)
    assert formatter.statement(change) == "set prev.activation = identity"


def test_worked_rules() -> None:
    lines = canonical(WORKED)
    assert lines[2] == lines[3] == lines[4] == "after Conv2d: insert BatchNorm2d; set prev.activation = identity"
    assert lines[5].endswith("insert BatchNorm2d(eps=0.001); set prev.bias = none; expect 13 matches")
    assert "with Conv2d(kernel_size=3, padding=1, groups=c.in_channels) -> Conv2d(" in "\n".join(lines)
    assert lines[-1] == "expect 0..4 matches"


def test_canonical_text_reads_as_itself() -> None:
    lines = canonical(WORKED)
    assert canonical("\n".join(lines)) == lines


@pytest.mark.parametrize(
    "text",
    [
        "after Conv2d:\n\tinsert BatchNorm2d\n\tset prev.activation=identity",
        "after Conv2d:\r\n  insert BatchNorm2d\r\n  set prev.activation=identity\r\n",
        "\ufeffafter Conv2d: insert BatchNorm2d; set prev.activation=identity;",
        "after Conv2d {\ninsert BatchNorm2d\nset prev.activation=identity\n}",
        "after Conv2d\n{ insert BatchNorm2d\n\n      set prev.activation=identity }",
        "after\tConv2d : insert BatchNorm2d ;set prev . activation = identity # -> end",
        "# head\n\nafter Conv2d: # why\n\n      # more\n  insert BatchNorm2d # x\n\n  set prev.activation=identity\n#",
        "after Conv2d: insert BatchNorm2d(\n); set prev.activation=identity",
    ],
)
def test_layout_does_not_matter(text: str) -> None:
    assert canonical(text) == canonical(LITERAL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("within A: within B: after X: insert Y", "within A: within B: after X: insert Y"),
        (
            "within A {\n  after X:\n    insert Y\n    insert Z\n  remove Q\n}",
            "within A: after X: insert Y; insert Z; remove Q",
        ),
        ("within A { after X:\n    insert Y }", "within A: after X: insert Y"),
        ("remove X\n  where a == 1\n  and b == 2", "remove X where a == 1 and b == 2"),
        ("remove X where (a ==\n1)", "remove X where a == 1"),
        ("remove A\n| B\n# between\n| C", "remove A | B | C"),
        ("remove A |\nB", "remove A | B"),
        ("insert A ->\n  # x -> y\n  B", "insert A -> B"),
        ("remove X\n# where a == 1\n", "remove X"),
        ("set a.b = 1,\n    c.d = 2", "set a.b = 1, c.d = 2"),
        ("insert X(first=1, set=2, output=3, any=4)", "insert X(first=1, set=2, output=3, any=4)"),
        ("remove X where c.last == c.rule", "remove X where c.last == c.rule"),
        ("remove X[first, in_channels==3]", "remove X[first, in_channels == 3]"),
        ("remove anything", "remove anything"),
        ("remove X where not_a", "remove X where not_a"),
        ("remove 'a\\'b'", 'remove "a\'b"'),
        ('remove "a\\"b\\\\c"', 'remove "a\\"b\\\\c"'),
        ("remove X where a - (b - c) - d == -(1 + 2) * 3", "remove X where a - (b - c) - d == -(1 + 2) * 3"),
        ("remove X where not (a and b) or (c or d) and e", "remove X where not (a and b) or (c or d) and e"),
        ("remove X where (a == 1) == (b is not C | D)", "remove X where (a == 1) == (b is not C | D)"),
        ("remove X where a not in (1,) and not b in []", "remove X where a not in (1,) and not b in []"),
        ("remove X where (1, 2)[0] == f.g(1, k=2)[3].h", "remove X where (1, 2)[0] == f.g(1, k=2)[3].h"),
        ("remove X as c in A | B in C except D | E", "remove X as c in A | B in C except D | E"),
        ("expect 3 matches", "expect 3 matches"),
        ("expect 3.. matches", "expect 3.. matches"),
        ("expect 3..5 matches", "expect 3..5 matches"),
        ("expect 0.. matches", "expect any matches"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical(text) == [expected]


def test_chunks_say_what_the_whole_file_says() -> None:
    """Parsed piece by piece or at once, a file means the same, with the same places."""
    source = Source("<test>", WORKED)
    built = parser._parser()
    built.builder.start_chunk(source, 1)
    built.blocks.start(built.builder.place)
    assert built.lark.parse(WORKED) == parser.parse(source).lines


def test_spans_are_exact() -> None:
    text = 'after  last Conv2d[groups == 1]@0 as c in "f.**"  where c.groups>2: insert Dropout( p = rate ) as d -> ReLU'
    (clause,) = parse(text).lines
    assert isinstance(clause, syntax.Clause)
    assert isinstance(clause.header, syntax.Position)
    (insert,) = clause.body
    assert isinstance(insert, syntax.Insert)
    chosen = clause.header.selector
    ((link,),) = chosen.chains
    (unit,) = link.alternatives
    shown = {
        "unit": unit.span,
        "test": unit.tests[0].span,
        "port": unit.port and unit.port.span,
        "selector": chosen.span,
        "where": chosen.where and chosen.where.span,
        "insert": insert.span,
        "stage": insert.stages[0].span,
        "keyword": insert.stages[0].keywords[0].span,
        "header": clause.header.span,
    }
    assert {name: text[span.column - 1 :][: span.length] for name, span in shown.items() if span} == {
        "unit": "last Conv2d[groups == 1]@0",
        "test": "groups == 1",
        "port": "@0",
        "selector": 'last Conv2d[groups == 1]@0 as c in "f.**"',
        "where": "c.groups>2",
        "insert": "insert Dropout( p = rate ) as d -> ReLU",
        "stage": "Dropout( p = rate ) as d",
        "keyword": "p = rate",
        "header": text[: text.index(": insert")],
    }


# ---- what it refuses ----------------------------------------------------------------------------------------------


def test_every_error_of_a_file_is_reported_once_and_in_order() -> None:
    text = "affter X: insert Y\n\nafter X:\n    insert\n    inzert Q\nremove ReLU\nremove 'a\nrule r\n"
    with pytest.raises(RuleError) as caught:
        parse(text)
    found = [(error.code, error.span and error.span.line) for error in caught.value.diagnostics]
    assert found == [("RW002", 1), ("RW001", 4), ("RW006", 7), ("RW005", 8)]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n  # comments", "\ufeff", " \t \n", "\r\n"])
def test_nothing(text: str) -> None:
    assert codes(text) == ["RW011"]


@pytest.mark.parametrize(
    "text", ["rw 2", "rw 2; remove X", "rw\t2;", "rw 0", "rw 99999999999999999999\nremove X", "# x\nrw 3\n???"]
)
def test_other_versions(text: str) -> None:
    assert codes(text) == ["RW008"]


@pytest.mark.parametrize("text", ["rw 1\nremove X", "rw 1; remove X", "rw 01\nremove X"])
def test_this_version(text: str) -> None:
    assert len(parse(text).lines) == 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("remove X" + " " * MOST_CHARACTERS, "RW012"),
        ("remove " + "a." * MOST_TOKENS, "RW013"),
        ("remove X where " + "(" * 30_000, "RW014"),
        ("remove X where " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "RW014"),
        ("remove X where " + "not " * 20_000 + "a", "RW014"),
        ("remove X where " + "-" * 20_000 + "a", "RW014"),
        ("remove X where 1" + " + 1" * 9_000, "RW014"),
        ("remove X where a" + ".b" * 9_000, "RW014"),
        ("remove X where a" + "[0]" * 9_000, "RW014"),
        ("remove X where a" + "()" * 9_000, "RW014"),
        ("within A: " * 9_000 + "remove X", "RW014"),
        ("within A {" * (DEEPEST + 1) + "remove X" + "}" * (DEEPEST + 1), "RW014"),
        (
            "".join(f"{' ' * depth}within A:\n" for depth in range(DEEPEST + 1)) + " " * (DEEPEST + 1) + "remove X",
            "RW014",
        ),
        ("insert X(1234567890123456789)", "RW017"),
        ("insert X(1e999)", "RW017"),
        (f"insert X(1{'0' * 5000})", "RW017"),
        (f"insert X(1{'0' * 5000}.0)", "RW017"),
    ],
    ids=range(17),
)
def test_limits(text: str, code: str) -> None:
    assert codes(text) == [code]


def test_just_inside_the_limits() -> None:
    depth = DEEPEST // 2
    parse("remove X where " + "(" * DEEPEST + "1" + ")" * DEEPEST)
    parse("remove X where " + "not " * (DEEPEST - 4) + "a")
    parse("".join(f"{' ' * level}within A:\n" for level in range(depth)) + " " * depth + "remove X")
    parse("remove " + " | ".join(["X"] * 10_000))
    parse("insert " + " -> ".join(["X"] * 10_000))
    parse("insert X(123456789012345678)")


def test_many_errors_are_cut() -> None:
    assert len(codes("remvoe X\n" * 5000)) == parser.MOST_ERRORS
    assert set(codes("after X {\n" * 60)) == {"RW006"}


def test_missing_unreadable_and_binary_files(tmp_path: Path) -> None:
    for name, content in {"latin": b"remove '\xe9'", "nul": b"remove \0", "wide": "remove X".encode("utf-16")}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RuleError) as caught:
            parser.parse(parser.read(tmp_path / name))
        assert caught.value.code == "RW010"
    (tmp_path / "long").write_bytes(b"#" * (MOST_CHARACTERS + 1))
    for path, code in (
        (tmp_path, "RW010"),
        (tmp_path / "none", "RW010"),
        ("a\0b", "RW010"),
        (tmp_path / "long", "RW012"),
    ):
        with pytest.raises(RuleError) as caught:
            parser.read(path)
        assert caught.value.code == code


def test_bom_and_crlf_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "dos.rw"
    path.write_bytes(b"\xef\xbb\xbfremove X\r\nremvoe Y\r\n")
    with pytest.raises(RuleError) as caught:
        parser.parse(parser.read(path))
    assert caught.value.diagnostics[0].render().splitlines()[1:4] == [
        f"  --> {path}:2:1",
        "2 | remvoe Y",
        "  | ^^^^^^ a rule starts with after, before, between, at, match, within, rule, replace, ...",
    ]


def test_a_file_cannot_drive_the_terminal() -> None:
    with pytest.raises(RuleError) as caught:
        parse("remove \x1b[31m\u202e")
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)


# ---- how it is started --------------------------------------------------------------------------------------------


def test_threads_share_the_parser() -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(30):
            text = "\n" * number + f"after X{number}: insert Y{number}"
            (line,) = parse(text).lines
            if line.span.line != number + 1 or formatter.statement(line) != text.strip():
                wrong.append(line)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_saved_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is made once, used afterwards, made anew if broken, and done without where nothing can be written."""
    package = tmp_path / "package"
    monkeypatch.setattr(parser, "_HERE", str(package))
    package.mkdir()
    for _ in range(2):
        assert parser._Parser().lark.parse("remove X")
        (table,) = (package / "__pycache__").iterdir()
    written = table.stat().st_mtime_ns
    assert parser._Parser().lark.parse("remove X")
    assert table.stat().st_mtime_ns == written
    table.write_bytes(pickle.dumps("nonsense"))
    assert parser._Parser().lark.parse("remove X")
    monkeypatch.setattr(parser, "_HERE", str(tmp_path / "file" / "package"))
    (tmp_path / "file").write_text("no folder")
    assert parser._Parser().lark.parse("remove X")


def test_reading_rules_loads_nothing_heavy() -> None:
    program = (
        "import sys; from rewrite import parser, resolver; from rewrite.source import Source; "
        f"resolver.resolve(parser.parse(Source('x', {LITERAL!r}))); "
        "print([name for name in ('torch', 'networkx', 'numpy', 'rich', 'difflib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
