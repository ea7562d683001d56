"""`python -m rewrite`, the same as the command `rewrite`."""

from __future__ import annotations

import sys

from rewrite.cli import main

if __name__ == "__main__":
    sys.exit(main())
