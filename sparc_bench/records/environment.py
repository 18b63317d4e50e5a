"""Environment of a run: commit of the code, versions of the libraries."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    *("torch", "timm", "open_clip_torch", "transformers", "numpy", "pillow"),
    *("pycocotools", "faster-coco-eval", "scikit-learn", "HanTa"),
)
"""Distributions whose version can move a number; those that are not installed are left out of the record."""

_CODE = ("sparc_bench", "tasks", "reference_models", "pyproject.toml")


def library_versions(names: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Versions of those of the named distributions that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@cache
def git_state() -> tuple[str, bool | None]:
    """Commit of the checkout that runs, and whether its code or cards differ from it; ("unknown", None) elsewhere."""
    checkout = Path(__file__).parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return "unknown", None
    try:
        commit = _git(checkout, "rev-parse", "HEAD")
        changes = _git(checkout, "status", "--porcelain", "--", *_CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown", None
    return commit, bool(changes)


def code_rows() -> list[tuple[str, str, str]]:
    """Rows of a table of measurements (measure, value, unit): commit of the code and versions of the libraries."""
    commit, changed = git_state()
    return [
        ("commit", f"{commit[:12]}{', changed' if changed else ''}", ""),
        ("libraries", " ".join(f"{name} {version}" for name, version in library_versions().items()), ""),
    ]


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
