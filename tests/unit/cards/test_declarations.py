"""Declarations are executed when they are asked for, with what they use, and nothing else is."""

import sys

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.declarations import Declarations, NotDeclaredError, read
from sparc_bench.errors import UserError

SOURCE = '''
"""A module."""

from __future__ import annotations

from typing import Literal

import heavy
from heavy import Base
from pydantic import Field, field_validator

from sparc_bench.cards.card import Strict
from sparc_bench.objectives._views import ViewOptions

LEAST = 2
MADE = heavy.made()
ORDER = sorted({3, LEAST, 1})
Way = Literal["up", "down"]
OUTPUTS = {"similarity": heavy.function, "masks": MADE}
PLAIN = {"a": 1}


def _checked(number: heavy.Number) -> heavy.Number:
    if number < LEAST:
        raise ValueError(f"must be {LEAST} or more")
    return number


def through_heavy() -> int:
    return heavy.answer()


class Options(Strict):
    """What a card decides."""

    number: int
    """so many"""
    way: Way = Field(default="up", description="which way")

    @field_validator("number")
    @classmethod
    def _enough(cls, number: int) -> int:
        return _checked(number)


class Near(Base):
    needs = frozenset({"a"})
    other = 1

    def run(self):
        return heavy.run(self)


class Objective(Near):
    Options = ViewOptions
    other = heavy.other

    @property
    def captions(self):
        return self.options.captions * LEAST
'''


@pytest.fixture
def module(tmp_path):
    (tmp_path / "some_module.py").write_text(SOURCE.lstrip())
    return Declarations("some_module", tmp_path / "some_module.py")


def test_a_name_comes_with_what_it_uses_and_nothing_else(module):
    assert module.__doc__ == "A module."
    assert module.ORDER == [1, 2, 3]
    assert "ORDER" in vars(module)
    assert "Options" not in vars(module)
    assert "heavy" not in sys.modules
    assert "some_module" not in sys.modules


def test_options_are_whole(module):
    fields = module.Options.model_fields
    assert {key: field.description for key, field in fields.items()} == {"number": "so many", "way": "which way"}
    assert module.Options(number=2).way == "up"
    with pytest.raises(ValueError, match="must be 2 or more"):
        module.Options(number=1)
    with pytest.raises(ValueError, match="'up' or 'down'"):
        module.Options(number=2, way="left")
    assert module.Options.__module__ == "some_module"
    assert "some_module" not in sys.modules


@pytest.mark.parametrize("name", ["MADE", "through_heavy", "Near", "heavy"])
def test_what_takes_more_is_refused_and_leaves_nothing_half_done(module, name):
    before = set(vars(module))
    for _ in range(2):
        with pytest.raises(NotDeclaredError):
            module.declared(name)
    assert set(vars(module)) == before


def test_what_takes_more_is_imported(module, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "heavy.py").write_text("made = list\nBase = object\nother = 3\ndef function(): return 'called'\n")
    try:
        assert module.MADE == []
        assert module.Objective.other == 3
        assert module.OUTPUTS["similarity"]() == "called"
        assert "some_module" in sys.modules
    finally:
        sys.modules.pop("some_module", None)
        sys.modules.pop("heavy", None)


def test_keys_of_a_table_of_functions_are_declared(module):
    assert sorted(module.OUTPUTS) == ["masks", "similarity"]
    assert "similarity" in module.OUTPUTS
    assert module.PLAIN == {"a": 1}
    assert "heavy" not in sys.modules


def test_members_of_a_class_that_computes(module):
    of = module.Objective
    assert of.Options.__name__ == "ViewOptions"
    assert of.needs == frozenset({"a"})
    options = type("", (), {"options": of.Options(captions=3)})()
    assert of.captions.fget(options) == 6
    assert "heavy" not in sys.modules


def test_names_that_a_module_has_not(module):
    assert not hasattr(module, "SPLITS")
    assert getattr(module, "NEEDS_ON_DISK", "") == ""


def test_modules_are_found_by_kind_and_name():
    assert discovery.declared("datasets", "scenes1").PROVIDES == read("sparc_bench.datasets.scenes1").PROVIDES
    with pytest.raises(UserError, match="There is no dataset 'scens1': did you mean 'scenes1'"):
        discovery.declared("datasets", "scens1")


def test_a_plugin_is_imported_whole(toy_plugins):
    assert discovery.declared("datasets", "toy_data") is discovery.load("datasets", "toy_data")
