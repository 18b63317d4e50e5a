import numpy as np
import pytest
import torch

from sparc_bench.errors import UserError
from sparc_bench.images.view import View
from sparc_bench.report.word_maps import Caption, WordMaps, word_maps
from tests.toys.encoders import LookupEncoder, constant_encoder, item

WORDS = ("red", "dog", "blue", "house")
CAPTION = Caption.of("A red dog, near the blue house.")


def one_hot(text):
    return np.eye(len(WORDS))[WORDS.index(text)]


def patches(path, _):
    """On the path `local` patch number k shows word number k, on `global` the next one."""
    shift = 0 if path == "local" else 1
    return np.stack([np.eye(len(WORDS))[(patch + shift) % len(WORDS)] for patch in range(len(WORDS))])


def knowing():
    return LookupEncoder(lambda _: np.zeros(len(WORDS)), one_hot, patches, grid=(2, 2), size=8)


class TokenEncoder(LookupEncoder):
    """Token vectors of a caption find its words in reverse; the word "house" is beyond the context."""

    token_path = "local"

    def token_maps(self, images, words, path=None):  # noqa: ARG002
        assert tuple(words) == CAPTION.parts
        maps = torch.full((len(images), len(words), *self.grid), -1.0)
        for place, word in enumerate(words):
            if word in WORDS:
                maps[:, place].view(len(images), -1)[:, 3 - WORDS.index(word)] = 1.0
        maps[:, words.index("house")] = torch.nan
        return maps


def highest(row):
    return [int(np.argmax(of_word)) for of_word in row.scores_WYX]


def test_captions_fall_into_words_and_punctuation():
    assert CAPTION.parts == ("A", "red", "dog", ",", "near", "the", "blue", "house", ".")
    assert CAPTION.words == list(WORDS)
    assert CAPTION.joined == {3, 8}
    assert Caption.of("the 'T-shirt' (it's) 5%").parts == ("the", "'", "T-shirt", "'", "(", "it's", ")", "5", "%")
    assert Caption.of("красный круг 红色的圆 हिन्दी").words == ["красный", "круг", "红色的圆", "हिन्दी"]
    assert Caption.of("On the").words == ["On", "the"]
    with pytest.raises(UserError, match=r"'\.\.\.' has no word: give one"):
        Caption.of("...")


def test_words_find_their_patches_by_every_path():
    local, path_global = word_maps(knowing(), "m", View(item("x")), CAPTION)
    assert (local.path, local.trained, path_global.path, path_global.trained) == ("local", True, "global", False)
    assert highest(local) == [0, 1, 2, 3]
    assert highest(path_global) == [3, 0, 1, 2]
    assert not local.in_caption
    assert local.area == (0.0, 0.0, 8.0, 8.0)
    assert knowing().token_path is None


def test_token_vectors_of_the_caption_are_used_on_the_path_that_a_loss_contrasts_with_them():
    encoder = TokenEncoder(lambda _: np.zeros(len(WORDS)), one_hot, patches, grid=(2, 2))
    local, path_global = word_maps(encoder, "m", View(item("x")), CAPTION)
    assert (local.in_caption, path_global.in_caption) == (True, False)
    assert highest(local)[:3] == [3, 2, 1]
    assert np.isnan(local.deviations_WYX[3]).all()
    assert local.deviations_WYX[0].max() == pytest.approx(1.5 / np.sqrt(0.75))
    encoder.token_path = None
    assert [row.in_caption for row in word_maps(encoder, "m", View(item("x")), CAPTION)] == [False, False]


def test_neither_the_scale_of_a_model_nor_the_level_of_a_word_shows():
    scores = np.random.default_rng(0).normal(size=(3, 4, 5))
    plain = WordMaps("m", "local", True, False, scores, (0, 0, 1, 1))
    other = WordMaps("m", "local", True, False, 0.01 * scores + np.array([5.0, -2.0, 0.3])[:, None, None], (0, 0, 1, 1))
    assert np.allclose(plain.deviations_WYX, other.deviations_WYX)
    assert plain.deviation == pytest.approx(100 * other.deviation)
    assert np.allclose(plain.deviations_WYX.mean((1, 2)), 0.0)
    assert np.sqrt((plain.deviations_WYX**2).mean()) == pytest.approx(1.0)


def test_equal_scores_are_no_map_whatever_rounding_makes_of_them():
    (row, _) = word_maps(constant_encoder(), "m", View(item("x")), CAPTION)
    assert row.deviation == 0.0
    assert not row.deviations_WYX.any()
    rounded = WordMaps("m", "local", True, False, 0.3 + 1e-8 * np.eye(4)[None], (0, 0, 1, 1))
    assert not rounded.deviations_WYX.any()
    unread = WordMaps("m", "local", True, True, np.full((2, 4, 4), np.nan), (0, 0, 1, 1))
    assert unread.deviation == 0.0
    assert np.isnan(unread.deviations_WYX).all()


@pytest.mark.parametrize("changes", [{"gives": frozenset({"image", "text", "global"})}, {"paths": {}}])
def test_a_model_without_patches_is_refused_by_name(changes):
    encoder = knowing()
    for name, value in changes.items():
        setattr(encoder, name, value)
    with pytest.raises(UserError, match="my_model gives no patch vectors, and so no map: leave it out"):
        word_maps(encoder, "my_model", View(item("x")), CAPTION)
