"""`use`: names of the user's own Python that rules may write, and the gate in front of it.

Importing a module runs it, and a rule file may come from a stranger. So nothing is imported unless the caller allows
it; a caller who passes the objects themselves (`modules={"my": layers}`) need not.

What a module brings in is every class and function with a public name, as `my.SEBlock`.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from rewrite import containment, syntax
from rewrite import expression as nodes
from rewrite.errors import Diagnostic, RewriteError, nearest, raisable
from rewrite.layout import MOST_CHARACTERS
from rewrite.scope import hidden
from rewrite.source import Source, Span

_SPELLINGS = ("F", "Tensor", "nn", "operator", "torch")  # `nn.ReLU` has one meaning
_REFERENCES = ("next", "prev", "self")


def load(file: syntax.File, folder: str | None, modules: Mapping[str, object], allow_code: bool) -> dict[str, object]:
    """The names that rules may use besides the vocabulary, and what they stand for.

    A name of `modules` whose value is a module or a mapping stands for all in it, `{"my": layers}` for `my.SEBlock` and
    so on, with a `use` in the file or without. What the caller gives goes before what a `use` would import: a `use`
    whose alias, or all of whose names, the caller gives imports nothing and needs no permission.

    Args:
        file: what the parser read, its includes expanded.
        folder: of the rules; None for rules that are given as text.
        modules: what the caller gives: classes, functions, modules or mappings, by the name that rules use.
        allow_code: whether modules may be imported, which runs them.

    Raises:
        SafetyError: RW501 a module would have to be imported, and that is not allowed.
        RuleError: RW111 a module that cannot be found or imported, or lacks a name; RW101 an unknown name of it; RW105
            an alias that would hide something; RW109 one alias for two modules.

    """
    known = spread(modules)
    uses = [use for use in _uses(file) if not _is_given(use, modules, known)]
    if uses and not allow_code:
        raise raisable(map(_gate, uses))
    problems: list[Diagnostic] = []
    written = _written(file) if uses else {}
    for use in uses:
        try:
            module = _module(use, file, folder)
            known = _names(use, module, written) | known
        except RewriteError as error:
            problems += error.diagnostics
    if problems:
        raise raisable(problems)
    return known


def use_names(file: syntax.File) -> tuple[frozenset[str], frozenset[str]]:
    """What the `use`s of a file bring in, as far as its text tells; nothing is imported.

    Returns:
        The aliases (`my`), each of which stands for any `my.Name`; and the names themselves: those that are listed
        (`use pkg (A, B)`), and every `my.Name` that the file writes.

    Raises:
        RuleError: RW105, RW109, RW111, as `load` finds them in the text.

    """
    uses = _uses(file)
    aliases = frozenset(_alias(use) for use in uses if not use.names)
    listed = {word.text for use in uses for word in use.names}
    return aliases, frozenset(listed.union(text for text in _written(file) if text.partition(".")[0] in aliases))


# ---- what the text says -------------------------------------------------------------------------------------------


def _uses(file: syntax.File) -> list[syntax.Use]:
    """The `use` lines at the top level, each module once under each name."""
    found: list[syntax.Use] = []
    owners: dict[str, tuple[str, syntax.Use]] = {}
    problems: list[Diagnostic] = []
    for use in (line for line in file.lines if isinstance(line, syntax.Use)):
        wrong = _wrong_name(use)
        problems += wrong
        if wrong:
            continue
        module = _identity(use)
        words = use.names or (use.alias or syntax.Word(_alias(use), use.module.span),)
        fresh = False
        for word in words:
            owner, first = owners.setdefault(word.text, (module, use))
            fresh = fresh or first is use
            if owner != module or bool(first.names) != bool(use.names):
                label = f"already stands for `{_text(first.span)}`"
                help_text = "give it another name: `use ... as ...`"
                message = f"the name `{word.text}` stands twice"
                problems.append(Diagnostic("RW109", message, word.span, label, help=help_text))
        if fresh:
            found.append(use)
    if problems:
        raise raisable(problems)
    return found


def _alias(use: syntax.Use) -> str:
    """`my` in `use "layers.py" as my`; without `as` the last part of the module's name."""
    if use.alias is not None:
        return use.alias.text
    if isinstance(use.module, syntax.Dotted):
        return use.module.parts[-1]
    return posixpath.basename(use.module.glob).removesuffix(".py")


