"""RW1xx: the rule text can be read and cannot mean anything, whatever the model is."""

from __future__ import annotations

from rewrite.explanations.explanation import explanation, files, rules, shell

NAMES = {
    "RW101": explanation(
        """
        A rule names an operation or a layer that nobody knows: it is not in the vocabulary (`rewrite ops` lists
        that), it is no class of the model, and it was not given by the caller. Upper and lower case matter, since
        `relu` and `ReLU` are both names that people use. If the name is a module path, write it in quotes. A class of
        your own is passed in Python as `modules={"Name": Name}`. A name that differs from a known one by a single
        slip is refused even where a model might have such a class: a rule that silently finds nothing is worse.
        """,
        rules("after Conv2d: insert BatchNormm2d"),
        rules("after Conv2d: insert BatchNorm2d"),
    ),
    "RW102": explanation(
        """
        A condition, a filter in `[...]` or a `set` asks for an attribute that the operation does not have. An
        attribute is an argument of the layer's constructor or of one of its functions, under the name that PyTorch
        gives it; besides those there are `activation`, `inplace`, `path`, `training` and `uses`. `rewrite ops
        Dropout` lists what can be asked of a dropout. The tool insists, because a test of an attribute that is never
        there would never hold, and the rule would quietly do nothing.
        """,
        rules("remove Dropout[prob==0.5]"),
        rules("remove Dropout[p==0.5]"),
    ),
    "RW103": explanation(
        """
        An expression uses a name that stands for nothing here. Names are bound by `as` (a call that was found), by
        `param` and `let` (a value) and by the position of a rule: `prev` and `next` in `after`, `before` and
        `between`, and `self` once something is inserted or where the rule is about a single call. A text is written
        in quotes, and Python's `True`, `False` and `None` are `true`, `false` and `none`. Functions are `min`, `max`
        and `abs`; others come from Python with `use`. In a `match`, each statement is about one of the names that the
        pattern has given.
        """,
        rules("after ReLU: insert Dropout(rate)"),
        rules("param rate = 0.1\nafter ReLU: insert Dropout(rate)"),
    ),
    "RW104": explanation(
        """
        A call gets a name with `as`, and nothing refers to that name. This is only a warning, since the rule works.
        But often a condition was forgotten, or an argument that should depend on the call, so it is worth a look. If
        nothing is missing, drop the `as`.
        """,
        rules("after Conv2d as c: insert BatchNorm2d"),
        rules("after Conv2d as c where c.groups == 1: insert BatchNorm2d"),
    ),
    "RW105": explanation(
        """
        The name given with `as`, `param` or `let` already means something in every rule: it is an operation (`relu`),
        a function (`min`), a class given by the caller, or a word of the language (`self`, `prev`, `next`, `_`). If
        the new meaning won, a later line that means the operation would change without a word. Choose another name;
        one letter is common.
        """,
        rules("remove Conv2d as relu where relu.groups == 1"),
        rules("remove Conv2d as c where c.groups == 1"),
    ),
    "RW106": explanation(
        """
        An argument does not fit: its name is unknown, there are too many, one is given twice or missing, or its value
        is of the wrong kind or size. The line of help shows the signature as rules write it, which is the one of the
        PyTorch class. New layers are first built without memory, so that also a value that PyTorch itself refuses is
        reported at the place in the rule. The same code is used for a count that can never hold, a shape that is
        none, a port that an operation does not have, and an attribute that a layer was built with and that cannot be
        set afterwards.
        """,
        rules("after ReLU: insert Dropout(prob=0.1)"),
        rules("after ReLU: insert Dropout(p=0.1)"),
    ),
    "RW107": explanation(
        """
        In a rule about a position, `self` is the layer that was inserted last. Here nothing is inserted yet, so there
        is no such layer. Statements are carried out in the order in which they are written: put the `insert` first.
        If the call in front of the position or behind it is meant, that one is `prev` or `next`.
        """,
        rules("after Conv2d: set self.eps=1e-3; insert BatchNorm2d"),
        rules("after Conv2d: insert BatchNorm2d; set self.eps=1e-3"),
    ),
    "RW108": explanation(
        """
        No model can have what this pattern describes, or the pattern is no single thing. Values flow forwards, so a
        chain that leads back to its own beginning is never there. Chains of one `match` must have a call in common,
        else they would be combined in every possible way. A call that other parts of the rule rely on cannot be
        marked with `?` as one that may be missing, nor can the call that `after` or `before` is about. The pattern is
        refused before a model is looked at, because "matched nothing" would send you looking for the reason in the
        wrong place.
        """,
        rules("match Conv2d as c -> ReLU as r, r -> c: remove r"),
        rules("match Conv2d as c -> ReLU as r where c.groups == 1: remove r"),
    ),
    "RW109": explanation(
        """
        One name stands for two things, or one thing is said twice: two rules of the same name, two captures or
        constants of the same name, two `expect ... matches` in one rule, two promises about the output in one file.
        Which one should count cannot be told, and taking the last one would hide the mistake. Rename or drop one of
        them.
        """,
        rules("param rate = 0.1\nlet rate = 0.2\nafter ReLU: insert Dropout(rate)"),
        rules("param rate = 0.1\nafter ReLU: insert Dropout(rate)"),
    ),
    "RW110": explanation(
        """
        The caller gives a value to a parameter (`--set` on the command line, `params=` in Python) that the rules do
        not have, or the value is none that rules can hold. Only names that the file introduces with `param` can be
        set; those of `let` are fixed. A misspelled name would otherwise leave the default in place, and the run would
        look as if the value had been used.
        """,
        shell("rewrite check -e 'param rate = 0.1' -e 'after ReLU: insert Dropout(rate)' --set rat=0.2"),
        shell("rewrite check -e 'param rate = 0.1' -e 'after ReLU: insert Dropout(rate)' --set rate=0.2"),
    ),
    "RW111": explanation(
        """
        The file or module that `include` or `use` names is not there, or may not be used. Included files lie in the
        folder of the rule file or below it, and are named relative to it; absolute paths and paths that lead out of
        that folder, also through symbolic links, are refused. So rules that you got from somebody else cannot read
        other files of yours. Files that include each other in a circle are refused as well.
        """,
        rules('include "../elsewhere/freezing.rw"\nafter ReLU: insert Dropout(0.1)'),
        files(
            """
            # freezing.rw
            freeze "features.**"

            # main.rw, in the same folder
            include "freezing.rw"
            after ReLU: insert Dropout(0.1)
            """
        ),
    ),
    "RW112": explanation(
        """
        One new layer would take more than 4 GiB. Every new layer is first built without memory, which shows its size
        at no cost, so that a slip in a number does not bring the machine down. Check the sizes, above all those that
        are calculated. A layer that really is this large is made in Python and given with `modules=`.
        """,
        rules("replace last Linear with Linear(out_features=1000000000)", "torchvision:vgg16"),
        rules("replace last Linear with Linear(out_features=100)\nexpect output (_, 100)", "torchvision:vgg16"),
    ),
}
