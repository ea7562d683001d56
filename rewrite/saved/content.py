"""What a file is, told from its first bytes and the names inside it; no byte of it is run or unpickled."""

from __future__ import annotations

import os
import zipfile
from enum import Enum

from rewrite.errors import Diagnostic, RewriteError
from rewrite.saved import unreadable
from rewrite.saved.output import reason


class Content(Enum):
    """The kinds of file that people give as a model."""

    TORCH = "an archive of torch.save"
    LEGACY = "a pickle of torch.save before torch 1.6"
    SAFETENSORS = "a safetensors file"
    TORCHSCRIPT = "a TorchScript archive"
    KERAS = "a model of Keras 3 (`.keras`)"
    EXPORTED = "an exported program (`.pt2`)"
    OTHER = "something else"


def content_of(path: str) -> Content:
    """What the file at `path` is.

    Raises:
        SafetyError: RW504 it cannot be opened, or is an archive whose members are not what torch writes.

    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start.startswith(b"PK\x03\x04"):
            return _archive(path)
    except FileNotFoundError:
        raise _missing(path).error() from None
    except IsADirectoryError:
        raise unreadable(f"`{path}` is a folder, not a model file").error() from None
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError) as error:
        raise damaged(path, reason(error)).error() from error
    if len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100_000_000:
        return Content.SAFETENSORS
    return Content.LEGACY if start[:1] == b"\x80" else Content.OTHER


def damaged(path: str, why: str) -> Diagnostic:
    """RW504: the file says it is something that it does not hold."""
    return unreadable(f"`{path}` cannot be read: {why}", help="the file is cut short or damaged: copy or save it again")


def _missing(path: str) -> Diagnostic:
    helps = "MODEL is a file, or a builder such as `torchvision:resnet50`"
    if path.isidentifier():
        helps = f"did you mean `torchvision:{path}`?"
    return unreadable(f"there is no model file `{path}`", help=helps)


def _archive(path: str) -> Content:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return Content.TORCHSCRIPT
    if {"config.json", "metadata.json"} <= set(names):
        return Content.KERAS
    if "archive_format" in names or "archive_format" in inner:
        return Content.EXPORTED
    return Content.TORCH if "data.pkl" in inner else Content.OTHER


def check_archive(path: str) -> None:
    """Reads an archive of torch.save from end to end, and compares every member with its checksum: torch does not.

    Raises:
        SafetyError: RW504 the archive is damaged, or made to show one thing and hold another.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            # torch writes each member once and as it is. Two members of one name, or a compressed one, are how a file
            # shows one thing to a check and another to the reader.
            if len(set(names)) != len(names):
                raise damaged(path, "two members of the archive have one name").error()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise damaged(path, "a member of the archive is compressed").error()
            if sum(member.file_size for member in members) > os.path.getsize(path):
                raise damaged(path, "members of the archive overlap").error()
            if broken := archive.testzip():
                raise damaged(path, f"its member `{broken}` does not match its checksum").error()
    except RewriteError:
        raise
    except Exception as error:  # zipfile has a class of its own for some kinds of damage, and none for others
        raise damaged(path, reason(error)).error() from error
