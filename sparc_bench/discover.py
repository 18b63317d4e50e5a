"""What there is: folders are listed, a file's name is the thing's name, plug-ins add to each kind.

A plug-in is a Python module with `read` and `PROVIDES` (data set), `load` (encoder family), `Objective` (loss) or
`run` and `Options` (protocol); packages name theirs in the entry-point group `sparc_bench.plugins`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from sparc_bench.cards import ModelCard, Recipe, TaskCard, read_model, read_task
from sparc_bench.errors import UserError, nearest
from sparc_bench.study.card import StudyCard, read_study

KINDS = {"datasets": "read", "encoders": "load", "objectives": "Objective", "protocols": "run"}
"""Kind of module -> the attribute that makes a module one of it."""

_plugins: dict[str, ModuleType] = {}


def cards_folder(kind: str) -> Path:
    """`tasks` or `reference_models`: of the checkout the package runs from, else of the installed wheel."""
    package = Path(__file__).parent
    checkout = package.parent
    in_checkout = (checkout / kind).is_dir() and (checkout / "pyproject.toml").is_file()
    return checkout / kind if in_checkout else package / "_cards" / kind


def add_plugin(path: Path) -> ModuleType:
    """Load a plug-in from a Python file (`--plugin`); its name is the file's."""
    if not path.is_file():
        raise UserError(f"The plug-in {path} does not exist: check the path after --plugin.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"The plug-in {path} is no Python file: give a path that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    if not any(hasattr(module, attribute) for attribute in KINDS.values()):
        raise UserError(f"The plug-in {path} has none of {', '.join(KINDS.values())}: define the one it is for.")
    _plugins[path.stem] = module
    return module


@cache
def _installed_plugins() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group="sparc_bench.plugins")}


def names(kind: str) -> list[str]:
    """Names of all modules of a kind (`datasets`, `encoders`, `objectives`, `protocols`) or all cards of one.

    Cards are `tasks`, `models` and `studies`.
    """
    if kind == "tasks":
        return sorted(path.stem for path in cards_folder("tasks").glob("*.toml"))
    if kind == "models":
        return sorted(path.stem for path in cards_folder("reference_models").glob("*.toml"))
    if kind == "studies":
        return sorted(path.stem for path in cards_folder("reference_models").glob("studies/*.toml"))
    package = Path(__file__).parent / kind
    own = [module.name for module in pkgutil.iter_modules([str(package)]) if not module.name.startswith("_")]
    attribute = KINDS[kind]
    extra = [name for name, module in _plugins.items() if hasattr(module, attribute)]
    extra += [
        name
        for name, target in _installed_plugins().items()
        if hasattr(importlib.import_module(target.split(":")[0]), attribute)
    ]
    return sorted({*own, *extra})


def load(kind: str, name: str) -> ModuleType:
    """The module of that kind and name; raises UserError with the nearest name."""
    if name in _plugins and hasattr(_plugins[name], KINDS[kind]):
        return _plugins[name]
    known = names(kind)
    if name not in known:
        raise UserError(f"There is no {kind.removesuffix('s')} '{name}': {nearest(name, known)}")
    if name in _installed_plugins():
        return importlib.import_module(_installed_plugins()[name].split(":")[0])
    return importlib.import_module(f"sparc_bench.{kind}.{name}")


def task(name: str) -> TaskCard:
    """The task card of that name or at that path."""
    if name.endswith(".toml"):
        return read_task(Path(name))
    if name not in names("tasks"):
        raise UserError(f"There is no task '{name}': {nearest(name, names('tasks'))}")
    return read_task(cards_folder("tasks") / f"{name}.toml")


def model(name: str) -> ModelCard | Recipe:
    """The model card or recipe of that name or at that path."""
    if name.endswith(".toml"):
        return read_model(Path(name))
    if name not in names("models"):
        raise UserError(f"There is no model '{name}': {nearest(name, names('models'))}")
    return read_model(cards_folder("reference_models") / f"{name}.toml")


def recipe(name: str) -> Recipe:
    """The recipe of that name; raises UserError for a card that has nothing to train."""
    card = model(name)
    if not isinstance(card, Recipe):
        raise UserError(f"'{name}' is a checkpoint with nothing to train: use it with sparc-bench eval {name}.")
    return card


def study(name: str) -> StudyCard:
    """The study card of that name or at that path."""
    if name.endswith(".toml"):
        return read_study(Path(name))
    if name not in names("studies"):
        raise UserError(f"There is no study '{name}': {nearest(name, names('studies'))}")
    return read_study(cards_folder("reference_models") / "studies" / f"{name}.toml")


def suite(name: str) -> list[TaskCard]:
    """All tasks of a suite; raises UserError with the nearest suite."""
    cards = [task(task_name) for task_name in names("tasks")]
    members = [card for card in cards if name in card.suites]
    if not members:
        known = {member for card in cards for member in card.suites}
        raise UserError(f"There is no suite '{name}': {nearest(name, known)}")
    return members
