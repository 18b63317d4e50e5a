"""Our own models: token maps are cosines of a caption's own tokens with the patches that a loss contrasts with them."""

import pytest
import torch
import torch.nn.functional as F

from sparc_bench.datasets import scenes1
from sparc_bench.encoder import Runtime
from sparc_bench.errors import UserError
from sparc_bench.models.resolve import load_encoder, resolve

WORDS = ["only", "a", "purple", "cross", ",", "and", "a", "heart"]


@pytest.fixture(scope="module")
def sparc():
    return load_encoder(resolve("scenes_sparc"), Runtime())


@pytest.fixture(scope="module")
def images(sparc):
    examples = scenes1.read(None, "val", scenes1.Options(n=2)).examples
    return sparc.images([example.view for example in examples], frozenset({"patches"}))


def test_token_maps_are_cosines_with_the_captions_own_tokens(sparc, images):
    maps = sparc.token_maps(images, WORDS)
    assert maps.shape == (2, len(WORDS), *images.grid)
    texts = sparc.texts([" ".join(WORDS)], frozenset({"tokens"}))
    tokens = texts.tokens_MLD[0][texts.mask_ML[0]]
    cosines = F.normalize(images.patches["local"], dim=-1) @ F.normalize(tokens, dim=-1).T
    at = 0
    for number, word in enumerate(WORDS):
        used = len(range(*sparc._tokenizer.places([word])[0].indices(99)))
        expected = cosines[:, :, at : at + used].mean(-1).unflatten(1, images.grid)
        assert torch.allclose(maps[:, number], expected, atol=1e-6), word
        at += used
    assert at == len(tokens)


def test_the_same_word_reads_otherwise_beside_other_words(sparc, images):
    together, alone = sparc.token_maps(images, ["a", "purple", "heart"]), sparc.token_maps(images, ["heart"])
    assert not torch.allclose(together[:, 2], alone[:, 0], atol=1e-3)


def test_words_beyond_the_context_have_no_map(sparc, images):
    maps = sparc.token_maps(images, ["purple"] * 60)
    assert not maps[:, 0].isnan().any()
    assert maps[:, -1].isnan().all()


def test_a_loss_without_tokens_has_plain_cosines_and_no_token_path(sparc, images):
    clip = load_encoder(resolve("scenes_clip"), Runtime())
    assert (sparc.token_path, clip.token_path) == ("local", None)
    seen = clip.images([scenes1.read(None, "val", scenes1.Options(n=1)).examples[0].view], frozenset({"patches"}))
    texts = clip.texts(["heart"], frozenset({"tokens"}))
    tokens = texts.tokens_MLD[0][texts.mask_ML[0]]
    for path in clip.paths:
        cosines = F.normalize(seen.patches[path], dim=-1) @ F.normalize(tokens, dim=-1).T
        expected = cosines.mean(-1).unflatten(1, seen.grid)
        assert torch.allclose(clip.token_maps(seen, ["heart"], path)[:, 0], expected, atol=1e-6)
    deaf = load_encoder(resolve("scenes_clip"), Runtime())
    deaf.gives = deaf.gives - {"tokens"}
    with pytest.raises(UserError, match="no map of a word within a caption"):
        deaf.token_maps(seen, ["heart"])
