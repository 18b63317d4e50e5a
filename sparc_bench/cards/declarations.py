"""Declarations of a module (constants, `Options`), read from its source without importing it, and so without torch.

A declaration and the top-level names that it uses are executed, and nothing else of the module. The imports among them
are followed: Python's own modules, numpy and pydantic are imported, modules of this package are read in the same way.
Whatever needs more, as functions do that compute with torch, comes from the imported module.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
_ROOT = Path(__file__).parents[2]

LIGHT = frozenset({*sys.stdlib_module_names, "annotated_types", "jaxtyping", "numpy", "pydantic", "pydantic_core"})
"""Modules that a declaration may import; the cards import all of them anyway."""

_FUTURE = {name: getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}


class NotDeclaredError(Exception):
    """A name whose value takes more than declarations."""


@cache
def read(name: str) -> Declarations:
    """The declarations of a module of this package, by its dotted name."""
    return Declarations(name, _file(name))


def _file(name: str) -> Path:
    path = _ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


class Declarations(ModuleType):
    """Module object that executes a name's statements when the name is asked for; other names import the module."""

    def __init__(self, name: str, file: Path) -> None:
        tree = ast.parse(file.read_bytes())
        super().__init__(name, ast.get_docstring(tree, clean=False))
        self.__file__ = str(file)
        self._flags = 0
        self._refused: set[str] = set()
        self._classes: dict[str, DeclaredClass] = {}
        self._statements: dict[str, list[ast.stmt]] = {}
        for statement in _single(tree.body):
            if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
                self._flags |= _FUTURE[statement.names[0].name]
                continue
            for bound in _bound(statement):
                self._statements.setdefault(bound, []).append(statement)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a module may hold
        if name not in self.__dict__.get("_statements", {}):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        statement = self._statements[name][-1]
        keys = _keys_of_functions(statement)
        if keys is not None:
            return _Table(self, name, keys)
        try:
            return self.declared(name)
        except NotDeclaredError:
            if not isinstance(statement, ast.ClassDef):
                return self.imported(name)
            if name not in self._classes:
                self._classes[name] = DeclaredClass(self, statement)
            return self._classes[name]

    def declared(self, name: str) -> Any:  # noqa: ANN401 - likewise
        """The value of a top-level name.

        Raises:
            NotDeclaredError: it takes more than declarations.
        """
        if name in self._refused:
            raise NotDeclaredError(name)
        before = set(self.__dict__)
        try:
            self._bind(name, set())
        except NotDeclaredError:
            self._refused.add(name)
            for half_done in self.__dict__.keys() - before:  # a function without all that it uses
                del self.__dict__[half_done]
            raise
        return self.__dict__[name]

    def imported(self, name: str) -> Any:  # noqa: ANN401 - likewise
        """The value of a top-level name in the imported module."""
        return getattr(importlib.import_module(self.__name__), name)

    def names(self) -> list[str]:
        """Every name that a top-level statement binds, in the order of the file."""
        return list(self._statements)

    def statement(self, name: str) -> ast.stmt | None:
        """The last top-level statement that binds a name; None where there is none."""
        return self._statements.get(name, [None])[-1]

    def execute(self, statement: ast.stmt, place: dict[str, Any], begun: set[str]) -> None:
        """Bind what a statement uses, and execute it with `place` as its local names.

        Raises:
            NotDeclaredError: it uses what takes more than declarations.
        """
        now, later = _used(statement)
        for used in sorted(now & self._statements.keys()):
            self._bind(used, begun)
        code = compile(ast.Module([statement], []), str(self.__file__), "exec", self._flags, dont_inherit=True)
        with self._registered():
            exec(code, self.__dict__, place)
        for used in sorted(later & self._statements.keys()):
            self._bind(used, begun)

    def _bind(self, name: str, begun: set[str]) -> None:
        if name in self.__dict__ or name in begun:
            return
        begun.add(name)
        if name not in self._statements:
            raise NotDeclaredError(name)
        for statement in self._statements[name]:
            if isinstance(statement, ast.ImportFrom) and (statement.module or "").partition(".")[0] == PACKAGE:
                self.__dict__[name] = _of_package(str(statement.module), statement.names[0].name)
            elif _is_plain(statement):
                self.execute(statement, self.__dict__, begun)
            else:
                raise NotDeclaredError(name)

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """Meanwhile Python finds this under the module's name: pydantic looks there for what annotations name."""
        if self.__name__ in sys.modules:
            yield
            return
        sys.modules[self.__name__] = self
        try:
            yield
        finally:
            del sys.modules[self.__name__]


