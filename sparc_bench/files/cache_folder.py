"""The cache folder of this machine: features, decoded pixels, the chosen precision; all can be computed again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder `SPARC_BENCH_CACHE`, or `sparc-bench` in the user's cache folder.

    A user without a home (a container that runs under a bare number) has it in the folder of temporary files.
    """
    named = os.environ.get("SPARC_BENCH_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sparc-bench"
    except RuntimeError:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"sparc-bench-{user}"
