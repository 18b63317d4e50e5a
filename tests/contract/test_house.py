"""The house holds: private modules stay in their folder, files stay short, tests mirror the package."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sparc_bench").rglob("*.py"))


def imported(file):
    """Every module of the package that a file imports, or imports a name from."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_private_modules_are_imported_within_their_folder_alone(file):
    own = list(file.relative_to(ROOT).parent.parts)
    for name in imported(file):
        parts = name.split(".")
        for place, part in enumerate(parts):
            module = ROOT.joinpath(*parts[: place + 1]).with_suffix(".py")
            if parts[0] == "sparc_bench" and part.startswith("_") and not part.startswith("__") and module.is_file():
                assert parts[:place] == own, f"{file} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_is_long(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


def test_unit_tests_lie_in_folders_of_the_package():
    folders = {path.name for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir() and path.name[0] != "_"}
    package = {path.name for path in (ROOT / "sparc_bench").iterdir() if path.is_dir()}
    assert folders <= package, folders - package


def test_files_of_a_folder_import_each_other_in_no_circle():
    module_of = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    imports = {
        name: {found for found in imported_modules(file, module_of) if found != name}
        for name, file in module_of.items()
    }
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle


def imported_modules(file, module_of):
    """Modules that a file imports when it is itself imported, or within a function."""
    for name in imported(file):
        yield from (found for found in (name, name.rpartition(".")[0]) if found in module_of)