class DeclaredClass:
    """A class that computes, such as a loss: of its members and its bases' those are at hand that are declared."""

    def __init__(self, module: Declarations, statement: ast.ClassDef) -> None:
        self._name = statement.name
        self._module = module
        self._bodies = list(_bodies(module, statement))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a class may hold
        for module, statement in self._bodies:
            own = [each for each in _single(statement.body) if name in _bound(each)]
            if own:
                place: dict[str, Any] = {}
                try:
                    for each in own:
                        module.execute(each, place, set())
                except NotDeclaredError:
                    break
                setattr(self, name, place[name])
                return place[name]
        return getattr(self._module.imported(self._name), name)


class _Table(Mapping[Any, Any]):
    """A dictionary whose keys are declared, and whose values come from the imported module."""

    def __init__(self, module: Declarations, name: str, keys: list[Any]) -> None:
        self._module, self._name, self._keys = module, name, keys

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - a dictionary's
        return self._module.imported(self._name)[key]

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[Any]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _keys_of_functions(statement: ast.stmt) -> list[Any] | None:
    """The keys of a dictionary whose values are no plain values; None for any other statement."""
    written = statement.value if isinstance(statement, ast.Assign) else None
    if not isinstance(written, ast.Dict) or not any(any(_used(value)) for value in written.values):
        return None
    try:
        return [ast.literal_eval(key) for key in written.keys if key is not None]
    except ValueError:
        return None


def _of_package(module: str, name: str) -> Any:  # noqa: ANN401 - whatever a module may hold
    """Value of `from module import name`, from the declarations of a module that is not imported yet."""
    if _file(f"{module}.{name}").is_file():
        return sys.modules.get(f"{module}.{name}") or read(f"{module}.{name}")
    there = sys.modules.get(module)
    return read(module).declared(name) if there is None else getattr(there, name)


def _bodies(module: Declarations, statement: ast.ClassDef) -> Iterator[tuple[Declarations, ast.ClassDef]]:
    """A class and its bases of this package, nearest first, each with its module."""
    yield module, statement
    for base in statement.bases:
        found = module.statement(base.id) if isinstance(base, ast.Name) else None
        if isinstance(found, ast.ClassDef):
            yield from _bodies(module, found)
        elif isinstance(found, ast.ImportFrom) and (found.module or "").partition(".")[0] == PACKAGE:
            other = read(str(found.module))
            of_other = other.statement(found.names[0].name)
            if isinstance(of_other, ast.ClassDef):
                yield from _bodies(other, of_other)


def _single(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, an import of several names as several."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (ast.copy_location(ast.Import([alias]), statement) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                yield ast.copy_location(ast.ImportFrom(statement.module, [alias], statement.level), statement)
        else:
            yield statement


def _is_plain(statement: ast.stmt) -> bool:
    """Whether a statement may be executed by itself: a definition, an assignment or the import of something light."""
    if isinstance(statement, ast.Import):
        return statement.names[0].name.partition(".")[0] in LIGHT
    if isinstance(statement, ast.ImportFrom):
        return not statement.level and (statement.module or "").partition(".")[0] in LIGHT
    return isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign)


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds where it stands."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    return {each.id for each in ast.walk(statement) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}


def _used(statement: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a statement reads when it is executed, and those that functions in it read when they are called.

    Annotations of functions are read by decorators alone (pydantic's).
    """
    now: set[str] = set()
    later: set[str] = set()
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        given = statement.args
        at_once = [*given.defaults, *(default for default in given.kw_defaults if default is not None)]
        if not isinstance(statement, ast.Lambda) and statement.decorator_list:
            named = [each.annotation for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            at_once += [*statement.decorator_list, *(each for each in (*named, statement.returns) if each is not None)]
        for part in at_once:
            now |= _used(part)[0]
        for inner in [statement.body] if isinstance(statement, ast.Lambda) else statement.body:
            later |= set().union(*_used(inner))
        return now, later
    if isinstance(statement, ast.Name) and isinstance(statement.ctx, ast.Load):
        now.add(statement.id)
    for child in ast.iter_child_nodes(statement):
        child_now, child_later = _used(child)
        now |= child_now
        later |= child_later
    return now, later
