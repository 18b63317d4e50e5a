"""Reading of a file of outputs of any kind."""

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
    """Kind of outputs -> its module: every module of this folder with a function `parse`; no other is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    with_parse = [name for name in names if "parse" in declarations.read(f"{__package__}.{name}").names()]
    return {name: importlib.import_module(f"{__package__}.{name}") for name in with_parse}


def formats(names: Collection[str]) -> str:
    """Description of the file formats of these kinds, for messages; their modules are not imported."""
    found = [declarations.read(f"{__package__}.{name}") for name in sorted(names)]
    return "; or ".join(f"{kind.TITLE}: {kind.FORMAT}" for kind in found)


def read(path: Path, wanted: Collection[str]) -> tuple[str, Any, str]:
    """Kind, content and sha256 of a file of outputs.

    Args:
        path: file or folder.
        wanted: kinds that the task can score.

    Raises:
        UserError: the file is damaged, holds no outputs, or outputs of a kind that the task cannot score.
    """
    file = OutputsFile.open(path)
    for name, module in kinds().items():
        found = module.parse(file)
        if found is not None and name in wanted:
            return name, found, file.sha256
        if found is not None and file.rows != []:
            raise UserError(f"{path} holds {module.TITLE}, which this task does not take: give {formats(wanted)}.")
    raise UserError(f"{path} holds no known outputs: give {formats(wanted)}.")
