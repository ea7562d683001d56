"""The long form of every diagnostic code: what it means, an example that causes it, and the same put right.

One file per hundred codes. Nothing but `rewrite explain` and the documentation imports this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rewrite.explanations.explanation import Example, Explanation
from rewrite.explanations.hints import HINTS
from rewrite.explanations.names import NAMES
from rewrite.explanations.plans import PLANS
from rewrite.explanations.safety import SAFETY
from rewrite.explanations.sites import SITES
from rewrite.explanations.text import TEXT

__all__ = ["EXPLANATIONS", "Example", "Explanation"]

EXPLANATIONS: Mapping[str, Explanation] = MappingProxyType(
    {**TEXT, **NAMES, **SITES, **PLANS, **HINTS, **SAFETY},
)
"""code -> its explanation, in the order of the codes"""
