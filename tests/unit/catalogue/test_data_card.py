"""The cards: strict, unique, and every task that reads from disk has one."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.task_card import read_task
from sparc_bench.catalogue.data_card import cards_of_task, load, load_all, names, read_card, tasks_by_card
from sparc_bench.catalogue.presence import presence
from sparc_bench.catalogue.problems import catalogue_problems
from sparc_bench.errors import UserError


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_catalogue_of_the_project_is_whole():
    assert catalogue_problems(discovery.cards_folder("tasks")) == []
    assert {"coco", "flickr8k", "imagenet1k", "scenes1"} <= set(names())


def test_every_task_has_one_card():
    cards = load_all()
    for name in discovery.names("tasks"):
        assert len(cards_of_task(discovery.task(name), cards)) == 1, name


def test_counts_that_are_well_known():
    coco = load("coco").splits
    assert coco["val2017"]["captions"] + coco["train2017"]["captions"] == 616767
    assert coco["val2014"]["captions"] + coco["train2014"]["captions"] == 616767
    karpathy = [coco[f"karpathy_{split}"] for split in ("train", "restval", "val", "test")]
    assert sum(split["captions"] for split in karpathy) == 616767
    assert sum(split["images"] for split in karpathy) == coco["val2014"]["images"] + coco["train2014"]["images"]
    groups = load("sugar_crepe").splits["test"]
    assert (
        sum(number for name, number in groups.items() if name.partition("_")[0] in ("add", "replace", "swap")) == 7511
    )


def test_a_misspelt_name_is_answered_with_the_nearest(checkout):
    with pytest.raises(UserError, match=r"no data set 'toys': did you mean 'toy'\?"):
        load("toys")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("licence =", "license =", "did you mean 'licence'"),
        ('"Flickr_8k.devImages.txt" = ""', '"Flickr_8k.devImages.txt" = "abc"', "has not 64 digits"),
        ('folder = "toy"', 'folder = "../toy"', "no path inside the data root"),
        ('folders = ["images"]', 'folders = ["/images"]', "no path inside the data root"),
        ("layout = '''", "notes = '''", "'layout' is missing"),
    ],
)
def test_a_card_that_does_not_fit(checkout, old, new, sentence):
    path = checkout / "data" / "toy.toml"
    edit(path, old, new)
    with pytest.raises(UserError, match=sentence) as error:
        read_card(path)
    assert str(path) in str(error.value)
    assert catalogue_problems(checkout)[0] == str(error.value)


def test_problems_of_the_catalogue(checkout):
    assert catalogue_problems(checkout) == []
    path = checkout / "data" / "toy.toml"
    edit(path, 'readers = ["flickr8k"]', 'readers = ["flickr8k", "flicker8k"]\npart_of = "tory"')
    (checkout / "data" / "twin.toml").write_text((path).read_text().replace("tory", "toy"))
    found = "\n".join(catalogue_problems(checkout))
    assert "there is no reader 'flicker8k': did you mean 'flickr8k'?" in found
    assert "there is no data set 'tory': did you mean 'toy'?" in found
    assert "its folder toy is that of twin too" in found
    assert "Task toy_test: one card of tasks/data has to describe" in found
    assert "toy, twin all do" in found


def test_a_task_without_card_and_one_that_disagrees_with_it(checkout):
    edit(checkout / "toy_test.toml", 'folder = "toy"', 'folder = "elsewhere"')
    edit(checkout / "toy_val.toml", "images = 14", "images = 13")
    test, val = catalogue_problems(checkout)
    assert "none does: write tasks/data/NAME.toml" in test
    assert "expects 13 images, 70 captions, which is no published split of tasks/data/toy.toml" in val


def test_a_sample_may_have_counts_of_its_own(checkout):
    edit(checkout / "toy_val.toml", "images = 14", "images = 13")
    edit(checkout / "toy_val.toml", "suites", "sample = true\nsuites")
    assert catalogue_problems(checkout) == []


def test_home_is_the_innermost_folder_and_photos_elsewhere_count_too(checkout):
    cards = load_all()
    toy = cards[0]
    inner = toy.model_copy(update={"name": "inner", "folder": "toy/inner"})
    task = read_task(checkout / "toy_test.toml")
    inside = task.model_copy(update={"data": {"folder": "toy/inner/deep"}})
    assert cards_of_task(task, [toy, inner]) == [toy]
    assert cards_of_task(inside, [toy, inner]) == [inner]
    beside = task.model_copy(update={"data": {"folder": "elsewhere", "images": "toy/images"}})
    assert cards_of_task(beside, [toy]) == []
    named = [each.model_copy(update={"name": name}) for name, each in (("a", task), ("b", inside), ("c", beside))]
    assert tasks_by_card(named, [toy, inner]) == {"toy": ["a", "c"], "inner": ["b"]}


def test_presence(checkout, root, tmp_path):
    toy = load("toy")
    assert presence(toy, None).status == "unknown"
    assert presence(toy, tmp_path).status == "no"
    assert presence(toy, root).status == "yes"
    (root / "toy/captions.txt").unlink()
    assert presence(toy, root).status == "partly (4 of 5)"
    assert presence(toy, root).absent == ("captions.txt",)
    other = toy.model_copy(update={"folder": "elsewhere", "instead": "toy"})
    assert presence(other, root).status == "yes"
    assert presence(toy.model_copy(update={"folder": ""}), None).status == "built in"
