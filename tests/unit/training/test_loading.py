"""What a batch holds: a function of seed and step, without false negatives where the data set knows them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError
from sparc_bench.training.loading import Batches, rare_captions_only
from sparc_bench.training.pixels import load_pixels
from sparc_bench.training.run_inputs import read_split
from sparc_bench.training.train import train
from sparc_bench.two_towers.architecture import architecture_of
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.tokenizer import make_tokenizer


@pytest.fixture
def make(tiny):
    def made(mask=True, data=None):
        data = data or read_split(tiny, None, val=False)
        tokenizer = make_tokenizer(tiny.text, data.captions)
        objective = build_model(tiny, tokenizer, 0).objective
        return Batches(
            load_pixels(data, architecture_of(tiny, None).image_transform(tiny.name), 0.0),
            objective,
            tokenizer,
            8,
            0,
            mask,
        )

    return made


def test_a_batch_depends_on_seed_and_step_only(make):
    first, second = make(), make()
    second[0], second[4]
    assert torch.equal(first[3].batch.tokens.ids_BKL, second[3].batch.tokens.ids_BKL)
    assert torch.equal(first[3].inputs, second[3].inputs)


def test_an_epoch_shows_every_image_once(make):
    batches = make()
    seen = [int(row) for step in range(len(batches)) for row in batches[step].batch.index_B]
    assert sorted(seen) == list(range(48))
    again = [int(row) for step in range(6, 12) for row in batches[step].batch.index_B]
    assert sorted(again) == list(range(48))
    assert seen != again


def test_known_true_pairs_are_masked_and_their_share_is_logged(make):
    batches = make()
    shares = []
    for step in range(6):
        loaded = batches[step]
        known_BB = loaded.batch.extra["known_true"][:, :, 0]
        assert not known_BB.diagonal().any()
        examples = [batches.images.data[int(row)] for row in loaded.batch.index_B]
        chosen = [
            batches.images.data.keep_captions(example, numbers.tolist())
            for example, numbers in zip(examples, loaded.batch.extra["caption_index"], strict=True)
        ]
        truth_BB = batches.images.data.caption_truth(chosen)
        assert truth_BB.diagonal().all()
        assert (truth_BB & ~np.eye(8, dtype=bool) == known_BB.numpy()).all()
        shares.append(float(loaded.batch.extra["known_true_share"]))
        assert shares[-1] == pytest.approx(float(known_BB.sum()) / 56)
    assert 0 < np.mean(shares) < 0.3
    unmasked = make(mask=False)[0].batch.extra
    assert "known_true" not in unmasked
    assert "known_true_share" in unmasked


@pytest.mark.slow
def test_rare_captions_are_true_of_under_one_percent(tiny):
    data = tiny.data.model_copy(update={"options": {"n": 1000}})
    whole = read_split(tiny.model_copy(update={"data": data}), None, val=False)
    rare = rare_captions_only(whole)
    assert 0.5 * len(whole) < len(rare) <= len(whole)
    bare = [whole.keep_captions(example, ()) for example in whole]
    share_M = whole.caption_truth([*bare, *rare])[: len(whole)].mean(axis=0)
    assert share_M.max() < 0.01
    assert len(rare.captions) < len(whole.captions)
    assert "rare" in rare.notes[-1]


def test_rare_needs_a_data_set_that_knows(tiny):
    from dataclasses import replace

    with pytest.raises(UserError, match="false_negatives = 'keep'"):
        rare_captions_only(replace(read_split(tiny, None, val=False), caption_truth=None))


def test_training_on_any_coco_captions_file(tiny, tmp_path):
    folder = tmp_path / "mine"
    (folder / "photos").mkdir(parents=True)
    draw = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(12):
        name = f"{number}.png"
        Image.fromarray(draw.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / "photos" / name)
        images.append({"id": number, "file_name": name, "width": 30, "height": 20})
        annotations.append({"id": number, "image_id": number, "caption": f"photo number {number}"})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    options = {"folder": "mine", "annotations": "captions.json", "images": "photos"}
    data = {"dataset": "coco_captions", "split": "train2017", "val_split": "val2017", "options": options}
    recipe = Recipe.model_validate({**tiny.model_dump(), "data": data})
    assert train(recipe, tmp_path / "run", tmp_path, 0, "cpu")["steps"] == 6
