"""`Output`: the place a model is written to, checked before the work starts, and filled in one step at its end.

A direct `torch.save` onto a file leaves a torn file behind when the process dies, and has lost the old one by the
time a full disk stops it. So the bytes go to a temporary file beside the place, reach the disk, are checked there,
and take the place by one rename.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from rewrite.errors import Diagnostic, RewriteError

TEMPORARY = ".rewrite-tmp"
"""how the name of an unfinished file ends; one that is left over from a killed run may be deleted"""

_FORMS = "`.pt` and `.pth` hold the whole model, `.safetensors` its weights, `.keras` a model of Keras"


@dataclass(frozen=True)
class Output:
    """A place that may be written."""

    name: str
    """as the caller gave it"""
    path: str
    """with symbolic links followed"""
    suffix: str
    force: bool

    @property
    def form(self) -> str:
        """What is written there."""
        forms = {".safetensors": "state_dict, safetensors", ".keras": "whole model, Keras"}
        return forms.get(self.suffix, "whole model, torch.save")

    def write(self, fill: Callable[[str], str]) -> str:
        """Lets `fill` write a temporary file and, once that is safely on the disk, renames it to the place.

        Args:
            fill: writes the file at the path it is given; what it returns is returned.

        Raises:
            SafetyError: RW506, or RW503 where a file came to the place meanwhile. The place is as it was.

        """
        folder, base = os.path.split(self.path)
        temporary = os.path.join(folder, f".{base}.{os.getpid()}{TEMPORARY}")
        try:
            # 1. O_EXCL: never into a file, or through a link, that somebody else put there.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            created = os.stat(temporary).st_mode
            result = fill(temporary)
            # 2. The mode that a new file gets here, or the one that the old file has: writers may have changed it.
            os.chmod(temporary, stat.S_IMODE(created))
            _take_over(self.path, temporary)
            _sync(temporary)
            # 3. A file that appeared since `check_output` is kept as well.
            if not self.force and os.path.lexists(self.path):
                raise exists(self.name).error()
            os.replace(temporary, self.path)
        except RewriteError:
            raise
        except Exception as error:  # of torch, pickle, safetensors or the file system: one thing to the user
            raise unwritable(self.name, reason(error)).error() from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        # The rename itself is on the disk once its folder is. Some file systems refuse that: the file is whole anyway.
        with contextlib.suppress(OSError):
            _sync(folder)
        return result


def check_output(name: str, *, force: bool = False) -> Output:
    """The place `name`, if a model may be written there.

    Raises:
        SafetyError: RW503 it exists and `force` is not set, RW506 it can never be written.

    """
    path = os.path.realpath(name)
    suffix = os.path.splitext(name)[1].lower()
    folder = os.path.dirname(path)
    if suffix not in {".pt", ".pth", ".safetensors", ".keras"}:
        ending = f"the form `{suffix}`" if suffix else "a name without a suffix"
        raise Diagnostic("RW506", f"output `{name}` has {ending}, which is not written", help=_FORMS).error()
    if os.path.isdir(path):
        raise unwritable(name, "it is a folder").error()
    if not os.path.isdir(folder):
        parent = os.path.dirname(name)
        raise unwritable(name, f"there is no folder `{parent}`", help=f"`mkdir -p {parent}` makes it").error()
    if os.path.lexists(path) and not os.path.isfile(path):
        raise unwritable(name, "it is not a plain file").error()
    if os.path.lexists(path) and not force:
        raise exists(name).error()
    if not os.access(folder, os.W_OK | os.X_OK):
        raise unwritable(name, f"its folder `{os.path.dirname(name) or '.'}` may not be written").error()
    return Output(name, path, suffix, force)


def exists(name: str) -> Diagnostic:
    """RW503: the place is taken."""
    return Diagnostic("RW503", f"output `{name}` exists and is kept", help="`--force` replaces it")


def unwritable(name: str, why: str, help: str = "") -> Diagnostic:
    """RW506: the place cannot be written."""
    return Diagnostic("RW506", f"output `{name}` cannot be written: {why}", help=help)


def reason(error: BaseException) -> str:
    """The cause in one line: the operating system's words, else the exception's class and the start of its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _take_over(path: str, temporary: str) -> None:
    """Gives `temporary` the mode and, as far as that is permitted, the owner of the file at `path`, if there is one."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    new = os.stat(temporary)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        try:
            os.chown(temporary, old.st_uid, old.st_gid)
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.EINVAL, errno.ENOSYS}:
                raise
    os.chmod(temporary, stat.S_IMODE(old.st_mode))  # after chown, which may clear bits of it


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
