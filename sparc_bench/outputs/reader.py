"""The kinds of outputs that there are, and which of them a file holds."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Collection
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sparc_bench.cards import declarations
from sparc_bench.errors import UserError
from sparc_bench.outputs.outputs_file import OutputsFile


@cache
def kinds() -> dict[str, ModuleType]:
    """Name of each kind -> its module: those of this folder that recognise something."""
    folder = str(Path(__file__).parent)
    modules = {
        module.name: importlib.import_module(f"sparc_bench.outputs.{module.name}")
        for module in pkgutil.iter_modules([folder])
    }
    return {name: module for name, module in sorted(modules.items()) if hasattr(module, "parse")}


def formats(names: Collection[str]) -> str:
    """What files of these kinds look like, for a sentence; nothing is imported for it."""
    found = [declarations.read(f"{__package__}.{name}") for name in sorted(names)]
    return "; or ".join(f"{kind.TITLE}: {kind.FORMAT}" for kind in found)


def read(path: Path, wanted: Collection[str]) -> tuple[str, Any, str]:
    """The kind of a file of outputs, what it holds and its sha256.

    Args:
        path: file or folder.
        wanted: kinds that the task takes.

    Raises:
        UserError: it holds no outputs, damaged ones, or those of a kind that the task does not take.
    """
    file = OutputsFile.open(path)
    for name, module in kinds().items():
        found = module.parse(file)
        if found is not None and name in wanted:
            return name, found, file.sha256
        if found is not None:
            raise UserError(f"{path} holds {module.TITLE}, which this task does not take: give {formats(wanted)}.")
    raise UserError(f"{path} holds no outputs that are known here: give {formats(wanted)}.")
