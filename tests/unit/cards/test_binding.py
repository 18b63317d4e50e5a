"""Recipes bound to the splits that they train and are watched on."""

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind, bind_split, splits_for
from sparc_bench.errors import UserError

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
