"""The notebooks of examples/ run, and what they show is what they give."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
SHOWN = ("execute_result", "display_data")
"""Outputs that a reader looks at; streams are progress and warnings of libraries."""


def of_all_notebooks():
    return [pytest.param(path, id=path.name) for path in NOTEBOOKS]


def shown(notebook):
    """What each cell shows, as text."""
    return [
        [each.data["text/plain"] for each in cell.outputs if each.output_type in SHOWN]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def executed(path, folder):
    """The notebook with fresh outputs, run in a folder with the package of this checkout and this interpreter."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.create_kernel_manager()
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute(env={**os.environ, "PYTHONPATH": str(ROOT)})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.output_type in SHOWN]
            cell.metadata.pop("execution", None)
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", of_all_notebooks())
def test_outputs_are_what_it_gives(path, tmp_path):
    assert shown(executed(path, tmp_path)) == shown(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", of_all_notebooks())
def test_every_cell_was_run_and_none_holds_a_path_of_a_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert any(shown(notebook))
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert str(Path.home()) not in path.read_text(encoding="utf-8")


if __name__ == "__main__":  # python -m tests.docs.test_notebooks writes the outputs again
    for each in NOTEBOOKS:
        nbformat.write(executed(each, ROOT / "examples"), each)
