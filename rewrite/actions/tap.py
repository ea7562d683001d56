"""`tap n = S`: the value behind a call can be looked at after each forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rewrite.edit import NewLayer
from rewrite.errors import Diagnostic
from rewrite.selectors import relation
from rewrite.source import Span

if TYPE_CHECKING:
    from rewrite.actions.site import Desk, Site


@dataclass(frozen=True)
class Tap:
    """The output of one call, available under a name; the outputs of the model stay what they are.

    What it does: an identity behind the call remembers what passes it; `get_taps(model)` tells the values.
    What can go wrong: RW205 several calls match, RW409 an operation in place writes over the value.
    """

    name: str
    span: Span
    subject: str | None = None

    @property
    def preserves(self) -> bool:
        """Whether the model computes the same numbers in eval mode, whatever it is and to rounding."""
        return True

    @property
    def preserves_training(self) -> bool:
        """Whether the same holds in training mode, gradients included, as long as new layers are in eval mode."""
        return True

    def plan(self, sites: Sequence[Site], desk: Desk) -> None:
        """Inserts the identity that remembers."""
        if len(sites) > 1:
            listed = ", ".join(f"`{site.node.name}`" for site in sites[:6])
            more = f", and {len(sites) - 6} more" if len(sites) > 6 else ""
            raise Diagnostic(
                "RW205",
                f"`tap {self.name}` needs one call, and {len(sites)} match",
                self.span,
                notes=(f"matched: {listed}{more}",),
                help="choose one: `first ...`, `last ...`, `nth(2) ...`, or a path in quotes",
            ).error()
        for site in sites:
            seed = f"{desk.text}\0{site.node.name}"
            new = NewLayer("Tap", None, (self.name,), {}, seed, self.span)
            desk.insert_behind(site, [new])
            site.changes.append(f"tap as {self.name}")
            for user in relation.leaf_consumers(desk.graph, site.node):
                if user.attributes.get("inplace") is True or user.spelling.endswith("_"):
                    desk.warnings.append(
                        Diagnostic(
                            "RW409",
                            f"`{user.name}` ({user.spelling}) works in place and overwrites the tapped value",
                            self.span,
                            notes=(f"`tap {self.name}` shows what `{site.node.name}` made after that has happened",),
                            help=f'stop it: `at "{user.name}": set self.inplace = false`',
                        )
                    )
