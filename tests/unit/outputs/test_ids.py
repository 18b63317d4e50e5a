import pytest

from sparc_bench.errors import UserError
from sparc_bench.outputs.ids import IdMatch


def test_ids_match_exactly_else_without_suffix_and_leading_zeros():
    places = IdMatch.of(["139", "x.jpg", "b"], ["b.png", "000000000139.jpg", "x", "b", "other"], "f")
    assert places.index_of == {"139": 1, "x.jpg": 2, "b": 3}
    assert places.beyond == ("b.png", "other")
    assert places.notes("f") == ("2 images of f are not of this task and are left out (b.png, other).",)


def test_missing_images_are_counted_and_named():
    places = IdMatch.of(["a", "b", "c"], ["b"], "f")
    with pytest.raises(UserError, match=r"f lacks 2 of the task's 3 images \(a, c\): give every image its output"):
        places.refuse_missing(["a", "b", "c"], "f")
    assert IdMatch.of(["a"], ["a.JPG"], "f").notes("f") == ()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["a", "b", "a"], "f has a more than once"),
        (["7", "007.png"], None),
        (["07", "007.png"], "f has 07 and 007.png, and either could be the image 7: keep one"),
        (["x", "y"], "None of the 2 ids of f is of this task, whose ids are like a, not like x"),
    ],
)
def test_ids_that_cannot_be_told_apart(given, sentence):
    wanted = ["a", "7"]
    if sentence is None:
        assert IdMatch.of(wanted, given, "f").index_of == {"7": 0}
        return
    with pytest.raises(UserError, match=sentence):
        IdMatch.of(wanted, given, "f")


def test_entries_by_the_names_of_files():
    files = {"7": "seven.jpg", "3": "three.jpg"}
    found = IdMatch.of(["7", "3"], ["three", "seven.jpg"], "x", files)
    assert found.index_of == {"7": 1, "3": 0}
    assert IdMatch.of(["7"], ["seven.jpg", "7"], "x", files).index_of == {"7": 1}  # ids come first
