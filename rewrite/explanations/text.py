"""RW0xx: the rule text cannot be read."""

from __future__ import annotations

from rewrite.explanations.explanation import explanation, files, python, rules, shell

TEXT = {
    "RW001": explanation(
        """
        The text cannot go on with this word or sign. The carets stand under it, and the label beside them lists what
        could stand there instead. The usual reasons are a sign of another language (`=>` for `->`), a word that is
        left over, or a module path that was not written in quotes. Only the first such place of a rule is reported,
        because what follows it would be guesswork; the other rules of the file are still read.
        """,
        rules("after Conv2d => ReLU: insert Dropout(0.1)"),
        rules("after Conv2d -> ReLU: insert Dropout(0.1)"),
    ),
    "RW002": explanation(
        """
        A line begins with a word, and that word is none of those that a rule or a statement begins with. A rule says
        where with `after`, `before`, `between`, `at` or `match`, or it starts with what is to be done, such as
        `remove` or `freeze`. Most often this is a slip of the keyboard, and then the nearest keyword is suggested.
        Keywords are written in lower case.
        """,
        rules("affter Conv2d: insert BatchNorm2d"),
        rules("after Conv2d: insert BatchNorm2d"),
    ),
    "RW003": explanation(
        """
        Indentation opens and closes blocks, as in Python, and this line fits none that is open. Either it is indented
        less than the lines of the block above and more than the line that opened the block, or it is indented where
        no block was opened at all. The tool does not guess which block was meant, since the same statement means
        different things in different blocks. Indent the line exactly as far as the lines that it belongs to.
        """,
        rules(
            """
            after Conv2d:
                insert BatchNorm2d
              set prev.bias=none
            """
        ),
        rules(
            """
            after Conv2d:
                insert BatchNorm2d
                set prev.bias=none
            """
        ),
    ),
    "RW004": explanation(
        """
        One block is indented with spaces on some lines and with tabs on others. How wide a tab is differs from editor
        to editor, so what looks like one block to you might be two to the tool. Use either spaces or tabs within a
        block; the message says which of them the block began with.
        """,
        rules("after Conv2d:\n    insert BatchNorm2d\n\tset prev.bias=none"),
        rules("after Conv2d:\n    insert BatchNorm2d\n    set prev.bias=none"),
    ),
    "RW005": explanation(
        """
        A rule has two parts: where, and what happens there. Between the two stands `:` (or `{`, with `}` at the end
        of the rule), and here it is missing. It is needed because many words can stand in either part, and a rule
        must not depend on how a reader divides it.
        """,
        rules("after Conv2d insert BatchNorm2d"),
        rules("after Conv2d: insert BatchNorm2d"),
    ),
    "RW006": explanation(
        """
        A bracket or a string was opened and never closed. The message points at the opening sign, not at the end of
        the file, because that is where the mistake can be seen. A string ends on the line on which it begins. A
        bracket may go on over several lines, but a new rule in the first column ends it, so that one forgotten
        bracket does not make the rest of the file unreadable.
        """,
        rules("after ReLU: insert Dropout(0.1"),
        rules("after ReLU: insert Dropout(0.1)"),
    ),
    "RW007": explanation(
        """
        A `:` or a pair of braces opens a block, and there is nothing in it. A rule without a statement would do
        nothing, which is hardly ever what was meant: the statements may be indented too little, or stand behind a
        `#`. Indent what belongs to the rule, or write it on the same line.
        """,
        rules("after Conv2d:\ninsert BatchNorm2d"),
        rules("after Conv2d:\n    insert BatchNorm2d"),
    ),
    "RW008": explanation(
        """
        The first line of a rule file may say which version of the language it is written in, and this program does
        not read that version. It stops before it reads anything else, because the same words may mean something else
        there. If the file was made for a newer release of the program, install that. If the number is a slip, correct
        it or leave the line out: `rw 1` is then assumed.
        """,
        rules("rw 2\nafter Conv2d: insert BatchNorm2d"),
        rules("rw 1\nafter Conv2d: insert BatchNorm2d"),
    ),
    "RW009": explanation(
        """
        Each word of this line is known, but a statement of this kind cannot stand here. `insert` needs a position, so
        it stands in a rule that begins with `after`, `before` or `between`. `remove`, `replace`, `freeze` and the
        like name themselves what they change, so they stand on a line of their own, or in a `match` that has given
        the call a name. `param`, `use`, `include` and `rw` concern the whole file and stand at its top level. The
        message says where the statement could go.
        """,
        rules("at Conv2d: insert BatchNorm2d"),
        rules("after Conv2d: insert BatchNorm2d"),
    ),
    "RW010": explanation(
        """
        The rule file is not there, may not be read, or is no text. Rule files are UTF-8; a file in another encoding
        is refused rather than read with wrong letters, and the message names the first byte that does not fit. A NUL
        character means that this is a binary file, most likely a model given in the place of the rules: the rules
        come first on the command line, then the model.
        """,
        shell("rewrite check bnn.rw"),
        shell("rewrite check bn.rw"),
    ),
    "RW011": explanation(
        """
        The file was read and holds no rule: it is empty, has comments only, or only gives names to values with
        `param` and `let`. Applying it would change nothing and report success, so it is refused. Check that it is the
        right file, and that the rules in it are not behind a `#`.
        """,
        rules("# after ReLU: insert Dropout(0.1)"),
        rules("after ReLU: insert Dropout(0.1)"),
    ),
    "RW012": explanation(
        """
        A rule file may have 1 MiB of text. Rules are written by people, and a thousand of them fit into a tenth of
        that, so a larger file is most likely not a rule file. The limit makes sure that a file from a stranger cannot
        keep the program busy. Where a program writes the rules, a path with `*`, `**` or `{a,b}` often stands for
        thousands of paths; otherwise split the file and apply its parts one after the other.
        """,
        python(
            """
            from rewrite import Rules, check_rules

            check_rules(Rules("freeze " + " | ".join(f'"encoder.layers.{n}"' for n in range(50_000))))
            """
        ),
        python(
            """
            from rewrite import Rules, check_rules

            check_rules(Rules('freeze "encoder.layers.*"'))
            """
        ),
    ),
    "RW013": explanation(
        """
        A rule file may have 200,000 words and signs. It is one of the limits that keep the time and the memory of a
        run small whatever the file holds, also if it comes from a stranger. A file that reaches it was written by a
        program; a path with `*` or `{a,b}`, a family such as `conv`, or a class name says the same in a few words.
        """,
        python(
            """
            from rewrite import Rules, check_rules

            check_rules(Rules("freeze " + "ReLU|" * 100_000 + "ReLU"))
            """
        ),
        python(
            """
            from rewrite import Rules, check_rules

            check_rules(Rules("freeze ReLU"))
            """
        ),
    ),
    "RW014": explanation(
        """
        Brackets, blocks and expressions may lie inside each other to a depth of 64. No rule that a person writes
        comes near it. Reading what is nested deeper would need more and more memory for a text of a few bytes, which
        is a known way to bring a program down. Give the inner part a name with `let` and use the name.
        """,
        python(
            """
            from rewrite import Rules, check_rules

            rate = "(" * 65 + "0.1" + ")" * 65
            check_rules(Rules(f"after ReLU: insert Dropout({rate})"))
            """
        ),
        python(
            """
            from rewrite import Rules, check_rules

            check_rules(Rules("let rate = 0.1\\nafter ReLU: insert Dropout(rate)"))
            """
        ),
    ),
    "RW015": explanation(
        """
        A rule file may take in 64 other files with `include`, and the chain of files that include each other may be
        16 long. The limits keep the work bounded: a handful of small files could otherwise include each other so
        often that they stand for millions of lines. Include what is needed directly, instead of through a long chain.
        """,
        files(
            """
            # level1.rw, and so on up to level17.rw
            include "level2.rw"
            """
        ),
        files(
            """
            # stem.rw
            freeze "stem.**"

            # head.rw
            reset "head"

            # all.rw
            include "stem.rw"
            include "head.rw"
            """
        ),
    ),
    "RW016": explanation(
        """
        A short text stands for a lot of work here. With `include`, a file may grow to 10,000 lines in all. In a
        pattern, each `?` doubles the number of patterns that are looked for, one with the call and one without it, so
        a pattern may have 6 of them; and it may have 64 calls. The limits are there so that every rule file comes to
        an end in a time that you can wait for. Say what is meant in several rules.
        """,
        rules(
            """
            match Conv2d as c -> BatchNorm2d? -> ReLU? -> Dropout? -> conv? -> norm? -> activation? -> dropout? -> add:
                remove c
            """
        ),
        rules("match Conv2d as c -> BatchNorm2d? -> ReLU? -> Dropout? -> add: remove c"),
    ),
    "RW017": explanation(
        """
        Integers have at most 18 digits, other numbers are smaller than 1.7e308, and results of calculations keep to
        the same bounds. There is no infinity and no "not a number" in the language, since a layer that is built with
        one does not fail at once but computes nonsense later. Look for a slip in the exponent, or for a calculation
        that grows further than it should.
        """,
        rules("after ReLU: insert Dropout(1e400)"),
        rules("after ReLU: insert Dropout(1e-4)"),
    ),
    "RW018": explanation(
        """
        Every run ends. So `repeat max` goes round 100 times at most, and a file applies at most 10,000 rules, those
        that `include` brings in counted as well. A rule that comes to rest does so after a few rounds: each round
        sees the model as the one before left it, and the first one that changes nothing is the last. If a hundred
        rounds are not enough, the rule makes what it looks for, and no number would be.
        """,
        rules("repeat max 200: match ReLU >> ReLU as r: remove r"),
        rules("repeat max 20: match ReLU >> ReLU as r: remove r"),
    ),
}
