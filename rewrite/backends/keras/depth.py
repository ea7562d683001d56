"""Room for Keras to build deep models: it follows a network from its end to the inputs, one nested call a layer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def room_for(calls: int) -> Iterator[None]:
    """Lets Python nest as many more calls as a network of `calls` layers needs; afterwards the limit is what it was."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 2 * calls)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
