"""`sparc-bench data list` and `data check`, as they are typed; and the sentence of an evaluation on a wrong split."""

import pytest

from sparc_bench.cards.discovery import task
from sparc_bench.catalogue.data_card import load
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.cli.app import main
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.images.item import ImageItem


@pytest.fixture(autouse=True)
def no_data_of_the_user(monkeypatch):
    monkeypatch.delenv("SPARC_BENCH_DATA", raising=False)


def split_of(images, captions_each):
    item = ImageItem("none", lambda: None)
    captions = ("a caption",) * captions_each
    examples = tuple(Example(str(number), item, captions=captions) for number in range(images))
    return Examples("coco_captions", "val2017", examples)


def test_list_says_all_that_a_person_needs(checkout, root, capsys):
    assert main(["data", "list", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["toy", "yes"]
    facts = {line.split()[0]: line.strip() for line in out.splitlines()[1:] if line.strip()}
    assert facts["size"].endswith("12 kB")
    assert facts["licence"].endswith("CC0")
    assert facts["tasks"].endswith("2: toy_test, toy_val")
    assert facts["from"].endswith("https://example.org/toy")
    assert "toy/ with captions.txt" in facts["layout"]
    assert "images/" in facts["layout"]


def test_list_without_data_root_still_lists(checkout, capsys):
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["toy", "unknown"]
    assert "pass --data-root FOLDER or set SPARC_BENCH_DATA" in out


@pytest.mark.slow
def test_list_of_the_project_names_every_data_set(capsys):
    from sparc_bench.catalogue.data_card import names

    assert main(["data", "list"]) == 0
    starts = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()]
    assert [name for name in starts if name != "Nothing"] == names()


def test_check_prints_marks_and_its_exit_code(checkout, root, capsys):
    assert main(["data", "check", "toy", "--data-root", str(root)]) == 0
    assert "toy is in order." in capsys.readouterr().out
    (root / "toy/images/dev13.jpg").write_bytes(b"nothing")
    assert main(["data", "check", "toy", "--data-root", str(root)]) == 1
    out = capsys.readouterr().out
    assert "wrong" in out
    assert "dev13.jpg cannot be decoded" in " ".join(out.split())


def test_check_of_what_is_absent_shows_how_to_get_it(checkout, tmp_path, capsys):
    assert main(["data", "check", "toy", "--data-root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "Draw it." in captured.out
    assert "  captions.txt" in captured.out
    assert "14 images, 70 captions" in captured.out
    assert captured.err.count("\n") == 1
    assert "toy is not there" in captured.err
    assert main(["data", "check", "toys"]) == 2
    assert "did you mean 'toy'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "each", "sentence"),
    [
        (404, 1, "expects 2021 captions, but coco_captions:val2017 has 404, one caption for each image"),
        (206, 5, "expects 404 images, but coco_captions:val2017 has 206, which is instances"),
        (403, 5, "expects 404 images, but coco_captions:val2017 has 403: complete the data set"),
    ],
)
def test_an_evaluation_on_the_wrong_split_says_both_counts_and_what_it_is(images, each, sentence):
    with pytest.raises(UserError) as error:
        check_counts(task("coco_val2017_mini_retrieval"), split_of(images, each).counts())
    assert sentence in str(error.value)
    assert str(error.value).endswith("or write a task card of your own with these counts.")


def test_the_whole_in_the_place_of_a_part_is_recognised():
    whole = load("coco").splits["val2017_five"]
    with pytest.raises(UserError, match=r"has 5000, the counts of coco:val2017_five \(5,000 images, 25,000 captions\)"):
        check_counts(task("coco_val2017_mini_retrieval"), split_of(whole["images"], 5).counts())
