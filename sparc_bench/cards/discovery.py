"""Discovery of modules and cards: folders are listed, a file's name is the thing's name, plug-ins add to each kind.

A plug-in is a Python module with `read` and `PROVIDES` (data set), `load` (encoder family), `Objective` (loss) or
`score` and `Options` (protocol); packages name theirs in the entry-point group `sparc_bench.plugins`. Its name is one
that nothing else has, neither here nor in Python.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.machinery import BuiltinImporter, PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from sparc_bench.cards import declarations
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe, read_model
from sparc_bench.cards.study_card import StudyCard, read_study
from sparc_bench.cards.task_card import TaskCard, read_task
from sparc_bench.errors import UserError, nearest

KINDS = {"datasets": "read", "encoders": "load", "objectives": "Objective", "protocols": "score"}
"""Kind of module -> the attribute that makes a module one of it."""

_plugins: dict[str, ModuleType] = {}
_plugin_folders: set[str] = set()


def cards_folder(kind: str) -> Path:
    """`tasks` or `reference_models`: of the checkout the package runs from, else of the installed wheel."""
    package = Path(__file__).parents[1]
    checkout = package.parent
    in_checkout = (checkout / kind).is_dir() and (checkout / "pyproject.toml").is_file()
    return checkout / kind if in_checkout else package / "_cards" / kind


def add_plugin(path: Path) -> ModuleType:
    """Load a plug-in from a Python file (`--plugin`); its name is the file's. One that is loaded stays as it is.

    Raises:
        UserError: no such file, one that cannot be imported or is no plug-in, a name that something else has.
    """
    if not path.is_file():
        raise UserError(f"The plug-in {path} does not exist: check the path.")
    path = path.resolve()
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise UserError(
            f"The plug-in {path} is no Python file that can be imported: give it a name such as my_model.py."
        )
    if path.stem in _plugins and _plugins[path.stem].__file__ == str(path):
        return _plugins[path.stem]
    _refuse_taken_name(path)
    if str(path.parent) not in sys.path:
        _plugin_folders.add(str(path.parent))
        sys.path.append(str(path.parent))  # where worker processes find it by its name
    module = _executed(path)
    if not any(hasattr(module, attribute) for attribute in KINDS.values()):
        raise UserError(f"The plug-in {path} has none of {', '.join(KINDS.values())}: define the one it is for.")
    _plugins[path.stem] = module
    return module


def plugin_code(name: str) -> str | None:
    """Sha256 of a plug-in's file, with the version of its package; None for a module of this package."""
    point = _installed_plugins().get(name)
    if name in _plugins:
        module, version = _plugins[name], ""
    elif point is not None:
        module, version = _imported(point), "" if point.dist is None else point.dist.version
    else:
        return None
    content = Path(module.__file__).read_bytes() if module.__file__ else b""
    return hashlib.sha256(version.encode() + content).hexdigest()


def refuse_misspelt_code(path: Path) -> None:
    """Raise UserError for a file whose text is no Python; it is not executed."""
    if not path.is_file():
        return
    try:
        with warnings.catch_warnings(action="ignore"):  # which its execution says
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _misspelt(path.resolve(), error) from None


def _misspelt(path: Path, error: SyntaxError) -> UserError:
    return UserError(f"The plug-in {path} has a mistake in line {error.lineno} ({error.msg}): mend it.")


