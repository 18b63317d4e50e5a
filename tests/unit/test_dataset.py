"""Examples, their facets, and examples that are made when they are asked for."""

import pickle
from dataclasses import replace

import pytest

from sparc_bench.dataset import Computed, Example, Examples, LazyExamples
from sparc_bench.errors import UserError
from sparc_bench.facets import Federated, PixelSize
from tests.toys.encoders import item


def test_a_facet_is_asked_for_by_its_type():
    example = Example("a", item("a"), facets=(PixelSize(4, 3), Federated(frozenset({1}), frozenset())))
    assert example.has(Federated)
    assert example.facet(PixelSize).width == 4
    assert example.facet(Federated).absent == {1}


def test_a_facet_that_is_missing_is_named():
    example = Example("a", item("a"), facets=(PixelSize(4, 3),))
    assert not example.has(Federated)
    with pytest.raises(UserError, match=r"example a lacks the facet Federated: .* name 'federated' in its PROVIDES"):
        example.facet(Federated)


FIELDS = ("id", "captions", "negatives", "label", "group", "photo", "tags", "regions", "semantic", "facets")


def captions_of(at):
    return (f"thing {at}",) * (1 + at % 2)


def image_of(at):
    return item("abcdef"[at])


def lazy():
    columns = {"id": list("abcdef"), "captions": Computed(6, captions_of), "group": list("xxyyzz")}
    return Examples("toy", "test", LazyExamples.of(columns, image_of))


def made():
    examples = [Example("abcdef"[at], item("abcdef"[at]), captions_of(at), group="xxyyzz"[at]) for at in range(6)]
    return Examples("toy", "test", tuple(examples))


def test_lazy_examples_are_those_that_are_made_at_once():
    assert list(lazy()) == list(made())
    assert lazy().counts() == made().counts()
    assert (lazy().captions, lazy().image_count, len(lazy())) == (made().captions, 6, 6)
    for index in (0, -1, 5):
        assert lazy()[index] == made()[index]
    for part in (slice(2), slice(4, 1, -2), slice(None, None, -1)):
        assert list(lazy()[part]) == list(made()[part])
    for field in FIELDS:
        assert list(lazy().values(field)) == list(made().values(field))
    with pytest.raises(IndexError):
        lazy()[6]


def test_parts_of_parts_stay_lazy():
    part = replace(lazy(), examples=lazy().examples[1:]).take([4, 0, 2]).take([0, 2])
    assert isinstance(part.examples, LazyExamples)
    assert list(part) == [made()[5], made()[3]] == list(made().take([1, 2, 3, 4, 5]).take([4, 2]))
    assert list(part.values("id")) == ["f", "d"]


def test_facets_of_all_examples():
    sizes = [(PixelSize(4, 3),), (), (Federated(frozenset(), frozenset()), PixelSize(5, 2))]
    data = Examples("toy", "test", LazyExamples.of({"id": list("abc"), "facets": sizes}, image_of))
    assert list(data.facets(PixelSize)) == [PixelSize(4, 3), None, PixelSize(5, 2)]
    assert list(replace(data, examples=tuple(data)).facets(PixelSize)) == list(data.facets(PixelSize))


def test_values_make_no_example():
    def refuse(at):
        raise AssertionError(at)

    data = replace(lazy(), examples=LazyExamples.of(lazy().examples.columns, refuse))
    assert list(data.values("tags")) == [{}] * 6
    assert data.counts()["captions"] == 9


def test_lazy_examples_travel_to_other_processes():
    again = pickle.loads(pickle.dumps(lazy().examples))
    assert [(each.id, each.captions) for each in again] == [(each.id, each.captions) for each in made()]
