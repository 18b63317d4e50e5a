"""The cache folder of this machine: features, decoded pixels, the chosen precision; all can be computed again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder `SPARC_BENCH_CACHE`, or `sparc-bench` in the user's cache folder."""
    named = os.environ.get("SPARC_BENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sparc-bench"
