"""Every card in the project: it parses, what it names exists, and its prose says what a reader needs."""

import re

import pytest

from sparc_bench.cards import discovery, photo_lists
from sparc_bench.cards.binding import bind
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cli.check import check_model, check_task, name_problems, word_list_problems

TASKS = discovery.names("tasks")
MODELS = discovery.names("models")


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_task(name):
    card = discovery.task(name)
    check_task(card)
    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert card.title
    assert "\n" not in card.title
    assert len(card.source) > 20
    assert card.suites, "a task that no suite runs is never looked at"
    task = bind(card)
    assert len(task.protocol_hash()) == 64
    assert task.protocol_hash() == bind(card).protocol_hash()
    assert task.protocol_hash() != task.protocol_hash(limit=3)


@pytest.mark.parametrize("name", TASKS)
def test_protocol_options_have_no_defaults(name):
    fields = discovery.load("protocols", discovery.task(name).protocol).Options.model_fields
    assert [key for key, field in fields.items() if not field.is_required()] == []


def test_tasks_differ_in_their_protocol():
    hashes = {name: bind(discovery.task(name)).protocol_hash() for name in TASKS}
    assert len(set(hashes.values())) == len(hashes), "two cards ask for the same"


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    card = discovery.model(name)
    check_model(card, discovery.cards_folder("reference_models"))
    assert card.title
    assert card.source
    trained_on = card.model_card().trained_on if isinstance(card, Recipe) else card.trained_on
    if isinstance(card, Recipe):
        known = discovery.names("datasets")
        assert all(each.partition(":")[0] in known or photo_lists.find(each) is not None for each in trained_on)


def test_class_lists_and_prompts():
    assert word_list_problems(discovery.cards_folder("tasks")) == []


def test_names_are_unique_over_all_kinds():
    assert name_problems() == []
