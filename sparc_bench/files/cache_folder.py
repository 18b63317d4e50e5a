"""Where this machine keeps what can be computed again: features, decoded pixels, the choice of a precision."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`SPARC_BENCH_CACHE`, else the user's cache folder."""
    named = os.environ.get("SPARC_BENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sparc-bench"
