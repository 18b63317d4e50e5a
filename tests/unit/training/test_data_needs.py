"""A recipe whose data lacks what its objective needs is refused in a sentence that says what to change."""

import dataclasses

import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import StepCounts
from sparc_bench.datasets import scenes1
from sparc_bench.errors import UserError
from sparc_bench.training.data_needs import refuse_missing, refuse_unfilled
from sparc_bench.training.run_inputs import read_split
from sparc_bench.training.train import train


def changed(recipe, objective, dataset="scenes1", objective_options=None, **options):
    data = recipe.data.model_copy(update={"dataset": dataset, "options": options})
    return recipe.model_copy(
        update={"objective": objective, "objective_options": objective_options or {}, "data": data}
    )


@pytest.fixture
def no_reading(monkeypatch):
    for name in discovery.names("datasets"):
        monkeypatch.setattr(discovery.load("datasets", name), "read", None)


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize(
    ("objective", "dataset", "sentence"),
    [
        (
            "negclip",
            "coco_captions",
            "negclip needs negatives, which coco_captions has none of: "
            "name a data set that has them (flickr8k, scenes1).",
        ),
        (
            "mv_infonce",
            "coco_instances",
            "mv_infonce needs captions and several captions per image, which coco_instances has none of: "
            "name a data set that has them (coco_captions, coco_objects, flickr8k, karpathy, scenes1).",
        ),
        (
            "clip",
            "voc_segmentation",
            "clip needs captions, which voc_segmentation has none of: "
            "name a data set that has them (coco_captions, coco_objects, flickr8k, karpathy, scenes1).",
        ),
    ],
)
def test_missing_kinds_of_data_name_the_data_sets_that_have_them(tiny, objective, dataset, sentence):
    with pytest.raises(UserError) as error:
        refuse_missing(changed(tiny, objective, dataset))
    assert str(error.value) == sentence


@pytest.mark.usefixtures("no_reading")
def test_several_captions_are_needed_where_the_option_asks_for_them(tiny, monkeypatch):
    monkeypatch.setattr(scenes1, "PROVIDES", frozenset({"captions"}))
    refuse_missing(changed(tiny, "mv_dhel", objective_options={"captions": 1}))
    with pytest.raises(
        UserError, match=r"needs several captions per image, .* \(coco_captions, coco_objects, flickr8k, karpathy\)\.$"
    ):
        refuse_missing(changed(tiny, "mv_dhel"))


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("objective", discovery.names("objectives"))
def test_scenes_have_what_every_objective_needs_and_asking_draws_nothing(tiny, objective):
    before = torch.random.get_rng_state()
    refuse_missing(changed(tiny, objective))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.usefixtures("no_reading")
def test_no_data_set_has_it(tiny, monkeypatch):
    monkeypatch.setattr(discovery.load("objectives", "clip").Objective, "data_needs", frozenset({"sounds"}))
    with pytest.raises(UserError, match=r"clip needs sounds, which scenes1 has none of: no data set here has them"):
        refuse_missing(changed(tiny, "clip"))


def test_negatives_that_an_option_leaves_out_name_that_option(tiny):
    plain = changed(tiny, "negclip", n=8)
    with pytest.raises(
        UserError, match=r"scenes1/train/scenes/000000 has 0 for 5: set the option 'negatives' in .*data"
    ):
        refuse_unfilled(plain, read_split(plain, None, val=False))
    asked = changed(tiny, "negclip", n=8, negatives=["replace_object"])
    refuse_unfilled(asked, read_split(asked, None, val=False))


def test_a_data_set_with_too_few_negatives_of_its_own(tiny):
    asked = changed(tiny, "negclip", n=8, negatives=["replace_object"])
    data = read_split(asked, None, val=False)
    short = dataclasses.replace(data, examples=(dataclasses.replace(data[0], negatives=("no",)), *data.examples[1:]))
    with pytest.raises(UserError, match=r"has 1 for 5: name a data set that has them \(flickr8k, scenes1\)"):
        refuse_unfilled(asked, short)


def test_one_caption_per_image_is_refused_where_views_are_wanted(tiny):
    recipe = changed(tiny, "mv_infonce", kind="pairs", n=4)
    data = read_split(recipe, None, val=False)
    with pytest.raises(
        UserError, match=r"every image of scenes1 with kind = 'pairs', n = 4 has one: change data.options"
    ):
        refuse_unfilled(recipe, data)
    refuse_unfilled(changed(tiny, "clip", kind="pairs", n=4), data)
    refuse_unfilled(changed(tiny, "mv_infonce", n=4), read_split(changed(tiny, "clip", n=4), None, val=False))


def test_a_step_sees_what_the_card_declares(tiny, tmp_path, monkeypatch):
    declared = tiny.model_copy(update={"sees": StepCounts(images=8, captions=16)})
    monkeypatch.setattr("sparc_bench.training.run_inputs.read_split", None)
    with pytest.raises(UserError, match=r"declares \[sees\] images=8 captions=16.* sees images=8 captions=8"):
        train(declared, tmp_path / "run", None, 0, "cpu")
