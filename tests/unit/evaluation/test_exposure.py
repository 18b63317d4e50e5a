"""From a data set's photo names and a card's `trained_on` to the record."""

import json

import pytest

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.recipe import read_model
from sparc_bench.cli.check import check_model
from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.evaluation.exposure import exposure
from sparc_bench.evaluation.new_record import Provenance, bare_record
from sparc_bench.images.item import ImageItem

MINE = 'photos = "coco"\nsource = "mine"\nids = "1 2 3"\n'


def data(*photos):
    examples = tuple(
        Example(str(i), ImageItem(photo or str(i), lambda: None), photo=photo) for i, photo in enumerate(photos)
    )
    return Examples("flickr8k", "test", examples)


def stated(photos, trained_on):
    task = bind(discovery.task("flickr8k_retrieval"))
    card = ModelCard(name="a", title="a", family="outputs", source="a", trained_on=trained_on)
    return str(bare_record(task, data(*photos), card, 0, Provenance(""), None).exposure)


def test_a_record_counts_photos_not_examples():
    photos = ["coco:139", "coco:139", "coco:285", "coco:9"]
    assert stated(photos, ("coco:val2017",)) == "2 images seen"
    assert stated(photos, ("coco:train2017",)) == "1 images seen"


def test_a_record_of_photos_without_names_goes_by_data_sets():
    assert stated(["", ""], ("flickr8k:train",)) == "domain"
    assert stated(["", ""], ("flickr8k:test",)) == "2 images seen"
    assert stated(["", ""], ("scenes1:train",)) == "none"
    assert stated(["", ""], ()) == "unknown"


def test_photos_without_names_may_be_any_photos():
    of = lambda trained_on, dataset, photos: str(exposure([trained_on], dataset, "test", 2, photos=photos))  # noqa: E731
    assert of("coco:train2017", "winoground_pairs", ["", ""]) == "unknown"
    assert of("coco:train2017", "winoground_pairs", ["vg:1"]) == "none"
    assert of("coco:train2017", "valse_foils", ["", "coco:9"]) == "1 images seen"
    assert of("scenes1:train", "winoground_pairs", ["", ""]) == "none", "no photo is among those"
    assert of("flickr8k:train", "scenes1", ["", ""]) == "none"


@pytest.fixture
def card_with_list(tmp_path):
    (tmp_path / "mine.toml").write_text(MINE)

    def write(entry="mine.toml"):
        path = tmp_path / "my_model.toml"
        path.write_text(f'title = "a"\nfamily = "open_clip"\nsource = "a"\ntrained_on = ["{entry}"]\n')
        return read_model(path)

    return write


def test_a_card_may_name_a_list_of_its_own(card_with_list, monkeypatch, tmp_path):
    card = card_with_list()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    check_model(card, tmp_path)
    assert str(exposure(card.trained_on_here, "x", "y", 2, photos=["coco:3", "coco:4"])) == "1 images seen"
    assert exposure(card.trained_on_here, "x", "y", 2, photos=["coco:4"]).kind == "domain"
    assert card.trained_on == ("mine.toml",), "what hashes hold is the same on every machine"


def test_a_missing_list_is_refused(card_with_list, tmp_path):
    with pytest.raises(UserError, match=r"photo list .*other\.toml of trained_on does not exist"):
        check_model(card_with_list("other.toml"), tmp_path)


def test_entries_are_data_sets_with_splits_lists_or_unknown(card_with_list, tmp_path):
    check_model(card_with_list("unknown"), tmp_path)
    with pytest.raises(UserError, match="names no split"):
        check_model(card_with_list("laion2b"), tmp_path)


def test_a_recipe_on_a_file_in_a_shared_format_says_which_photos_they_are():
    recipe = discovery.recipe("flickr8k_clip")
    assert recipe.model_card().trained_on == ("flickr8k:train", "imagenet1k:train")
    other = recipe.data.model_copy(update={"dataset": "coco_captions", "photo_list": "coco:karpathy_train"})
    found = recipe.model_copy(update={"data": other}).model_card().trained_on
    assert found == ("coco:karpathy_train", "imagenet1k:train")
    assert "photo_list" not in json.loads(recipe.model_dump_json(exclude_defaults=True))["data"]


@pytest.mark.parametrize("name", ["flickr8k_clip", "flickr8k_sparc"])
def test_committed_models_of_flickr8k_are_not_zero_shot_on_flickr(name):
    card = discovery.model(name).model_card()
    assert exposure(card.trained_on, "flickr8k", "test", 1000).kind == "domain"
    photos = sorted(f"flickr:{i}" for i in (1000268201, 1001773457))
    assert exposure(card.trained_on, "karpathy", "test", 2, photos=photos).kind != "none"
