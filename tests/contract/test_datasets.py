"""Every data set keeps the promises of its seam; every one that a task card names is read as the card says."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import splits_for
from sparc_bench.cards.card import Strict, canonical_hash, parse
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.dataset import Examples
from sparc_bench.errors import UserError
from sparc_bench.facets import Attributes, Corruptions, Facet, Federated, Objects, PixelSize
from sparc_bench.scenes.truth import SceneForms

FACETS: tuple[type[Facet], ...] = (Attributes, Corruptions, Federated, Objects, PixelSize, SceneForms)
KNOWN = {
    *("captions", "several_captions", "negatives", "labels", "boxes", "masks", "semantic"),
    *("truth", "pairs", "word_tags", "pool"),
    *("splits", "synonyms"),
    *(facet.NAME for facet in FACETS),
}


def cards_by_data() -> list[TaskCard]:
    """One task card for each data set, split and options that any card names."""
    cards = [discovery.task(name) for name in discovery.names("tasks")]
    return list({canonical_hash([card.dataset, card.split, card.data]): card for card in cards}.values())


@pytest.fixture(params=discovery.names("datasets"))
def module(request):
    return discovery.load("datasets", request.param)


@pytest.fixture(scope="module", params=cards_by_data(), ids=lambda card: card.name)
def data(request) -> Examples:
    card = request.param
    module = discovery.load("datasets", card.dataset)
    options = parse(module.Options, card.data, card.name)
    if not module.NEEDS_ON_DISK:
        return module.read(None, card.split, options)
    root = request.getfixturevalue("test_data")
    for folder in (options.folder, getattr(options, "photos", "")):
        if not (root / folder).is_dir():
            pytest.skip(f"{root} holds no {folder}")
    split = module.read(root, card.split, options)
    counts = split.counts()
    assert {key: counts[key] for key in card.expect} == card.expect
    return split


def test_module_says_what_it_is(module):
    assert issubclass(module.Options, Strict)
    assert isinstance(module.PROVIDES, frozenset)
    assert set() < module.PROVIDES <= KNOWN
    assert module.SPLITS
    assert all(isinstance(split, str) for split in module.SPLITS)
    if isinstance(module.SPLITS, Mapping):
        assert set(module.SPLITS.values()) <= {"train", "val", "test"}
    for text in (module.TITLE, module.SOURCE):
        assert text.strip()
        assert "\n" not in text
    assert isinstance(module.NEEDS_ON_DISK, str)


def test_every_facet_is_listed_here_and_given_by_some_data_set():
    assert {facet for facet in Facet.__subclasses__() if facet.__module__.startswith("sparc_bench.")} == {*FACETS}
    given = frozenset().union(*(discovery.load("datasets", name).PROVIDES for name in discovery.names("datasets")))
    assert {facet.NAME for facet in FACETS} <= given
    for name in discovery.names("protocols"):
        assert given >= discovery.load("protocols", name).DATA, name


def test_unknown_split_is_one_sentence(module, tmp_path):
    with pytest.raises(UserError, match=r"no split 'nosuchsplit': ") as error:
        module.read(tmp_path, "nosuchsplit", module.Options())
    assert "\n" not in str(error.value)


COCO = {"train", "train2014", "train2017"}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("coco_captions coco_instances coco_objects", COCO),
        ("karpathy", {"train", "restval", "train+restval"}),
        ("cifar flickr8k image_folder lvis mask_folders scenes1 voc_segmentation webdataset_folder", {"train"}),
        ("aro imagenet_corruptions pope sugar_crepe_captions sugar_crepe_pp_captions", set()),
        ("coco_words valse_foils winoground_pairs", set()),
    ],
)
def test_only_what_its_owner_gives_to_train_on_is_trained_on(names, splits):
    for name in names.split():
        assert set(splits_for(discovery.load("datasets", name), "train")) == splits, name


def test_what_holds_images_of_a_test_split_is_not_even_watched(module):
    assert not [split for split in splits_for(module, "val") if "test" in split or split == "all"]


def test_what_the_tasks_are_scored_on_is_never_trained_on():
    for card in cards_by_data():
        assert card.split not in splits_for(discovery.load("datasets", card.dataset), "train"), card.name


def test_missing_root_names_the_option(module):
    if not module.NEEDS_ON_DISK:
        pytest.skip("needs nothing on disk")
    for root in (None, Path("nosuchfolder")):
        with pytest.raises(UserError, match=r"--data-root.*SPARC_BENCH_DATA") as error:
            module.read(root, next(iter(module.SPLITS)), module.Options())
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_ids_and_fingerprint(data):
    ids = [example.id for example in data]
    assert len(set(ids)) == len(ids) > 0
    files: dict[str, object] = {}
    for example in data:
        opener = example.image.opener
        same = files.setdefault(example.image.id, opener)
        assert same is opener or (same.func, same.args) == (opener.func, opener.args)
    if (
        "negatives" not in discovery.load("datasets", data.dataset).PROVIDES
    ):  # else items, of which several are of a photo
        assert ids == [item.id for item in data.views]
    assert re.fullmatch(r"[0-9a-f]{64}", data.fingerprint)
    assert len(set(data.classes)) == len(data.classes)


def opened(item):
    """The image; None where the benchmark is here without its photos, for other systems' outputs alone."""
    try:
        return item.open()
    except UserError as error:
        if "sparc-bench score" not in str(error):
            raise
        return None


@pytest.mark.slow
def test_items_survive_pickling_and_open_to_rgb(data):
    for example in (*data.examples[:3], data.examples[-1]):
        image, again = opened(example.image), opened(pickle.loads(pickle.dumps(example)).image)
        assert (image is None) == (again is None)
        if image is not None:
            assert image.mode == "RGB"
            assert min(image.size) > 0
            assert np.array_equal(np.asarray(again), np.asarray(image))


def test_captions_and_labels(data):
    for example in data:
        assert all(text.strip() for text in (*example.captions, *example.negatives))
        assert len(example.caption_tags) in (0, len(example.captions))
        assert example.label is None or 0 <= example.label < len(data.classes)
    if "captions" in discovery.load("datasets", data.dataset).PROVIDES:
        assert all(example.captions for example in data)
    assert all(caption.strip() for caption in data.pool)


def test_every_example_has_the_facets_that_its_data_set_provides_and_no_other(data):
    provided = {facet for facet in FACETS if facet.NAME in discovery.load("datasets", data.dataset).PROVIDES}
    for example in data:
        assert {type(facet) for facet in example.facets} == provided
        assert len(example.facets) == len(provided)


@pytest.mark.slow
def test_regions_and_semantic_fit_their_image(data):
    for example in data.examples[:8]:
        image = opened(example.image)
        width, height = image.size if image is not None else astuple(example.facet(PixelSize))
        for region in example.regions:
            left, top, right, bottom = region.box
            assert -1 <= left < right <= width + 1
            assert -1 <= top < bottom <= height + 1
            assert 0 <= region.label < len(data.classes)
            if region.mask is not None:
                mask_HW = region.mask()
                assert (mask_HW.shape, mask_HW.dtype) == ((height, width), np.bool_)
        if example.semantic is not None:
            semantic_HW = example.semantic()
            assert semantic_HW.shape == (height, width)
            assert semantic_HW.min() >= -2
            assert semantic_HW.max() < len(data.classes)