def _identity(use: syntax.Use) -> str:
    """Which module a line means, as far as the text tells."""
    if isinstance(use.module, syntax.Dotted):
        return use.module.text
    return os.path.normpath(os.path.join(os.path.dirname(use.span.source.name), use.module.glob)) + os.sep


def _wrong_name(use: syntax.Use) -> list[Diagnostic]:
    """What is wrong with the names that a line brings in."""
    problems = []
    for word in use.names:
        what = hidden(word.text, frozenset())
        if what:
            help_text = f"`use {_text(use.module.span)} as my` makes it `my.{word.text}`"
            problems.append(Diagnostic("RW105", f"`{word.text}` hides {what}", word.span, help=help_text))
    if use.names:
        return problems
    alias = _alias(use)
    place = use.alias.span if use.alias is not None else use.module.span
    help_text = f"choose another name: `use {_text(use.module.span)} as my`"
    if alias in _SPELLINGS:
        message = f"`{alias}` hides the spellings `{alias}.` of the language"
        problems.append(Diagnostic("RW105", message, place, help=help_text))
    elif alias in _REFERENCES:
        problems.append(Diagnostic("RW105", f"`{alias}` hides a word of the language", place, help=help_text))
    if isinstance(use.module, syntax.Path):
        if not use.module.glob.endswith(".py"):
            message = f"`{use.module.glob}` is no Python file"
            help_text = 'write `use "layers.py"` for a file beside the rules, `use package.layers` for a module'
            problems.append(Diagnostic("RW111", message, use.module.span, help=help_text))
        elif not alias.isidentifier():
            message = f"`{alias}` is not a name that rules can write"
            problems.append(Diagnostic("RW111", message, use.module.span, help=help_text))
    return problems


def _written(file: syntax.File) -> dict[str, Span]:
    """Every dotted name that the rules write, `my.Block` and `my.prunable(c)`, and where first; does not recurse."""
    found: dict[str, Span] = {}
    left: list[Any] = [line for line in reversed(file.lines) if not isinstance(line, syntax.Use)]
    while left:
        node = left.pop()
        match node:
            case syntax.Dotted():
                found.setdefault(node.text, node.span)
            case nodes.Attribute(nodes.Name(root), name, span):
                found.setdefault(f"{root}.{name}", span)
            case tuple():
                left += reversed(node)
            case _ if hasattr(node, "span") and not isinstance(node, Span):
                left += reversed(vars(node).values())
    return found


def _text(span: Span) -> str:
    """The text at a place, on its first line."""
    return span.source.lines[span.line - 1][span.column - 1 :][: span.length]


# ---- what the caller gives ----------------------------------------------------------------------------------------


def spread(modules: Mapping[str, object]) -> dict[str, object]:
    """`{"my": layers}` as `{"my.SEBlock": SEBlock, ...}`; what is given under its full name goes first."""
    found: dict[str, object] = {}
    for name, value in modules.items():
        if isinstance(value, ModuleType):
            found |= {f"{name}.{word}": thing for word, thing in _public(value)}
        elif isinstance(value, Mapping):
            found |= {f"{name}.{word}": thing for word, thing in value.items()}
    return found | {name: value for name, value in modules.items() if not isinstance(value, ModuleType | Mapping)}


def _public(module: ModuleType) -> Iterator[tuple[str, Callable[..., object]]]:
    """The classes and functions of a module that have a public name."""
    return ((name, value) for name, value in vars(module).items() if not name.startswith("_") and callable(value))


def _is_given(use: syntax.Use, modules: Mapping[str, object], known: Mapping[str, object]) -> bool:
    if use.names:
        return all(word.text in known for word in use.names)
    alias = _alias(use)
    return alias in modules or any(name.startswith(f"{alias}.") for name in known)


def _gate(use: syntax.Use) -> Diagnostic:
    """RW501: the module would have to be imported."""
    shown = _text(use.span)
    name = use.names[0].text if use.names else _alias(use)
    return Diagnostic(
        "RW501",
        f"these rules want to run Python: `{shown}`",
        use.span,
        "not allowed",
        ("importing a module runs it, with all that it may do",),
        "read the module; then allow it, with `allow_code=True` in Python or `--allow-code` on the command line, "
        f'or import it yourself and pass `modules={{"{name}": ...}}`',
    )


# ---- importing ----------------------------------------------------------------------------------------------------


