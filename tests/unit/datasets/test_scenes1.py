import hashlib
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from sparc_bench.datasets import scenes1
from sparc_bench.datasets.scenes1 import Options, keep_captions, read
from sparc_bench.errors import UserError
from sparc_bench.scenes.logical_forms import holds
from sparc_bench.scenes.truth import SceneForms
from sparc_bench.scenes.world import COLOURS, SHAPES, SIDE

KINDS = ("scenes", "single", "pairs")

# (split, kind) -> sha256 of the pixel arrays of the first 32 images, and of their captions. A version never changes:
# whatever changes one of these belongs into a data set of another name.
FROZEN = {
    ("train", "scenes"): (
        "b99450b8357ea18d1d3e72aa4b9bfd7bca435edb850f64ed6bffe4cb40e40c32",
        "122feb285ce732e78a7e2aa54f0a913e338588f836866dbacce2f7787d8e92b2",
    ),
    ("val", "scenes"): (
        "e231cf722b577db28f699bd18975b5bc3ca4da6b1815e5700a9d3e4513e71500",
        "8df598990a75c1b7926ba7d39620fe1dfc53cf1c816c479152c1ccd18b4cce99",
    ),
    ("test", "scenes"): (
        "12f66c1900e04838e5afafcb5de7809c5a3ba260b543876d50af95cc15cf0edd",
        "c44bbbd3a4f1ef5e62b481d28a7ff2ffd9bd1bbeaa98af3f09be1e736dfe9f0d",
    ),
    ("train", "single"): (
        "55f9585ea18090f2dbe352c298ed66665bf9a59bb27a47af0eb9cd950c240178",
        "20fbeb51bc113946c252e2b6413111a1b44ad3fa922fd2c0eedd5746b4515f60",
    ),
    ("val", "single"): (
        "0a6bbbb721e68921ef8f468e2a30c62c07006d371f722db7e64f69ad6baa5d93",
        "ae8dc786a4a9d64ae5b64409f1190fb2d9b3f31cde588dfa5a49392720c1f288",
    ),
    ("test", "single"): (
        "e4873c9888d9b9e0be5ed6192761c43b6ab8797096b2403e31735672fd1c4dbd",
        "e2cecc3a092bd2293bec583c1ff91027cc86f23cbb12ff92ab46aebf397c7d3d",
    ),
    ("train", "pairs"): (
        "d5d7103975019a7224f0955b58838ba03459fd12db2f5eb33da804eed4a28062",
        "79e17b564c9363e4fd3291085818296c523581c6376912eae8403912d78fc716",
    ),
    ("val", "pairs"): (
        "183cfaca17939f3f6cd0e2aa849026e28d24cada83c021e86fb197126b0914cf",
        "a57399ab97cfd0ba0d52c0fead42667b9db926695836ea5d578b9ce8d7b5a6ff",
    ),
    ("test", "pairs"): (
        "f696c88da5db37d85ed8959716778caed248628b21feefe5d99d34fbaa6b02f2",
        "124d23949ae634954a4c1335bdae30b8dfdc3f08f3a4f8ec75557d3b2a03d041",
    ),
}


def small(split="test", kind="scenes", n=60, label="shape"):
    return read(None, split, Options(kind=kind, n=n, label=label))


