"""Examples and their facets."""

import pytest

from sparc_bench.dataset import Example
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
