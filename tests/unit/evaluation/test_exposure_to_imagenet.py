"""A model that was trained on ImageNet is not zero-shot wherever ImageNet's classes are scored."""

import re

import pytest

from sparc_bench.cards import discovery, photo_lists
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.prompts import class_list, classes_from
from sparc_bench.catalogue.origins import origins
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.evaluation.exposure import exposure
from sparc_bench.evaluation.new_record import Provenance, bare_record
from sparc_bench.images.item import ImageItem

TRUNK = ("flickr8k:train", "imagenet1k:train")
OF_IMAGENET = re.compile(r"(imagenet|objectnet|stl10)")
"""Beginning of the names of the committed tasks with ImageNet's classes; the photos of STL-10 are ImageNet's."""


def stated(name, trained_on=TRUNK, classes=(), photos=("",)):
    """What a record of a task would state."""
    task = bind(discovery.task(name))
    examples = tuple(Example(str(i), ImageItem(str(i), lambda: None), photo=each) for i, each in enumerate(photos))
    data = Examples(task.card.dataset, task.card.split, examples, classes=tuple(classes))
    card = ModelCard(name="a", title="a", family="outputs", source="a", trained_on=trained_on)
    return str(bare_record(task, data, card, 0, Provenance(""), None).exposure)


@pytest.mark.parametrize("name", discovery.names("tasks"))
def test_every_committed_task_with_imagenets_classes_says_so(name):
    found = origins(discovery.task(name))
    assert (found["classes_from"] == {"imagenet"}) == bool(OF_IMAGENET.match(name))
    assert bool(found["photos_from"]) == name.startswith("imagenet1k_sample")
    if not OF_IMAGENET.match(name):
        return
    expected = "1 images seen" if name.startswith("imagenet1k_sample") else "domain"
    assert stated(name) == stated(name, (*TRUNK, "unknown")) == expected
    assert stated(name, ("imagenet1k:val",)) == "domain"
    assert stated(name, ("flickr8k:train",)) != "domain"
    assert stated(name, ("unknown",)) == stated(name, ()) == "unknown"


def test_photos_that_are_known_are_counted():
    assert stated("imagenet1k_knn", photos=("imagenet:n01440764_36", "imagenet:ILSVRC2012_val_00000293")) == (
        "1 images seen"
    )
    assert stated("imagenet1k", photos=("imagenet:ILSVRC2012_val_00000293",)) == "domain"
    assert stated("imagenet1k", ("imagenet1k:val",), photos=("imagenet:ILSVRC2012_val_00000293",)) == "1 images seen"
    assert stated("imagenet1k_sample", photos=("",) * 3) == "3 images seen"


def test_the_larger_imagenet_holds_the_classes_too_and_perhaps_the_photos():
    assert stated("imagenet_a", ("imagenet21k:train",)) == "domain"
    assert stated("imagenet1k", ("imagenet21k:train",), photos=("imagenet:ILSVRC2012_val_00000293",)) == "domain"


def test_a_split_without_a_list_is_of_its_data_sets_photos():
    assert photo_lists.sources_of("imagenet1k:half") == {"imagenet"}
    assert photo_lists.sources_of("imagenet1k:train+val") == {"imagenet"}
    assert photo_lists.sources_of("scenes1:train") == photo_lists.sources_of("../x:y") == set()
    assert stated("objectnet", ("imagenet1k:half",)) == "domain"


def test_folders_with_wordnet_ids_are_imagenets_classes_whatever_the_card_says():
    assert classes_from(["folders"], ["n01440764", "n01443537"]) == {"imagenet"}
    assert classes_from(["folders"], ["n01440764", "mine"]) == classes_from(["own"], ["tench"]) == set()
    assert classes_from(["own"], []) == set()


def test_a_class_list_of_ones_own_says_whose_classes_it_has(tmp_path):
    card = tmp_path / "dogs.toml"
    card.write_text('source = "mine"\nclasses_from = "imagenet"\n[words]\nbeagle = "beagle"\n')
    assert classes_from([str(card)], ["beagle"]) == {"imagenet"}
    card.write_text('source = "mine"\nclasses_from = "imagnet"\n[words]\nbeagle = "beagle"\n')
    with pytest.raises(UserError, match=r"dogs\.toml: classes_from: .*source 'imagnet': did you mean 'imagenet'"):
        class_list(str(card))


def test_the_classes_go_before_photos_of_which_nobody_knows():
    assert exposure(["lvis:train", "imagenet1k:train"], "x", "y", 1, photos=["coco:9"]).kind == "unknown"
    both = exposure(["lvis:train", "imagenet1k:train"], "x", "y", 1, photos=["coco:9"], classes_from=["imagenet"])
    assert both.kind == "domain"


@pytest.mark.parametrize("name", ["flickr8k_clip", "flickr8k_sparc"])
def test_committed_models_on_an_imagenet_trunk_say_so(name):
    trained_on = discovery.model(name).model_card().trained_on
    assert stated("imagenet1k_sample", trained_on) == "1 images seen"
    assert stated("imagenet_r", trained_on) == "domain"
    assert stated("cifar10_mini", trained_on) != "domain", "its class names are no list of ImageNet's"