@pytest.mark.parametrize("split", scenes1.SPLITS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_version_has_not_changed(split, kind):
    pixels, words = hashlib.sha256(), hashlib.sha256()
    for example in read(None, split, Options(kind=kind, n=32)).examples[:32]:
        pixels.update(np.asarray(example.image.open()).tobytes())
        words.update("\n".join((*example.captions, "")).encode())
    assert (pixels.hexdigest(), words.hexdigest()) == FROZEN[split, kind]


def test_what_a_reader_promises():
    for kind in KINDS:
        data = small(kind=kind)
        images = 120 if kind == "pairs" else 60
        counts = {"images": images, "captions": 120 if kind == "pairs" else 300, "classes": 6, "masks": images}
        assert counts.items() <= data.counts().items()
        assert data.counts()["groups"] == (60 if kind == "pairs" else 0)
        assert len({example.id for example in data}) == len(data)
        for example in data:
            assert example.image.id == example.id
            assert len(example.captions) == len(example.caption_tags) == len(example.facet(SceneForms).forms)
            assert all(holds(form, example.facet(SceneForms).scene) for form in example.facet(SceneForms).forms)
            assert example.regions
            assert (example.label is None) == (len(example.regions) > 1)
    assert small().examples[12].id == "scenes1/test/scenes/000012"


def test_labels_masks_and_classes_mean_what_the_options_say():
    for label, classes in (("shape", SHAPES), ("colour", COLOURS)):
        data = small(label=label, n=20)
        assert data.classes == classes
        for example in data:
            names = [getattr(object_, label) for object_ in example.facet(SceneForms).scene.objects]
            assert [classes[region.label] for region in example.regions] == names
            semantic = example.semantic()
            assert semantic.shape == (SIDE, SIDE)
            for region in example.regions:
                assert (semantic[region.mask()] == region.label).all()
                assert region.area == region.mask().sum()


@pytest.mark.parametrize(("n", "label"), [(36, "shape"), (72, "colour"), (100, "shape"), (100, "colour")])
def test_single_objects_are_balanced(n, label):
    data = small(kind="single", n=n, label=label)
    objects = [example.facet(SceneForms).scene.objects[0] for example in data]
    for counts, most in (
        (Counter(example.label for example in data), 6),
        (Counter((object_.shape, object_.colour) for object_ in objects), 36),
    ):
        assert len(counts) == most
        assert max(counts.values()) - min(counts.values()) <= (0 if n % most == 0 else 1)
    assert all(len(example.captions) == 5 for example in data)


def test_pairs_are_two_examples_of_a_group():
    data = small(kind="pairs", n=12)
    for first, second in zip(data.examples[::2], data.examples[1::2], strict=True):
        assert first.group == second.group
        assert first.tags == second.tags
        assert first.tags["edit"] in ("replace", "swap")
        assert first.tags["of"] in ("object", "attribute", "relation")
        assert first.negatives == second.captions
        assert second.negatives == first.captions
        assert data.caption_truth([first, second]).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("n", [200, pytest.param(1500, marks=pytest.mark.slow)])
def test_no_scene_is_in_two_splits_whatever_the_kind(n):
    def contents(split):
        parts = [*small(split, n=n), *small(split, "single", n), *small(split, "pairs", n // 10)]
        return {frozenset(example.facet(SceneForms).scene.objects) for example in parts}

    train, val, test = (contents(split) for split in scenes1.SPLITS)
    assert min(len(train), len(val), len(test)) > 1.9 * n
    assert not train & val
    assert not train & test
    assert not val & test


def test_more_examples_begin_with_the_same_ones():
    few, many = small(n=5), small(n=20)
    assert many.examples[:5][-1].captions == few.examples[-1].captions
    assert few.fingerprint != many.fingerprint
    assert small(n=5).fingerprint == few.fingerprint
    assert (
        len(
            {
                small(split, kind, 2, label).fingerprint
                for split in scenes1.SPLITS
                for kind in KINDS
                for label in ("shape", "colour")
            }
        )
        == 18
    )


@pytest.mark.slow
def test_the_default_size_is_in_the_fingerprint():
    data = read(None, "val", Options(kind="single"))
    assert len(data) == 1000
    assert data.fingerprint == read(None, "val", Options(kind="single", n=1000)).fingerprint


@pytest.mark.slow
def test_truth_of_all_captions_and_of_chosen_ones():
    data = small(n=40)
    truth = data.caption_truth(data.examples)
    assert truth.shape == (40, 200)
    assert truth[data.caption_image_M, np.arange(200)].all()
    assert 0.01 < truth.mean() < 0.2
    chosen = [keep_captions(example, [index % 5]) for index, example in enumerate(data)]
    columns = [5 * index + index % 5 for index in range(40)]
    assert (data.caption_truth(chosen) == truth[:, columns]).all()
    assert [example.captions[0] for example in chosen] == [data.captions[column] for column in columns]
    assert all(len(example.caption_tags) == 1 for example in chosen)
    assert (data.caption_truth(data.examples[3:9]) == truth[3:9, 15:45]).all()


def test_truth_refuses_captions_without_their_forms():
    example = small(n=1).examples[0]
    with pytest.raises(RuntimeError, match="one logical form per caption"):
        small(n=1).caption_truth([replace(example, captions=example.captions[:1])])
    whole = example.facet(SceneForms)
    first = replace(example, captions=example.captions[:1], facets=(SceneForms(whole.scene, whole.forms[:1]),))
    assert small(n=1).caption_truth([first]).tolist() == [[True]]


def test_examples_travel_to_loader_workers():
    example = small(n=3).examples[2]
    copy = pickle.loads(pickle.dumps(example))
    assert copy.captions == example.captions
    assert (np.asarray(copy.image.open()) == np.asarray(example.image.open())).all()
    assert (copy.semantic() == example.semantic()).all()
    assert len(pickle.dumps(example.image)) < 1000


def test_images_are_rgb():
    image = small(n=1).examples[0].image.open()
    assert image.mode == "RGB"
    assert image.size == (SIDE, SIDE)


@pytest.mark.slow
def test_every_word_is_tagged():
    for kind in KINDS:
        data = small("val", kind, 150)
        assert {word for text in data.captions for word in text.replace(",", "").split()} <= set(data.word_tags)


def test_a_misspelt_split_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'test'"):
        read(None, "tset", Options())


@pytest.mark.slow
def test_the_contact_sheet_is_written(tmp_path):
    path = tmp_path / "sheet.png"
    scenes1.contact_sheet(path)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 1000
        assert sheet.height > 2000
        assert len(sheet.getcolors(1 << 24)) > 1000
