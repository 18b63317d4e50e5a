"""What is read of a module's source is what the imported module has, for every module of every kind."""

import json
import subprocess
import sys

import pytest

from sparc_bench.cards import discovery

pytestmark = pytest.mark.slow  # all rest on one subprocess of 9 seconds

MODULES = [(kind, name) for kind in discovery.KINDS for name in discovery.names(kind)]

COMPARED = """
import json, sys
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind, objective_options
from sparc_bench.cards.recipe import Recipe
from sparc_bench.study.study_result import sees_of

ASKED = ("TITLE", "SOURCE", "VERSION", "NEEDS", "DATA", "PROVIDES", "SPLITS", "NEEDS_ON_DISK", "OUTPUTS", "Options")
OF_A_LOSS = ("Options", "data_needs", "gives", "paths", "scored_as", "prompt_ensemble")

def asked(kind, module, names):
    found = {name: getattr(module, name) for name in ASKED if name in names} | {"doc": module.__doc__}
    if kind == "objectives":
        found |= {f"Objective.{name}": getattr(module.Objective, name) for name in OF_A_LOSS}
    return found

def comparable(name, value):
    if name.endswith("Options"):
        return value.model_json_schema(), list(value.model_fields), value.__module__
    return list(value) if name == "OUTPUTS" else value

def all_of_it(load):
    modules = {(kind, name): load(kind, name) for kind in discovery.KINDS for name in discovery.names(kind)}
    values = {key: asked(key[0], module, names[key]) for key, module in modules.items()}
    tasks = {name: bind(discovery.task(name), load).protocol_hash() for name in discovery.names("tasks")}
    recipes = [card for name in discovery.names("models") if isinstance(card := discovery.model(name), Recipe)]
    options = {recipe.name: objective_options(recipe, load).model_dump() for recipe in recipes}
    return values, tasks, options, recipes

names = {(kind, name): discovery.declared(kind, name).names()
         for kind in discovery.KINDS for name in discovery.names(kind)}
declared, declared_tasks, declared_options, recipes = all_of_it(discovery.declared)
declared_sees = {recipe.name: sees_of(recipe) for recipe in recipes}
light = "torch" not in sys.modules
imported, imported_tasks, imported_options, _ = all_of_it(discovery.load)
from sparc_bench.training.data_needs import sees_per_step as sees

print(json.dumps({
    "light": light,
    "modules": {
        "/".join(key): [name for name, value in of.items()
                        if comparable(name, value) != comparable(name, imported[key][name])]
        for key, of in declared.items()
    },
    "asked": {"/".join(key): sorted(of) for key, of in declared.items()},
    "tasks": declared_tasks == imported_tasks,
    "options": declared_options == imported_options,
    "sees": declared_sees == {recipe.name: sees(recipe) for recipe in recipes},
}))
"""


@pytest.fixture(scope="module")
def compared():
    """Declarations are read and compared in a process of their own: here the modules are imported already."""
    done = subprocess.run([sys.executable, "-c", COMPARED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_declarations_are_read_without_torch(compared):
    assert compared["light"]


@pytest.mark.parametrize(("kind", "name"), MODULES)
def test_declarations_are_what_the_imported_module_has(compared, kind, name):
    assert compared["modules"][f"{kind}/{name}"] == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("datasets", {"SPLITS", "PROVIDES", "NEEDS_ON_DISK", "Options"}),
        ("encoders", {"TITLE", "SOURCE", "VERSION"}),
        ("objectives", {"TITLE", "SOURCE", "Objective.Options"}),
        ("protocols", {"TITLE", "VERSION", "NEEDS", "DATA", "Options"}),
    ],
)
def test_what_every_module_of_a_kind_declares(compared, kind, names):
    lacking = {key: names - set(of) for key, of in compared["asked"].items() if key.startswith(f"{kind}/")}
    assert {key: missing for key, missing in lacking.items() if missing} == {}


@pytest.mark.parametrize("what", ["tasks", "options", "sees"])
def test_cards_mean_the_same_by_declarations(compared, what):
    """Protocol hashes of all tasks, options of all recipes' objectives, what a step of each recipe sees."""
    assert compared[what]