def _executed(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[path.stem]
        if before is not None:
            sys.modules[path.stem] = before
        if isinstance(error, SyntaxError):
            raise _misspelt(path, error) from None
        if isinstance(error, ImportError):
            raise UserError(f"The plug-in {path} cannot be imported ({error}): install what it needs.") from error
        raise
    return module


def _refuse_taken_name(path: Path) -> None:
    """Raise UserError where a module of this package, of Python or of another plug-in has the name."""
    name = path.stem
    kind = next((kind for kind in KINDS if name in _own_names(kind)), None)
    if kind is not None:
        raise UserError(f"The plug-in {path} has the name of one of the {kind} here: rename the file.")
    elsewhere = [folder for folder in sys.path if folder not in _plugin_folders]
    spec = BuiltinImporter.find_spec(name) or PathFinder.find_spec(name, elsewhere)
    origin = _plugins[name].__file__ if name in _plugins else spec.origin if spec is not None else None
    if origin is not None and (origin == "built-in" or Path(origin).resolve() != path):
        raise UserError(f"The plug-in {path} has the name of another module ({origin}): rename the file.")


@cache
def _installed_plugins() -> dict[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group="sparc_bench.plugins"):
        other = points.setdefault(point.name, point)
        if other is not point:
            both = f"{_package(other)} and {_package(point)}"
            raise UserError(f"The installed plug-in '{point.name}' is of both {both}: uninstall one of them.")
        kind = next((kind for kind in KINDS if point.name in _own_names(kind)), None)
        if kind is not None:
            raise UserError(
                f"The plug-in '{point.name}' of {_package(point)} has the name of one of the {kind} here: uninstall it."
            )
    return points


def _imported(point: EntryPoint) -> ModuleType:
    try:
        return importlib.import_module(point.module)
    except ImportError as error:
        raise UserError(
            f"The plug-in '{point.name}' of {_package(point)} cannot be imported ({error}): install what it needs, or "
            f"uninstall {_package(point)}."
        ) from error


def _package(point: EntryPoint) -> str:
    return point.value if point.dist is None else point.dist.name


def _own_names(kind: str) -> list[str]:
    package = Path(__file__).parents[1] / kind
    return [module.name for module in pkgutil.iter_modules([str(package)]) if not module.name.startswith("_")]


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
    attribute = KINDS[kind]
    extra = [name for name, module in _plugins.items() if hasattr(module, attribute)]
    extra += [name for name, point in _installed_plugins().items() if hasattr(_imported(point), attribute)]
    return sorted({*_own_names(kind), *extra})


def load(kind: str, name: str) -> ModuleType:
    """The module of that kind and name; raises UserError with the nearest name."""
    if name in _plugins and hasattr(_plugins[name], KINDS[kind]):
        return _plugins[name]
    known = names(kind)
    if name not in known:
        hint = nearest(name, known, f"sparc-bench list {kind}")
        raise UserError(f"There is no {kind.removesuffix('s')} '{name}': {hint}")
    if name in _installed_plugins():
        return _imported(_installed_plugins()[name])
    return importlib.import_module(f"sparc_bench.{kind}.{name}")


def declared(kind: str, name: str) -> ModuleType:
    """Declarations of the module of that kind and name, read without importing it; see `declarations`.

    Raises:
        UserError: no such module.
    """
    module = f"sparc_bench.{kind}.{name}"
    if name in _plugins or name not in _own_names(kind) or module in sys.modules:
        return load(kind, name)
    return declarations.read(module)


def needs_on_disk(dataset: str) -> str:
    """Files that a data set reads below the data root, in words; empty for none, and for a plug-in that names none."""
    needs: str = getattr(declared("datasets", dataset), "NEEDS_ON_DISK", "")
    return needs


def task(name: str) -> TaskCard:
    """The task card of that name or at that path."""
    if name.endswith(".toml"):
        return read_task(Path(name))
    if name not in names("tasks"):
        raise UserError(f"There is no task '{name}': {nearest(name, names('tasks'), 'sparc-bench list tasks')}")
    return read_task(cards_folder("tasks") / f"{name}.toml")


def model(name: str) -> ModelCard | Recipe:
    """The model card or recipe of that name or at that path."""
    if name.endswith(".toml"):
        return read_model(Path(name))
    if name not in names("models"):
        raise UserError(f"There is no model '{name}': {nearest(name, names('models'), 'sparc-bench list models')}")
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
        raise UserError(f"There is no study '{name}': {nearest(name, names('studies'), 'sparc-bench list studies')}")
    return read_study(cards_folder("reference_models") / "studies" / f"{name}.toml")


def suite(name: str) -> list[TaskCard]:
    """All tasks of a suite; raises UserError with the nearest suite."""
    cards = [task(task_name) for task_name in names("tasks")]
    members = [card for card in cards if name in card.suites]
    if not members:
        known = {member for card in cards for member in card.suites}
        raise UserError(f"There is no suite '{name}': {nearest(name, known, 'sparc-bench list tasks')}")
    return members


def chosen(tasks: Iterable[str | TaskCard], suites: Iterable[str] = ()) -> list[TaskCard]:
    """The tasks of suites, then single ones (names, paths of cards, or cards), each once.

    Raises:
        UserError: a name that nothing has.
    """
    cards = {card.name: card for name in suites for card in suite(name)}
    cards |= {card.name: card for card in (each if isinstance(each, TaskCard) else task(each) for each in tasks)}
    return list(cards.values())
