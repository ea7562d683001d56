"""Files beside the rules: the only ones that `include` and `use` can open.

A rule file may come from a stranger, so a path in it is a relative one, written with `/`, that stays in the folder of
the rules or below. Nothing in it is expanded. It is followed to where it really leads, links included; if that lies in
the folder, each folder on the way and the file itself are opened as what they are found to be, without following a
link. A link that is put there in between is therefore an error, not a way out. Devices and pipes are not opened.

What this cannot tell: a hard link, or a file system mounted below the folder, shows a file of another place, and is
read (package installers hard-link what they install). Where the system cannot open a file relative to a folder
(Windows), the file is compared once more after it was opened instead.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rewrite.errors import Diagnostic, RewriteError, nearest
from rewrite.source import Span

LONGEST_PATH = 1000  # characters

_MOST_NAMES = 1000  # of a folder that are looked at to find the nearest
_FILE = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)
_FOLDER = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC"))
_RELATIVE = os.open in os.supports_dir_fd
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_HELP = "write where the file is, seen from the file that names it, with `/` between folders: `parts/head.rw`"


def contained(path: str, within: str, folder: str, span: Span) -> str:
    """Where a path in a rule file leads.

    Args:
        path: as written.
        within: the folder of that rule file, relative to `folder`; empty for `folder` itself.
        folder: the folder of the rules, which no path leads out of.
        span: where it is written.

    Returns:
        The real path, relative to `folder`; whether there is such a file is not known yet.

    Raises:
        RuleError: the path is not a relative one, or leads out of the folder (RW111).

    """
    why = _wrong_form(path)
    if why:
        raise _refused(path, why, span)
    out = f"leads out of the folder of the rules, `{folder or '.'}`"
    inside = posixpath.normpath(posixpath.join(within.replace(os.sep, "/"), path))
    if inside.split("/")[0] in ("..", "."):  # before anything outside is touched, be it to see what is there
        raise _refused(path, out if inside != "." else "is a folder", span)
    root = os.path.realpath(folder)
    try:
        real = os.path.realpath(os.path.join(root, within, path))
    except (OSError, ValueError, RecursionError):  # a chain of very many links ends in the last one
        raise _refused(path, "is a link that leads nowhere", span) from None
    start = root.rstrip(os.sep) + os.sep
    if not real.startswith(start):
        raise _refused(path, out, span)
    return real.removeprefix(start)


def read(path: str, written: str, folder: str, most: int, span: Span) -> bytes:
    """The start of a file, up to `most` bytes and one more.

    Args:
        path: what `contained` returned.
        written: the path as it is in the rules, for what is said about it.
        folder: the folder of the rules.
        most: bytes.
        span: where it is written.

    Raises:
        RuleError: there is no such file, it is no plain file (RW111), or it cannot be read (RW010).

    """
    try:
        with _opened(path, folder) as descriptor:
            if descriptor is None:
                raise _refused(written, "is no plain file", span)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(most + 1)
    except OSError as error:
        if error.errno in _MISSING:
            raise _missing(path, written, folder, span) from None
        if error.errno == errno.ELOOP:
            raise _refused(written, "is a link that leads nowhere", span) from None
        why = os.strerror(error.errno) if error.errno is not None else str(error)
        raise Diagnostic(
            "RW010", f"cannot read `{written}`: {why}", span, help="check who may read it"
        ).error() from None


def _wrong_form(path: str) -> str:
    """Why a text is no relative path, in words that go on behind the path; empty if it is one."""
    if not path.strip():
        return "is empty"
    if len(path) > LONGEST_PATH:
        return f"has more than {LONGEST_PATH} characters"
    if any(unicodedata.category(character)[0] == "C" for character in path):
        return "holds a control character"
    if "\\" in path:
        return "holds a `\\`"
    if path.startswith("/"):
        return "is an absolute path"
    if ":" in path:
        return "is an address, or names a drive"
    if path.startswith("~") or "$" in path or "%" in path:
        return "would have to be expanded, and nothing is"
    return "is a folder" if path.endswith("/") else ""


def _refused(path: str, why: str, span: Span) -> RewriteError:
    shown = path if len(path) <= 100 else f"{path[:100]}..."
    return Diagnostic("RW111", f"`{shown}` {why}", span, "not opened", help=_HELP).error()


def _missing(path: str, written: str, folder: str, span: Span) -> RewriteError:
    """What is said about a file that is not there: the nearest name in its folder, or some that are there."""
    inner, name = os.path.split(path)
    suffix = os.path.splitext(name)[1]
    names: list[str] = []
    with suppress(OSError), _opened_folder(inner, folder) as place, os.scandir(place) as entries:
        for entry, _ in zip(entries, range(_MOST_NAMES), strict=False):
            if entry.name.endswith(suffix) and not entry.name.startswith("."):
                names.append(entry.name)
    close = nearest(name, sorted(names), 1)
    beside = posixpath.dirname(written)
    shown = [f"`{posixpath.join(beside, one)}`" for one in close or sorted(names)[:3]]
    help_text = f"did you mean {shown[0]}?" if close else f"there is {', '.join(shown)}" if shown else _HELP
    return Diagnostic("RW111", f"there is no file `{written}`", span, help=help_text).error()


# ---- opening ------------------------------------------------------------------------------------------------------


@contextmanager
def _opened_folder(path: str, folder: str) -> Iterator[int | str]:
    """The folder at `path` below `folder`: a descriptor, or a path where the system has no better."""
    if not _RELATIVE:
        yield os.path.join(os.path.realpath(folder), path)
        return
    descriptor = os.open(os.path.realpath(folder), _FOLDER)
    try:
        for part in filter(None, path.split(os.sep)):
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: str, folder: str) -> Iterator[int | None]:
    """A descriptor of the plain file at `path` below `folder`; None if it is something else."""
    inner, name = os.path.split(path)
    with _opened_folder(inner, folder) as place:
        if isinstance(place, int):
            before = os.stat(name, dir_fd=place, follow_symlinks=False)
        else:
            name = os.path.join(place, name)
            before = os.stat(name, follow_symlinks=False)
        if stat.S_ISLNK(before.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not stat.S_ISREG(before.st_mode):  # opening a device may already do something
            yield None
            return
        descriptor = os.open(name, _FILE, dir_fd=place) if isinstance(place, int) else os.open(name, _FILE)
    try:
        found = os.fstat(descriptor)
        moved = not _RELATIVE and (os.path.realpath(name) != name or not os.path.samestat(found, before))
        yield None if moved or not stat.S_ISREG(found.st_mode) else descriptor
    finally:
        os.close(descriptor)
