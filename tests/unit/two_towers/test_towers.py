"""Towers and tokenizers: padding moves nothing, words see both sides, a long text keeps its EOS."""

import open_clip
import pytest
import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.image_tower import ImageTowerTable
from sparc_bench.cards.recipe import TextTowerTable
from sparc_bench.errors import UserError
from sparc_bench.two_towers.image_transform import normalise
from sparc_bench.two_towers.model import build_model
from sparc_bench.two_towers.open_clip_towers import open_clip_towers
from sparc_bench.two_towers.tokenizer import Tokenizer, make_tokenizer
from sparc_bench.two_towers.towers import RecipeImageTower, RecipeTextTower

CAPTIONS = ["a red circle", "a blue star above a red circle", "two stars!"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(TextTowerTable(tokenizer="own", vocabulary=320, context=12), CAPTIONS * 3)


@pytest.fixture(scope="module", params=[False, True], ids=["bidirectional", "causal"])
def trunk(request, tokenizer):
    card = TextTowerTable(width=16, depth=2, heads=2, context=12, causal=request.param)
    torch.manual_seed(0)
    return RecipeTextTower(card, tokenizer.vocabulary, tokenizer.pad_id).eval()


def test_padding_moves_no_word_vector(trunk, tokenizer):
    alone = trunk(tokenizer([["a red circle"]]))
    beside = trunk(tokenizer([["a red circle"], ["a blue star above a red circle"]], full_context=True))
    length = alone.tokens_BKLW.shape[2]
    torch.testing.assert_close(beside.tokens_BKLW[:1, :, :length], alone.tokens_BKLW, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(beside.pooled_BKW[:1], alone.pooled_BKW, atol=1e-5, rtol=1e-5)


def test_a_word_sees_its_noun_unless_the_tower_is_causal(trunk, tokenizer):
    first, second = (trunk(tokenizer([[text]])).tokens_BKLW[0, 0, 1:3] for text in ("a red circle", "a red star"))
    assert torch.allclose(first, second, atol=1e-6) == trunk.causal


def test_masks_split_words_specials_and_padding(tokenizer):
    tokens = tokenizer([["a red circle"], ["a blue star above a red circle"]])
    used = tokens.ids_BKL != tokenizer.pad_id
    assert torch.equal(used, tokens.mask_BKL | tokens.special_BKL)
    assert not (tokens.mask_BKL & tokens.special_BKL).any()
    assert tokens.special_BKL.sum(-1).tolist() == [[2], [2]]


def test_a_long_text_keeps_its_eos(tokenizer):
    tokens = tokenizer([["red " * 50]])
    assert tokens.ids_BKL.shape[-1] == 12
    assert tokens.special_BKL[0, 0, -1]


def test_unknown_characters_fall_back_to_bytes_and_a_saved_vocabulary_is_the_same(tokenizer):
    again = Tokenizer(12, tokenizer.state)
    for text in ("naïve 红", "A RED circle"):
        assert torch.equal(again([[text]]).ids_BKL, tokenizer([[text]]).ids_BKL)
    assert not torch.equal(tokenizer([["红"]]).ids_BKL, tokenizer([["蓝"]]).ids_BKL)
    assert torch.equal(tokenizer([["A RED  Circle"]]).ids_BKL, tokenizer([["a red circle"]]).ids_BKL)


def test_open_clip_vocabulary_pads_with_an_id_of_its_own():
    tokens = Tokenizer(16)([["stop !"], ["a much longer caption of an image"]])
    bang = Tokenizer(16)([["!"]]).ids_BKL[0, 0, 1]
    assert (tokens.ids_BKL[0][tokens.mask_BKL[0]] == bang).sum() == 1
    assert Tokenizer(16).pad_id != bang


def test_image_trunk_has_no_class_token_and_averages_its_patches():
    trunk = RecipeImageTower(
        ImageTowerTable(model="vit_tiny_patch16_224", size=64, patch=16, width=24, depth=1, heads=2)
    )
    out = trunk(normalise(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)))
    assert out.patches_BPW.shape == (2, 16, 24)
    assert out.grid == (4, 4)
    torch.testing.assert_close(out.pooled_BMW[:, 0], out.patches_BPW.mean(1))


def test_a_model_that_timm_does_not_know_is_a_user_error():
    with pytest.raises(UserError, match="vision transformer of timm"):
        RecipeImageTower(ImageTowerTable(model="vit_no_such"))


def test_towers_of_a_strangers_configuration_fetch_no_weights(monkeypatch):
    asked = []

    def towers(**config):
        asked.append((config["vision_cfg"]["timm_model_pretrained"], config["text_cfg"]["hf_model_pretrained"]))
        raise RuntimeError("none are built here")

    monkeypatch.setattr(open_clip, "CustomTextCLIP", towers)
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": True}
    text = {"hf_model_name": "bert-base-uncased", "hf_model_pretrained": True}
    with pytest.raises(UserError, match="cannot build the towers"):
        open_clip_towers({"embed_dim": 8, "vision_cfg": vision, "text_cfg": text})
    assert asked == [(False, False)]


@pytest.mark.parametrize("tower", ["timm.create_model", "open_clip.transformer.TextTransformer"])
def test_too_little_memory_is_one_sentence_for_both_towers(tower, monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(tower, fails)
    recipe = discovery.recipe("scenes_clip")
    with pytest.raises(UserError, match=r"^There is too little memory to build the model of scenes_clip .*\.$"):
        build_model(recipe, make_tokenizer(recipe.text, ["a"]), 0)
