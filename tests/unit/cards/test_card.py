from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from sparc_bench.cards.card import Extended, Strict
from sparc_bench.datasets.scenes1 import EDITS
from sparc_bench.datasets.scenes1 import Options as SceneOptions


class Grown(Extended):
    size: int = 3
    later: str = ""
    FORMER: ClassVar[Mapping[str, Any]] = {"later": ""}


class Table(Strict):
    inner: Grown = Grown()


@pytest.mark.parametrize("mode", ["python", "json"])
def test_a_key_that_came_later_is_dumped_where_it_changes_something(mode):
    assert Table().model_dump(mode=mode) == {"inner": {"size": 3}}
    assert Table(inner=Grown(later="x")).model_dump(mode=mode) == {"inner": {"size": 3, "later": "x"}}
    assert Grown.model_validate_json(Grown(later="x").model_dump_json()) == Grown(later="x")


def test_all_edits_in_any_order_are_no_choice():
    names = list(dict.fromkeys(edit for edit, *_ in EDITS))
    backwards = SceneOptions(kind="pairs", edits=tuple(reversed(names)))
    assert backwards == SceneOptions(kind="pairs")
    assert "edits" not in backwards.model_dump()
    assert SceneOptions(kind="pairs", edits=(names[0],)).model_dump()["edits"] == (names[0],)