def _names(use: syntax.Use, module: ModuleType, written: Mapping[str, Span]) -> dict[str, object]:
    """What a line takes from its module, by the names that the rules write."""
    problems = []
    if use.names:
        listed: dict[str, object] = {}
        for word in use.names:
            value = _attribute(use, module, word.text)
            if callable(value):
                listed[word.text] = value
            else:
                problems.append(_no_name("RW111", module, _text(use.module.span), word.text, "", word.span))
    else:
        alias = _alias(use)
        listed = {f"{alias}.{name}": value for name, value in _public(module)}
        for text, span in written.items():
            root, _, name = text.partition(".")
            if root != alias or not name or text in listed:
                continue
            # A package may make its names only when they are asked for.
            value = None if name.startswith("_") or "." in name else _attribute(use, module, name)
            if callable(value):
                listed[text] = value
            else:
                problems.append(_no_name("RW101", module, alias, name, f"{alias}.", span))
    if problems:
        raise raisable(problems)
    return listed


def _attribute(use: syntax.Use, module: ModuleType, name: str) -> object:
    try:
        return getattr(module, name, None)
    except (Exception, SystemExit) as error:
        raise _cannot_import(use, error, None) from error


def _no_name(code: str, module: ModuleType, shown: str, name: str, prefix: str, span: Span) -> Diagnostic:
    """A name that a module lacks, with the nearest that it has."""
    close = nearest(name, [word for word, _ in _public(module)], 1)
    if close:
        help_text = f"did you mean `{prefix}{close[0]}`?"
    elif "." in name:
        help_text = "a `use` of its own reaches a module in a module: `use package.layers as my`"
    else:
        help_text = "names with a `_` in front are private" if name.startswith("_") else ""
    return Diagnostic(code, f"`{shown}` has no class or function `{name}`", span, help=help_text)


def _module(use: syntax.Use, file: syntax.File, folder: str | None) -> ModuleType:
    """Imports what a line names."""
    import importlib  # only rules that import Python pay for it

    from rewrite import python_file

    if isinstance(use.module, syntax.Dotted):
        name = use.module.text
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:  # a module may do anything; only an interrupt is not its business
            raise _cannot_import(use, error, None) from error
    if folder is None:
        help_text = 'put the rules in a file, write the name of a module, or pass `modules={"my": ...}`'
        message = f"`{use.module.glob}` cannot be found from here"
        raise Diagnostic("RW111", message, use.span, "rules given as text have no folder", help=help_text).error()
    written, span = use.module.glob, use.module.span
    within = _within(use.span.source, file.source, folder)
    path = containment.contained(written, within, folder, span)
    data = containment.read(path, written, folder, MOST_CHARACTERS, span)
    if len(data) > MOST_CHARACTERS:
        raise Diagnostic("RW012", f"`{written}` has more than {MOST_CHARACTERS} bytes", span).error()
    real = os.path.join(os.path.realpath(folder), path)
    try:
        return python_file.run(real, data)
    except (Exception, SystemExit) as error:
        raise _cannot_import(use, error, real) from error


def _within(source: Source, root: Source, folder: str) -> str:
    """The folder of an included file, relative to that of the rules."""
    return "" if source is root else os.path.relpath(os.path.dirname(source.name) or ".", folder or ".")


def _cannot_import(use: syntax.Use, error: BaseException, path: str | None) -> RewriteError:
    """RW111: what the module raised, and at which of its lines."""
    import importlib
    import linecache
    import traceback

    name = _text(use.module.span).strip("\"'")
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, SyntaxError):
        text, place = error.msg, (error.filename, error.lineno)
    else:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if os.path.dirname(frame.filename) != os.path.dirname(__file__)
            and frame.filename != importlib.__file__
            and not frame.filename.startswith("<frozen ")
        ]
        own = [frame for frame in frames if frame.filename == (path or frames[0].filename)]
        place = (own[-1].filename, own[-1].lineno) if own else (None, None)
    notes: tuple[str, ...] = ()
    if place[0] is not None and place[1] is not None:
        shown = name if place[0] == path else place[0]
        notes = (f"{shown}:{place[1]}: {linecache.getline(place[0], place[1]).strip()[:200]}",)
    help_text = ""
    if isinstance(error, ModuleNotFoundError) and path is None and error.name == name.partition(".")[0]:
        help_text = f'install it, or, for a file beside the rules, write `use "{error.name}.py"`'
    what = type(error).__name__
    message = f"`{name}` cannot be imported: {what}: {text[:200]}" if text else f"`{name}` cannot be imported: {what}"
    return Diagnostic("RW111", message, use.span, notes=notes, help=help_text).error()
