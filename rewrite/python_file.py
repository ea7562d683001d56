"""A Python file that `use` names, as a module.

It is loaded from the text that was read through `containment`, never from byte code beside it, and nothing is written
there. Where the program has imported that file already, under whatever name, that module is used, so that `my.SEBlock`
is the class that the model was made with. A file that was loaded here is run anew when its text has changed.

The module's name is that of the file, `layers`, if `import layers` would find this very file or nothing at all; else a
part that depends on its path is added, `layers_1f6c2b9e`. It stays in `sys.modules`. So its classes pickle, and the
pickle loads wherever `import layers` finds the file, in the second case only where the same path was loaded before.
The file's folder is not put on `sys.path`: a file that needs its neighbours belongs in a package
(`use my_package.layers as my`).
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import keyword
import linecache
import os
import sys
import threading
from types import ModuleType

_LOCK = threading.RLock()  # a file may itself apply rules while it is run


class _Loader:
    """Runs the text that was read, whatever the file holds by then."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path, self.data = path, data

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """None: a module as any other."""

    def exec_module(self, module: ModuleType) -> None:
        code = compile(self.data, self.path, "exec", dont_inherit=True)
        exec(code, module.__dict__)


def run(path: str, data: bytes) -> ModuleType:
    """The module of the file at a real path: one that is there already, or a new one."""
    with _LOCK:
        known = _imported(path)
        loader = getattr(known, "__loader__", None)
        if known is not None and not (isinstance(loader, _Loader) and loader.data != data):
            return known
        name = _free_name(path, known)
        runner = _Loader(path, data)  # no subclass of `importlib.abc.Loader`, whose import takes longer than the rest
        spec = importlib.machinery.ModuleSpec(name, runner, origin=path)  # type: ignore[arg-type]
        spec.has_location = True  # so that the module has a `__file__`, and tracebacks and `inspect` show its lines
        module = importlib.util.module_from_spec(spec)
        linecache.checkcache(path)
        before = sys.modules.get(name)
        sys.modules[name] = module  # while it is run, because dataclasses and pickles look there
        try:
            runner.exec_module(module)
        except BaseException:
            if before is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = before
            raise
        return sys.modules[name]


def _imported(path: str) -> ModuleType | None:
    """The module that a file was imported as; `__main__` only where it is that alone."""
    found: ModuleType | None = None
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")  # a module may do anything when it is asked
        if (
            isinstance(file, str)
            and os.path.basename(file) == os.path.basename(path)
            and os.path.realpath(file) == path
        ):
            if name != "__main__":
                return module
            found = module
    return found


def _free_name(path: str, known: ModuleType | None) -> str:
    """The name for the module of a file."""
    if known is not None:
        return known.__name__
    name = os.path.basename(path).removesuffix(".py")
    if name.isidentifier() and not keyword.iskeyword(name) and name not in sys.modules:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return name
        if spec is None or os.path.realpath(spec.origin or "") == path:
            return name
    return f"{name}_{hashlib.sha256(path.encode()).hexdigest()[:8]}"
