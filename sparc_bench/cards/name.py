"""Names of cards, runs and records: each becomes a folder or a file, and must not lead out of its place."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

LONGEST_NAME = 120
"""Bytes of a name in UTF-8, at most."""

TAKEN = ("samples", "testing", "studies", "cost")
"""Folders under `results/` that are of no model."""


def fault(name: str) -> str:
    """Reason why a name cannot be that of a folder or file, with the mending; empty for a good one.

    >>> fault("scenes_clip"), fault("ViT-B-32.v2")
    ('', '')
    >>> fault("../../evil")
    "cannot name a folder: write it with letters, digits, '_', '-' and '.', neither '-' nor '.' first"
    """
    if len(name.encode()) > LONGEST_NAME:
        return f"cannot name a folder: write it with at most {LONGEST_NAME} bytes of UTF-8"
    if not re.fullmatch(r"\w[\w.-]*", name):
        return "cannot name a folder: write it with letters, digits, '_', '-' and '.', neither '-' nor '.' first"
    if ".seed" in name:
        return "cannot name a folder: write it without .seed, which marks the folder of another seed"
    return ""


def fault_of_model(name: str) -> str:
    """Reason why a name cannot be that of a model, whose records lie in `results/NAME/`; empty for a good one."""
    return fault(name) or (
        "is a folder of results that is of no model: choose another" if name.lower() in TAKEN else ""
    )


def as_part(text: str) -> str:
    """Text with '_' for whatever the name of a file cannot hold.

    >>> as_part("gaussian_noise/3")
    'gaussian_noise_3'
    """
    return re.sub(r"[^\w.-]+", "_", text)


def _good(name: str) -> str:
    if reason := fault(name):
        raise ValueError(reason)
    return name


def _good_for_model(name: str) -> str:
    if reason := fault_of_model(name):
        raise ValueError(reason)
    return name


Name = Annotated[str, AfterValidator(_good)]
"""Type of a key whose value becomes a folder or a file."""

ModelName = Annotated[str, AfterValidator(_good_for_model)]
"""Type of a model's name, which is a folder under `results/`."""
