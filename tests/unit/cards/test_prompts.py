"""Class lists and prompt sets, and how prompts become scores."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery, prompts
from sparc_bench.cards.card import parse
from sparc_bench.cards.prompts import Prompts, class_list, class_words, expanded, templates
from sparc_bench.datasets import image_folder
from sparc_bench.errors import UserError
from sparc_bench.features import TextFeatures
from sparc_bench.protocols import classification
from sparc_bench.protocols._prompted_classes import PromptedClasses
from tests.toys.encoders import LookupEncoder, constant_encoder


def test_prefixes_and_suffixes_make_every_pair():
    card = parse(Prompts, {"source": "test", "prefixes": "a_photo_of_a", "suffixes": ["I like it.", "or not"]}, "test")
    assert expanded(card, Path("test")) == ("a photo of a {}, I like it.", "a photo of a {}, or not")
    found = templates("prefix_suffix")
    assert len(set(found)) == len(found) == 80 * 6
    assert "itap of a {}, I like it." in found
    assert "a {} in a video game, It's cute." in found


@pytest.mark.parametrize(
    "card",
    [{}, {"prefixes": "bare"}, {"suffixes": ["x"]}, {"templates": ["{}"], "prefixes": "bare", "suffixes": ["x"]}],
)
def test_a_prompt_card_is_one_or_the_other(card):
    with pytest.raises(UserError, match="write either templates, or prefixes and suffixes"):
        expanded(parse(Prompts, {"source": "test", **card}, "test"), Path("test"))


def test_words_of_open_clip_are_those_of_the_imported_package():
    import open_clip
    from timm.data import ImageNetInfo

    words = class_list("imagenet")
    assert list(words.values()) == list(open_clip.IMAGENET_CLASSNAMES)
    assert list(words) == ImageNetInfo("imagenet-1k").label_names()
    for name, source in (
        ("openai80", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("openai7", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ):
        assert templates(name) == tuple(template("{}") for template in source)


def test_unknown_lists_name_the_nearest():
    with pytest.raises(UserError, match="no class list 'imagnet': did you mean 'imagenet'"):
        class_list("imagnet")
    with pytest.raises(UserError, match="imagenet has no words for the class 'n0'"):
        prompts.class_words("imagenet", ["n0"])


def test_cifar100_has_its_classes_in_order():
    words = class_list("cifar100")
    assert len(words) == 100
    assert list(words) == sorted(words)
    assert (words["aquarium_fish"], words["worm"]) == ("aquarium fish", "worm")


def noisy(seed=0):
    """Vectors with an error that depends on the place in the batch, as float arithmetic has."""
    rng = np.random.default_rng(seed)
    vectors: dict[str, np.ndarray] = {}

    def text_vector(text: str) -> np.ndarray:
        vectors.setdefault(text, rng.standard_normal(4))
        return vectors[text] + 1e-6 * rng.standard_normal(4)

    return LookupEncoder(lambda _: np.array([1.0, -1.0, 0.5, 2.0]), text_vector)


@pytest.mark.parametrize("ensemble", ["embeddings", "scores"])
@pytest.mark.parametrize("names", [("{}",), ("a {}", "the {}")])
def test_repeated_words_tie_exactly(ensemble, names):
    encoder = noisy()
    encoder.prompt_ensemble = ensemble
    classes = PromptedClasses(encoder, ["missile", "cat", "missile", "dog"], names)
    image_ND = torch.tensor([[1.0, -1.0, 0.5, 2.0]])

    def score(texts: TextFeatures) -> torch.Tensor:
        return image_ND @ texts.global_MD.T.float()

    scores_NC = classes.scores(score)
    assert scores_NC.shape == (1, 4)
    assert scores_NC[0, 0] == scores_NC[0, 2]
    assert len(set(scores_NC[0].tolist())) == 3


def test_encoding_in_parts_changes_nothing(monkeypatch):
    def encoder():
        vector = np.random.default_rng(1).standard_normal((64, 4))
        return LookupEncoder(lambda _: np.ones(4), lambda text: vector[int(text.split()[1])])

    words = [str(number) for number in range(12)]
    whole = PromptedClasses(encoder(), words, ("a {}", "the {}", "my {}")).texts.global_MD
    monkeypatch.setattr("sparc_bench.protocols._prompted_classes._PROMPTS_AT_ONCE", 7)
    in_parts = encoder()
    assert torch.equal(PromptedClasses(in_parts, words, ("a {}", "the {}", "my {}")).texts.global_MD, whole)
    assert [count for what, count in in_parts.asked if what == "texts"] == [6] * 6


@pytest.mark.parametrize("name", ["cifar10_mini", "imagenet1k_sample_bare"])
def test_a_constant_encoder_scores_exactly_chance_on_real_photos(test_data, name):
    card = discovery.task(name)
    data = image_folder.read(test_data, card.split, parse(image_folder.Options, card.data, name))
    outcome = outcome_of(classification, constant_encoder(), data, parse(classification.Options, card.options, name))
    assert {metric: outcome.metrics[metric].value for metric in card.chance} == pytest.approx(card.chance, abs=1e-15)
    assert outcome.ties == len(data)
    notes = ["2 class words repeat an earlier class's and always tie with it."] if "imagenet" in name else []
    assert list(outcome.notes) == notes


def test_a_set_and_a_list_named_by_path(tmp_path):
    (tmp_path / "mine.toml").write_text('source = "me"\ntemplates = ["a {}", "one {}"]\n')
    (tmp_path / "more.toml").write_text('source = "me"\nprefixes = "mine.toml"\nsuffixes = ["a pet."]\n')
    (tmp_path / "words.toml").write_text('source = "me"\n[words]\ncat = "tabby"\n')
    assert templates(str(tmp_path / "mine.toml")) == ("a {}", "one {}")
    assert templates(str(tmp_path / "more.toml")) == ("a {}, a pet.", "one {}, a pet.")
    assert class_words(str(tmp_path / "words.toml"), ["cat"]) == ["tabby"]
    with pytest.raises(UserError, match=r"words\.toml has no words for the class 'dog'"):
        class_words(str(tmp_path / "words.toml"), ["dog"])
    with pytest.raises(UserError, match=r"none\.toml cannot be read .*: check the path"):
        templates(str(tmp_path / "none.toml"))
