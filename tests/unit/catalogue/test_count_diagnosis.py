"""Counts that are wrong give away what lies on disk."""

import pytest

from sparc_bench.catalogue.count_diagnosis import Diagnosis, diagnose, in_words, same_split

FLICKR30K = {
    "train": {"images": 29000, "captions": 145000},
    "val": {"images": 1014, "captions": 5070},
    "test": {"images": 1000, "captions": 5000},
}
COCO = {
    "val2017": {"images": 5000, "captions": 25014, "regions": 36781, "classes": 80},
    "train2017": {"images": 118287, "captions": 591753, "classes": 80},
    "karpathy_val": {"images": 5000, "captions": 25010},
    "karpathy_test": {"images": 5000, "captions": 25010},
}
VAL2017 = {"images": 5000, "captions": 25014}


def counts(images, captions=0, **others):
    return {"images": images, "captions": captions, "negatives": 0, "classes": 0, "regions": 0, **others}


def test_val_for_test():
    seen = diagnose({"images": 1000, "captions": 5000}, counts(1014, 5070), FLICKR30K)
    assert seen == Diagnosis("which is val (1,014 images, 5,070 captions)", "put test in its place")


def test_train2017_for_val2017():
    seen = diagnose(VAL2017, counts(118287, 591753), COCO)
    assert seen.what.startswith("which is train2017 (118,287 images, 591,753 captions")
    assert seen.fix == "put val2017 in its place"


def test_train2017_cut_to_five_captions_has_its_number_of_images():
    seen = diagnose({"images": 5000, "captions": 25000}, counts(118287, 591435), COCO)
    assert seen.what.startswith("as many images as train2017")


def test_karpathys_split_for_val2017_names_both_that_have_these_counts():
    seen = diagnose(VAL2017, counts(5000, 25010), COCO)
    assert seen == Diagnosis(
        "which is karpathy_val or karpathy_test (5,000 images, 25,010 captions)", "put val2017 in its place"
    )


@pytest.mark.parametrize("expected", [VAL2017, {"images": 5000, "captions": 25000}])
def test_one_caption_for_five(expected):
    seen = diagnose(expected, counts(5000, 5000), COCO)
    assert seen == Diagnosis("one caption for each image where five were published", "read all the captions")


def test_every_caption_as_an_image():
    seen = diagnose({"images": 1000, "captions": 5000}, counts(5000, 5000), FLICKR30K)
    assert seen.what == "every caption an image of its own, where an image has five"


def test_five_captions_for_all_and_all_for_five():
    fewer = diagnose(VAL2017, counts(5000, 25000), COCO)
    assert fewer.what == "five captions for each image where some have more"
    more = diagnose({"images": 5000, "captions": 25000}, counts(5000, 25014), COCO)
    assert (more.what, more.fix) == ("more than five captions for some images", "read five of each image")


def test_objects_of_another_split_are_told_without_captions():
    seen = diagnose({"images": 5000, "regions": 36781}, counts(118287, regions=860001, classes=80), COCO)
    assert seen.what.startswith("which is train2017")


def test_another_data_set_is_named_by_two_counts_only():
    others = {"cifar10:test": {"images": 10000, "classes": 10}, "pope:test": {"images": 500}}
    own = {"val": {"images": 50000, "classes": 1000}}
    expected = own["val"]
    seen = diagnose(expected, counts(10000, classes=10), own, others)
    assert seen == Diagnosis("the counts of cifar10:test (10,000 images, 10 classes)", "put val in its place")
    assert diagnose(expected, counts(500, classes=3), own, others) is None


def test_counts_that_nobody_published_say_nothing():
    assert diagnose(VAL2017, counts(4999, 25009), COCO) is None
    assert diagnose({"images": 10}, counts(9), {}) is None


def test_a_split_is_not_recognised_by_a_count_that_it_does_not_state():
    assert same_split(counts(5000, 25014), COCO) == ["val2017"]
    assert same_split(counts(5000, regions=36781, classes=80), COCO) == ["val2017"]
    assert same_split(counts(5000, 25013), COCO) == []
    assert same_split(counts(0), COCO) == []


def test_in_words_leaves_out_what_is_not_there():
    assert in_words(counts(1000, 5000)) == "1,000 images, 5,000 captions"
