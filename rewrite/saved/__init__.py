"""Reading and writing model files, one module per format. Nothing here loads torch before a model is asked for.

A model file from a stranger is data: what a file holds is decided by its content, never by its suffix, nothing is
unpickled without an allow-list, and there is no second attempt that is less strict than the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rewrite.errors import Diagnostic

if TYPE_CHECKING:
    from rewrite.saved.output import Output

__all__ = ["notes_on", "read_model", "write_model"]


def read_model(spec: str, *, allow: Sequence[str] = (), seed: int = 0) -> Any:
    """The model that the command line names.

    Args:
        spec: `torchvision:NAME`, `torchvision:NAME@WEIGHTS`, or the path of a whole module that `torch.save` wrote, or
            of a `.keras` file.
        allow: dotted names of further classes that the file may hold; their modules are imported.
        seed: of the first weights, where a builder makes the model without weights.

    Raises:
        SafetyError: RW502 the file holds code, RW504 it cannot be read, RW505 there is no such builder.

    """
    from rewrite.saved.builder import build, is_builder

    if is_builder(spec):
        return build(spec, seed=seed)
    from rewrite.saved.content import Content, content_of

    if content_of(spec) is Content.KERAS:
        from rewrite.saved.keras_file import read_keras

        return read_keras(spec, allow=allow)
    from rewrite.saved.whole_module import read_whole_module

    return read_whole_module(spec, allow=allow)


def write_model(model: Any, output: Output, *, allow: Sequence[str] = ()) -> str:
    """Writes `model` to `output`, all of it or nothing.

    Args:
        model: what to write.
        output: where, from `rewrite.saved.output.check_output`, which comes before all other work.
        allow: as for `read_model`: what the check that the file reads back may meet.

    Returns:
        Why the file could not be checked by reading it back; empty: it was.

    Raises:
        SafetyError: RW503 or RW506; whatever was at the place before is then still there.

    """
    from rewrite.backends import backend_for

    framework = backend_for(model).name
    if (framework == "keras") != (output.suffix == ".keras"):
        forms = "`.keras`" if framework == "keras" else "`.pt`, `.pth` or `.safetensors`"
        raise Diagnostic(
            "RW506",
            f"output `{output.name}`: a model of {framework} is not written in this form",
            help=f"name it {forms}",
        ).error()
    if framework == "keras":
        from rewrite.saved.keras_file import write_keras

        return output.write(lambda path: write_keras(model, path, allow=allow))
    if output.suffix == ".safetensors":
        from rewrite.saved.safetensors_file import write_safetensors

        return output.write(lambda path: write_safetensors(model, path))
    from rewrite.saved.whole_module import write_whole_module

    return output.write(lambda path: write_whole_module(model, path, allow=allow))


def notes_on(model: Any) -> list[str]:
    """What of a model other programs do not find in its file."""
    from rewrite.backends import backend_for

    if backend_for(model).name != "keras":
        return []
    from rewrite.saved.keras_file import renamed_outputs, woken

    return [note for note in (renamed_outputs(model), woken(model)) if note]


def unreadable(message: str, *notes: str, help: str = "") -> Diagnostic:
    """RW504: the model cannot be read."""
    return Diagnostic("RW504", message, notes=notes, help=help)
