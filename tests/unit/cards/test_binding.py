"""Recipes bound to the splits that they train and are watched on."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind, bind_split, bind_validation, splits_for
from sparc_bench.cards.recipe import Recipe, training_settings
from sparc_bench.errors import UserError
from sparc_bench.records.record import recipe_hash

pytestmark = pytest.mark.usefixtures("toy_plugins")


def recipe(dataset="flickr8k", split="train", val_split="val"):
    base = discovery.recipe("flickr8k_clip")
    changes = {"dataset": dataset, "split": split, "val_split": val_split, "options": {}, "val_options": {}}
    return base.model_copy(update={"data": base.data.model_copy(update=changes)})


def test_a_split_is_found_with_its_options():
    bound = bind_split(discovery.recipe("scenes_sparc"), val=True)
    assert (bound.dataset.__name__, bound.split) == ("sparc_bench.datasets.scenes1", "val")
    data = discovery.recipe("scenes_sparc").data
    assert bound.options == bound.dataset.Options(**{**data.options, **data.val_options})


def test_training_splits_may_be_watched_and_val_splits_not_trained_on():
    assert bind_split(recipe(val_split="train"), val=True).split == "train"
    with pytest.raises(UserError) as error:
        bind_split(recipe(split="val"), val=False)
    assert str(error.value) == (
        "Recipe flickr8k_clip: 'val' of flickr8k is kept for watching and evaluation: for training name train."
    )


@pytest.mark.parametrize(
    ("dataset", "split"),
    [("flickr8k", "all"), ("flickr8k", "test"), ("karpathy", "test"), ("karpathy", "all"), ("cifar", "train+test")],
)
@pytest.mark.parametrize("val", [False, True])
def test_test_images_are_neither_trained_nor_watched_on(dataset, split, val):
    with pytest.raises(UserError) as error:
        bind_split(recipe(dataset, split, split), val=val)
    assert f"'{split}' of {dataset} is kept for evaluation: for " in str(error.value)


@pytest.mark.parametrize("dataset", ["aro", "pope"])
def test_a_benchmark_has_nothing_to_train_on_whatever_its_splits_are_called(dataset):
    split = next(iter(discovery.load("datasets", dataset).SPLITS))
    with pytest.raises(UserError, match=f"{dataset} marks no split for training: name another data set, or mark one"):
        bind_split(recipe(dataset, split), val=False)


def test_names_without_a_mark_are_for_evaluation_alone(monkeypatch):
    module = discovery.load("datasets", "toy_data")
    assert splits_for(module, "train") == ["train"]
    monkeypatch.setattr(module, "SPLITS", ("train", "test"))
    assert splits_for(module, "train") == splits_for(module, "val") == []
    with pytest.raises(UserError, match=r'toy_data marks no split for training: .* SPLITS, \{"train": "train"\}\.$'):
        bind_split(recipe("toy_data"), val=False)


def test_a_misspelt_split_is_named():
    with pytest.raises(UserError, match="flickr8k has no split 'trian': did you mean 'train'"):
        bind_split(recipe(split="trian"), val=False)


def test_prompts_named_by_path_begin_at_the_card_and_count_by_content(tmp_path):
    hashes = []
    for folder, prompt in (("a", "a {}"), ("b", "a {}"), ("c", "the {}")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(f'source = "me"\ntemplates = ["{prompt}"]\n')
        text = (discovery.cards_folder("tasks") / "scenes_classification_shape.toml").read_text(encoding="utf-8")
        (tmp_path / folder / "card.toml").write_text(text.replace('prompts = "scenes"', 'prompts = "mine.toml"'))
        task = bind(discovery.task(str(tmp_path / folder / "card.toml")))
        assert task.options.prompts == str(tmp_path / folder / "mine.toml")
        hashes.append(task.protocol_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def watched_by(*tasks):
    return Recipe.model_validate({**recipe().model_dump(), "validate": {"tasks": tasks}})


def test_a_training_is_watched_by_tasks_on_val_whatever_split_their_cards_name():
    retrieval, regions, photos = bind_validation(
        watched_by("scenes_retrieval", "scenes_regions_colour", "flickr8k_retrieval")
    )
    assert {task.card.split for task in (retrieval, regions, photos)} == {"val"}
    assert (retrieval.card.expect, discovery.task("scenes_retrieval").expect["images"]) == ({}, 1000)
    assert regions.data_options.label == "colour"
    assert regions.options == bind(discovery.task("scenes_regions_colour")).options
    assert bind_validation(recipe()) == []


def test_a_task_on_a_val_split_keeps_its_counts():
    (task,) = bind_validation(watched_by("voc2012_mini_voc20"))
    assert task.card == discovery.task("voc2012_mini_voc20")
    assert task.card.expect


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        (
            ["sugar_crepe"],
            "the split 'test' of sugar_crepe is kept for evaluation, and sugar_crepe_captions marks none",
        ),
        (["imagenet_r"], "and image_folder marks several for watching a training: name val or validation or train"),
        (["scenes_retreival"], "There is no task 'scenes_retreival': did you mean 'scenes_retrieval'"),
        (["scenes_retrieval"] * 2, r"table \[validate\]: it names scenes_retrieval twice: leave one out"),
    ],
)
def test_what_watches_no_training_is_refused_by_name(tasks, sentence):
    with pytest.raises(UserError, match=sentence):
        bind_validation(watched_by(*tasks))


def test_the_tasks_that_watch_a_training_enter_no_hash():
    watched = watched_by("scenes_retrieval")
    assert recipe_hash(watched) == recipe_hash(recipe())
    assert training_settings(watched) == training_settings(recipe())
    assert "validate" not in recipe().model_dump()
    assert Recipe.model_validate_json(watched.model_dump_json()) == watched
