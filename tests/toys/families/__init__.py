"""A small random model of every family of encoders, one module a family, found by its name.

A module has `tiny(folder)`, which writes a model into an empty folder and returns the word that names it as MODEL.
Where a family has options under which its vectors are others, `OTHER_OPTIONS` holds some; where it needs a library that
may be missing, `LIBRARY` names it; where it looks vectors up, `OPENS_IMAGES` is False.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The families that have a small model."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")


def load(family: str) -> ModuleType:
    """The module of a family."""
    return import_module(f"{__name__}.{family}")
