"""What only some encoders can do: declared in `gives`, asked for by name, passed on by every wrapper."""

import pytest
import torch

from sparc_bench.cards.model_card import ModelCard
from sparc_bench.encoder import Encoder, ImageTextEncoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.features import Detections, TextFeatures
from sparc_bench.images.view import View
from sparc_bench.models.encoder_wrapper import EncoderWrapper
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.models.plugin_encoder import checked_encoder
from tests.toys.encoders import item

VIEWS = [View(item("a")), View(item("b"), (0.0, 0.0, 4.0, 4.0))]
TEXTS = TextFeatures(("cat", "dog"))
CARD = ModelCard(name="able", title="Able", family="able", source="none")


class Bare(ImageTextEncoder):
    """Can do no more than vectors."""

    def __init__(self, gives=()):
        super().__init__(CARD, Runtime(), lambda view: view, "none")
        self.gives = self.gives | set(gives)


class Able(Bare):
    """Finds one box in each view."""

    identity, recipe, train_words, token_path, logit_scale = {"able": 1}, None, {"cat": 3}, "local", 20.0

    def __init__(self, score=0.5):
        super().__init__(("detect", "propose", "generate"))
        self.identity, self.score, self.opens_images = {"able": 1}, score, False

    def detect(self, views, texts):
        return self._boxes(len(views), len(texts) - 1)

    def propose(self, views):
        return self._boxes(len(views), 0)

    def generate(self, views, prompt):
        return [f"{prompt} {view.id}" for view in views]

    def token_maps(self, images, words, path=None):  # noqa: ARG002
        return torch.full((1, len(words), 1, 1), 7.0)

    def _boxes(self, count, text):
        box_R4, score_R = torch.tensor([[0.0, 0.0, 4.0, 4.0]]).repeat(count, 1), torch.full((count,), 0.5)
        score_R[-1] = self.score
        return Detections(torch.arange(count), torch.full((count,), text), box_R4, score_R)


@pytest.mark.parametrize(
    "wrapped", [EncoderWrapper, FiniteEncoder, lambda inner: WatchedEncoder(inner, lambda _: None)]
)
def test_wrappers_pass_all_parts_on(wrapped):
    able = Able()
    checked_encoder(able, "here", "its code")
    around = wrapped(able)
    assert around.detect(VIEWS, TEXTS).text_index_R.tolist() == [1, 1]
    assert around.propose(VIEWS).text_index_R.tolist() == [0, 0]
    assert around.generate(VIEWS, "say") == ["say a", "say b"]
    assert around.token_maps(None, ["cat"]).item() == 7
    declared = {name for name in Encoder.__annotations__ if hasattr(Encoder, name)}
    assert declared >= {"runtime", "identity", "code_hash", "recipe", "train_words", "opens_images", "token_path"}
    for name in Encoder.__annotations__:
        assert getattr(around, name) == getattr(able, name), name
    assert (around.code_hash, around.opens_images, around.logit_scale) == ("its code", False, 20.0)


def test_parts_that_are_not_there_have_defaults():
    bare = Bare()
    assert (bare.identity, bare.code_hash, bare.recipe, bare.train_words, bare.opens_images) == (None,) * 4 + (True,)
    assert (bare.token_path, bare.logit_scale, bare.untrained()) == (None, None, None)
    for call in (lambda: bare.detect(VIEWS, TEXTS), lambda: bare.propose(VIEWS), lambda: bare.generate(VIEWS, "say")):
        with pytest.raises(RuntimeError, match="able has no "):
            call()


def test_each_view_is_counted():
    counted = []
    watched = WatchedEncoder(Able(), counted.append)
    watched.detect(VIEWS, TEXTS)
    watched.propose(VIEWS[:1])
    watched.generate(VIEWS, "say")
    assert counted == [2, 1, 2]


@pytest.mark.parametrize(
    ("call", "what"),
    [(lambda e: e.detect(VIEWS, TEXTS), "detections"), (lambda e: e.propose(VIEWS), "proposals")],
)
def test_boxes_that_are_not_finite_are_refused(call, what):
    with pytest.raises(UserError, match=rf"boxes or scores of 1 of 2 {what} that are not finite .* in image 'b'"):
        call(FiniteEncoder(Able(torch.nan)))


@pytest.mark.parametrize("part", ["detect", "propose", "generate"])
def test_a_plugin_that_says_more_than_it_can_is_refused(part):
    with pytest.raises(UserError, match=f"returns has no {part}: derive"):
        checked_encoder(Bare((part,)), "here", "")
    assert checked_encoder(Bare(), "here", "").code_hash == ""


def test_a_class_of_its_own_needs_what_has_no_default():
    class Alone(Encoder):
        card, gives, paths, weights_hash = CARD, frozenset({"image"}), {}, "none"
        prompt_ensemble, precision, device = "embeddings", "float32", torch.device("cpu")

    with pytest.raises(UserError, match=r"Alone that .* has no preprocess, similarity, stream, texts: "):
        checked_encoder(Alone(), "here", "")
