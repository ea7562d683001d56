"""`wrap S with F(...)`: the matched layer inside of another one, at the same path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rewrite import edit
from rewrite.actions.action import LayerSpec
from rewrite.errors import Diagnostic
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Wrap:
    """`F(layer, ...)` in the place of each matched layer.

    What it does: the class gets the layer itself as its first argument, then the arguments that the rule gives; what
    calls the layer now calls `F`. The layer keeps its weights; their keys move to where `F` keeps it.
    What can go wrong: RW320 a function is no layer, RW313 the layer is called at further places.
    """

    layer: LayerSpec
    span: Span
    subject: str | None = None

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return self.layer.preserves

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return self.preserves

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """One edit for each layer."""
        done: dict[str, edit.NewLayer] = {}
        matched = {site.node.index for site in sites}
        for site in sites:
            node, layer = site.node, site.node.layer
            if layer is None:
                raise Diagnostic(
                    "RW320",
                    f"`{node.name}` ({node.spelling}) is a function, and only a layer can be wrapped",
                    self.span,
                    help="name the spelling that is a layer, such as `nn.ReLU`, or use `replace` or `insert`",
                ).error()
            if not layer.path:
                raise Diagnostic(
                    "RW320",
                    "the model itself cannot be wrapped by a rule",
                    self.span,
                    help="wrap it in Python: `F(apply_rules(model, ...))`",
                ).error()
            if layer.path not in done:
                calls = desk.calls.get(layer.path, ())
                missing = [call for call in calls if call.index not in matched and call.mode == node.mode]
                if missing:
                    raise Diagnostic(
                        "RW313",
                        f"`{layer.path}` is called {len(calls)} times, and {len(missing)} of these calls "
                        f"{'is' if len(missing) == 1 else 'are'} not matched",
                        self.span,
                        notes=("a wrapped layer is wrapped for all of its calls",),
                        help=f'match all calls of the layer, or name it by its path, `"{layer.path}"`',
                    ).error()
                new = replace(desk.wrapper(self.layer, site), wraps=True)
                done[layer.path] = new
                desk.edits.append(edit.Replace(layer, (new,), calls))
            site.changes.append(f"wrap in {done[layer.path]}")
