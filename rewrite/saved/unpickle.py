"""The one place that unpickles: torch's restricted unpickler, with an allow-list, for the time of one file."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Sequence

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from rewrite.errors import Diagnostic, RewriteError
from rewrite.saved import unreadable
from rewrite.saved.allowed import Allowed, allowed, is_barred
from rewrite.saved.content import Content, check_archive, content_of, damaged
from rewrite.saved.layer_partial import PartialError
from rewrite.saved.output import reason

_SHOWN = 5
_OWN_PROGRAM = (
    "load the file in a program of yours that trusts it, and save its state_dict: `torchvision:NAME@FILE` reads that"
)
_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed global|whose module)")


def unpickle(path: str, *, modules: bool, allow: Sequence[str] = ()) -> object:
    """What `torch.save` wrote to `path`, if that can be rebuilt without running anything that the file names.

    Args:
        path: an archive of `torch.save`, or a pickle from before there were archives.
        modules: whether classes of layers may be in it; else tensors and plain data only.
        allow: dotted names of further classes.

    Raises:
        SafetyError: RW502 the file needs more than that, RW504 it is something else, or damaged.

    """
    content = content_of(path)
    if content in {Content.TORCHSCRIPT, Content.EXPORTED}:
        raise Diagnostic(
            "RW502",
            f"`{path}` is {content.value}: reading it runs code from the file",
            help="save the nn.Module that it was made from, with torch.save(model, ...), or its state_dict",
        ).error()
    if content not in {Content.TORCH, Content.LEGACY}:
        raise unreadable(
            f"`{path}` is not a model file that can be read",
            help="what torch.save wrote is read, and weights in a .safetensors file",
        ).error()
    if content is Content.TORCH:
        check_archive(path)
    listed: list[Allowed] = []
    if modules:
        # Only an archive can be asked what it names; for an old pickle, torchvision is taken to be needed.
        vision = content is Content.LEGACY or any(name.startswith("torchvision.") for name in _unlisted(path))
        listed = allowed(allow, torchvision=vision)
    with safe_globals(listed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols and moved sources: nothing that the user can act on
        if content is Content.TORCH and (missing := _unlisted(path)):
            raise refusal(path, missing).error()
        try:
            # An open file, not a path: torch goes by the suffix of a path, and this by the content.
            with open(path, "rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        except RewriteError:
            raise
        except PartialError as error:
            raise Diagnostic("RW502", f"`{path}` holds {error}", help=_OWN_PROGRAM).error() from error
        except Exception as error:  # a damaged file fails in any line of the unpickler
            text = str(error)
            if named := _REFUSED_GLOBAL.search(text):
                raise refusal(path, [named[1]]).error() from error
            if "persistent_load of storage is allowed" in text:
                raise Diagnostic(
                    "RW502",
                    f"`{path}` is a whole model as torch before 1.6 wrote it: reading it runs what the file names",
                    help="load it in a program of yours that trusts it, and save it again",
                ).error() from error
            if error.__class__ is pickle.UnpicklingError:
                raise damaged(path, "it is not a pickle that torch.save writes").error() from error
            raise damaged(path, reason(error)).error() from error


def refusal(path: str, names: Sequence[str]) -> Diagnostic:
    """RW502: the file needs what is not on the list, by name, and what can be done."""
    names = sorted(names)
    if any(name.startswith("torch.fx.") for name in names):
        return Diagnostic(
            "RW502",
            f"`{path}` holds a pickled GraphModule: reading it runs source text from the file",
            help="save the module that it was traced from, or its state_dict",
        )
    shown = ", ".join(f"`{name}`" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    notes = ["only classes of torch.nn and torchvision are read without being asked for"]
    # No flag is offered for what may be a trap: a class of Python's own library starts programs when it is called.
    barred = [name for name in names if is_barred(name)]
    if barred:
        notes.append(f"`{barred[0]}` is not let in by any flag")
        return Diagnostic("RW502", f"`{path}` needs {shown}{more} to be read", notes=tuple(notes), help=_OWN_PROGRAM)
    flags = " ".join(f"--allow {name}" for name in names)
    helps = f"if you trust the code on your machine under these names: `{flags}` imports it; functions are never let in"
    return Diagnostic("RW502", f"`{path}` needs {shown}{more} to be read", notes=tuple(notes), help=helps)


def _unlisted(path: str) -> list[str]:
    """The names in an archive that are not on the list as it stands; nothing is loaded."""
    try:
        return get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # as in `unpickle`: a damaged file fails anywhere
        raise damaged(path, reason(error)).error() from error
