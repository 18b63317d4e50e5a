"""Numbers of cards: every one has a least and a greatest value, and what lies outside is refused by name."""

import copy
import math

import pytest
from pydantic import BaseModel, ValidationError

from sparc_bench.cards import discovery
from sparc_bench.cards.bounds import bounds, in_words, is_number
from sparc_bench.cards.card import parse, read_toml
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.study_card import StudyCard
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.data_card import DataCard
from sparc_bench.cli.app import main
from sparc_bench.errors import UserError
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.tokenizer import Tokenizer


def options_of_modules():
    """The options of every module in the folders of the package."""
    for kind in discovery.KINDS:
        for name in discovery.names(kind):
            module = discovery.load(kind, name)
            found = getattr(module, "Options", None) or getattr(getattr(module, "Objective", None), "Options", None)
            if found is not None:
                yield pytest.param(found, id=f"{kind}.{name}")


OPTIONS = list(options_of_modules())


def tables(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in getattr(annotation, "__args__", ()) for table in tables(part)]


def numbers(table, prefix=""):
    """Dotted key and field of every number in a table and those within it."""
    for key, field in table.model_fields.items():
        if is_number(field.annotation):
            yield f"{prefix}{key}", field
        for inner in tables(field.annotation):
            yield from numbers(inner, f"{prefix}{key}.")


@pytest.mark.parametrize("table", [Recipe, ModelCard, TaskCard, StudyCard, DataCard, *OPTIONS])
def test_every_number_has_both_ends(table):
    assert [key for key, field in numbers(table) if not in_words(field)] == []


CARDS = discovery.cards_folder("reference_models")
RECIPE = {"name": "mine", "validate": {"tasks": ["scenes_retrieval"]}, **read_toml(CARDS / "scenes_clip.toml")}
LEAVES = dict(numbers(Recipe))


def changed(values, key, value):
    """A copy of a recipe's tables with one dotted key set to a value."""
    copied = copy.deepcopy(values)
    *way, last = key.split(".")
    table = copied
    for part in way:
        table = table.setdefault(part, {})
    table[last] = value
    return copied


def absurd(field):
    """Values outside of a number's bounds, and what is no number at all."""
    yield from (float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 10**400, [], "many")
    for each in bounds(field):
        yield from (each.ge - 1 for _ in [0] if hasattr(each, "ge"))
        yield from (each.gt for _ in [0] if hasattr(each, "gt"))
        yield from (each.le * 2 for _ in [0] if hasattr(each, "le"))
        yield from (each.lt for _ in [0] if hasattr(each, "lt"))


def _length(key):
    """Numbers that a field takes in a row; 0 for a single one."""
    several = {"optim.betas": 2, "image.mean": 3, "image.std": 3, "image.out_indices": 1}
    return several.get(key, 3 if key.startswith("probe.") else 0)


@pytest.mark.parametrize("key", LEAVES)
def test_an_absurd_number_in_a_recipe_is_refused_by_name(key):
    for value in absurd(LEAVES[key]):
        values = (value,) * repeated if (repeated := _length(key)) else value
        with pytest.raises(UserError, match=key.rpartition(".")[2]):
            parse(Recipe, changed(RECIPE, key, values), "mine.toml")


@pytest.mark.parametrize("table", OPTIONS)
def test_an_absurd_option_is_refused_by_name(table):
    for key, field in numbers(table):
        endless = any(getattr(each, "le", None) == math.inf for each in bounds(field))  # a vote of all alike
        for value in (float("nan"), -1e300, *([] if endless else [1e300])):
            for given in (value, (value, value), {"x": value}):
                with pytest.raises(ValidationError) as error:
                    table.model_validate({key: given})
                assert any(each["loc"][0] == key for each in error.value.errors()), f"{key} took {given}"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image.patch": 7}, "size 64 is no multiple of patch 7"),
        ({"image.size": 4096, "image.patch": 1}, "16,777,216 patches are above the 65,536"),
        ({"image.width": 97}, "width 97 is no multiple of heads 3"),
        ({"text.width": 65}, "width 65 is no multiple of heads 2"),
        ({"image.width": 16383, "image.depth": 256}, "825 billion parameters"),
        ({"text.width": 16384, "text.vocabulary": 1_000_000, "text.depth": 12}, "55 billion parameters"),
        ({"optim.warmup": 300}, "must be under steps"),
    ],
)
def test_numbers_that_do_not_fit_each_other(changes, sentence):
    values = RECIPE
    for key, value in changes.items():
        values = changed(values, key, value)
    with pytest.raises(UserError, match=sentence):
        parse(Recipe, values, "mine.toml")


def test_a_size_that_timm_would_cut_is_refused():
    values = changed(changed(RECIPE, "image.patch", None), "image.size", 70)
    recipe = parse(Recipe, values, "mine.toml")
    with pytest.raises(UserError, match=r"have 16 x 16 pixels, of which image.size \(70\) is no multiple"):
        build_model(recipe, Tokenizer(56), 0)


@pytest.mark.parametrize("name", ["scenes_clip", "scenes_sparc"])
def test_show_prints_the_bounds(name, capsys):
    assert main(["show", name]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "peak learning rate of heads and towers; above 0 to 100" in shown
    assert "squashed to it; a pretrained model has timm's by default; 1 to 4,096" in shown


def test_show_prints_the_bounds_of_a_loss(capsys):
    assert main(["show", "sparc"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "joint width d (section D.1: 512); 1 to 16,384 [int]" in shown
    assert "0 to 1 [float | None]" in shown
