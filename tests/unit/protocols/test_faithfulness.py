import json
from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.metrics.caption_words import caption_words
from sparc_bench.metrics.k_precision import KPrecision, k_precision_score
from sparc_bench.outputs.captions import Captions
from sparc_bench.protocols import faithfulness
from sparc_bench.protocols.faithfulness import OUTPUTS, Options
from tests.toys.encoders import answer_key, caption_key, constant_encoder, item, split_of

OPTIONS = Options(
    pool="all",
    references="union",
    tokens="instruct_qa",
    articles="drop",
    tagger="dataset",
    exact_hits="apart",
    ties="expected",
)
TAGS = {"a": "OTHER", "runs": "OTHER", "red": "ADJ", "dog": "NOUN", "cat": "NOUN", "sits": "OTHER", "hen": "NOUN"}


def data_of(*captions, pool=()):
    examples = [Example(id=f"i{i}", image=item(f"i{i}"), captions=own) for i, own in enumerate(captions)]
    return split_of(examples, word_tags=TAGS, pool=pool)


def choosing(data, *choices):
    """An encoder that gives each image the candidates named for it the same top score."""
    texts = list(dict.fromkeys([*data.captions, *data.pool]))
    truth = np.array([[text in chosen for text in texts] for chosen in choices])
    return answer_key([example.id for example in data.examples], texts, truth)


DATA = data_of(("A red dog.", "A dog runs."), ("A cat sits.", "A red cat."))


def found(outcome):
    return {name: statistic.value for name, statistic in outcome.metrics.items()}


def test_worked_by_hand():
    # image 0 retrieves its own caption; image 1 retrieves "red dog", of which its references hold "red" alone
    outcome = outcome_of(faithfulness, choosing(DATA, {"A red dog."}, {"A red dog."}), DATA, OPTIONS)
    assert found(outcome) == pytest.approx(
        {
            "k_precision": 0.75,
            "k_precision_na": 0.75,
            "k_precision_misses": 0.5,
            "k_precision_na_misses": 0.5,
            "r1": 0.5,
        }
    )
    assert outcome.counts["misses"] == 1
    assert outcome.examples["k_precision"].tolist() == [1, 0.5]
    assert outcome.examples["correct"].tolist() == [1, 0]
    assert outcome.examples["retrieved"].tolist() == [0, 0]
    assert outcome.ties == 0


def test_tied_candidates_share_the_credit():
    # image 1 ties between a hit and "dog runs", which has nothing of its references: K-P 1/2, on misses 0
    outcome = outcome_of(faithfulness, choosing(DATA, {"A red dog."}, {"A red cat.", "A dog runs."}), DATA, OPTIONS)
    assert found(outcome)["k_precision"] == pytest.approx(0.75)
    assert found(outcome)["k_precision_misses"] == 0
    assert found(outcome)["r1"] == pytest.approx(0.75)
    assert outcome.ties == 1


def test_a_caption_without_content_words_is_left_out_and_counted():
    data = replace(DATA, pool=("runs",))
    outcome = outcome_of(faithfulness, choosing(data, {"runs"}, {"A red cat."}), data, OPTIONS)
    assert outcome.counts["without_content_words"] == 1
    assert outcome.counts["candidates"] == 5
    assert found(outcome)["k_precision"] == pytest.approx(1)
    assert np.isnan(outcome.examples["k_precision_na"][0])
    assert outcome.metrics["k_precision_na"].count_G.tolist() == [0, 1]
    assert np.isnan(found(outcome)["k_precision_na_misses"])
    assert outcome.examples["retrieved"].tolist() == [4, 3]


def test_a_pool_caption_with_an_own_string_is_no_miss():
    data = replace(DATA, pool=("A red dog.",))
    assert outcome_of(faithfulness, caption_key(data), data, OPTIONS).counts["candidates"] == 4


def test_reference_rows():
    data = data_of(("red dog", "dog"), ("red cat", "cat"), ("red hen", "hen"), ("red dog", "red hen"))
    outcome = outcome_of(faithfulness, constant_encoder(), data, OPTIONS)
    plain = [
        [
            k_precision_score(caption_words(text, "drop"), [caption_words(c, "drop") for c in e.captions], "union")
            for text in dict.fromkeys(data.captions)
        ]
        for e in data.examples
    ]
    assert outcome.reference_rows["random_caption"]["k_precision"] == pytest.approx(np.mean(plain))
    assert found(outcome)["k_precision"] == pytest.approx(np.mean(plain))
    # "red dog" is the first of the best on images 0 and 2 and scores .5 and 1 on the others; there "red dog" and
    # "red hen" tie, "red dog" comes first, and scores 1 and .5 on images 0 and 2
    assert outcome.reference_rows["constant"]["k_precision"] == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert outcome.reference_rows["constant"]["k_precision_misses"] == pytest.approx(0.5)
    # "red dog" against "dog" 1/2, "dog" against "red dog" 1, likewise; "red dog" against "red hen" 1/2 each
    assert outcome.reference_rows["human"]["k_precision"] == pytest.approx((3 * 0.75 + 0.5) / 4)


def of(**options):
    return OPTIONS.model_copy(update=options)


def test_own_captions_out_of_the_pool():
    # each image's own caption scores highest; without it image 0 is left with a tie of image 1's two captions
    encoder = choosing(DATA, {"A red dog.", "A dog runs."}, {"A red cat.", "A cat sits.", "A dog runs."})
    outcome = outcome_of(faithfulness, encoder, DATA, of(exact_hits="excluded"))
    assert set(outcome.metrics) == {"k_precision", "k_precision_na"}
    # image 0: "cat sits" 0 and "red cat" 1/2; image 1: "dog runs" 0
    assert outcome.examples["k_precision"].tolist() == [0.25, 0]
    assert outcome.ties == 1
    assert "correct" not in outcome.examples
    # the others' captions for image 0: 0 and 1/2; for image 1: "red dog" 1/2 and "dog runs" 0
    assert outcome.reference_rows["random_caption"] == {"k_precision": 0.25, "k_precision_na": pytest.approx(0.25)}
    assert set(outcome.reference_rows["constant"]) == {"k_precision", "k_precision_na"}


def test_excluded_equals_misses_where_no_image_has_a_hit():
    encoder = choosing(DATA, {"A red cat."}, {"A red dog."})
    apart, excluded = (
        found(outcome_of(faithfulness, encoder, DATA, of(exact_hits=rule))) for rule in ("apart", "excluded")
    )
    assert excluded["k_precision"] == apart["k_precision_misses"] == 0.5


def test_a_pool_of_own_captions_alone():
    data = data_of(("A red dog.",))
    with pytest.raises(UserError, match="no caption of another image"):
        outcome_of(faithfulness, caption_key(data), data, of(exact_hits="excluded"))


def test_an_own_caption_against_the_others():
    outcome = outcome_of(faithfulness, caption_key(DATA), DATA, of(exact_hits="other_references"))
    # both captions of an image tie: "red dog" has 1/2 of "dog runs" and the reverse; "cat sits" and "red cat" alike
    assert found(outcome)["k_precision"] == pytest.approx(0.5)
    assert found(outcome)["r1"] == 1
    assert found(outcome)["k_precision"] == pytest.approx(outcome.reference_rows["human"]["k_precision"])
    # misses do not know the difference
    encoder = choosing(DATA, {"A red cat."}, {"A red dog."})
    first, second = (
        found(outcome_of(faithfulness, encoder, DATA, of(exact_hits=rule))) for rule in ("apart", "other_references")
    )
    assert first["k_precision_misses"] == second["k_precision_misses"]


def test_the_pool_of_the_split_alone():
    data = replace(DATA, pool=("A hen.",))
    encoder = choosing(data, {"A hen."}, {"A red cat."})
    assert outcome_of(faithfulness, encoder, data, OPTIONS).counts["candidates"] == 5
    outcome = outcome_of(faithfulness, encoder, data, of(pool="split"))
    assert outcome.counts["candidates"] == 4
    # without the hen all four captions tie for image 0
    assert outcome.ties == 1


def test_tokens():
    data = replace(data_of(("A red-dog",), ("A red cat",)), word_tags={**TAGS, "reddog": "NOUN"})
    encoder = choosing(data, {"A red cat"}, {"A red cat"})
    assert outcome_of(faithfulness, encoder, data, OPTIONS).examples["k_precision"].tolist() == [0, 1]
    assert outcome_of(faithfulness, encoder, data, of(tokens="letters")).examples["k_precision"].tolist() == [0.5, 1]


@pytest.mark.parametrize("rule", ["union", "multiset", "max"])
def test_the_constant_caption_is_chosen_on_other_images(rule):
    data = replace(data_of(("A red dog.",), ("A dog runs.",), ("A red cat.",)), tuning=(("cat",), ("a cat", "red")))
    outcome = outcome_of(faithfulness, constant_encoder(), data, of(references=rule))
    # "red cat" is best there: 1/2 and 1 (by a single reference 1/2); here it scores 1/2, 0 and 1
    assert outcome.reference_rows["constant"]["k_precision"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert outcome.reference_rows["constant"]["k_precision_misses"] == pytest.approx((0.5 + 0) / 2)
    assert outcome.notes[2] == "The constant caption is the best on 2 other images."


def test_later_options_leave_hashes_as_they_were():
    assert OPTIONS.model_dump() == {"references": "union", "articles": "drop", "tagger": "dataset", "ties": "expected"}
    assert of(tokens="letters", pool="split", exact_hits="excluded").model_dump() == {
        **OPTIONS.model_dump(),
        "tokens": "letters",
        "pool": "split",
        "exact_hits": "excluded",
    }


def test_given_captions_may_not_be_own_ones_where_these_are_excluded():
    given = Captions("captions.json", ("i0", "i1"), ("a RED dog", "A red dog."))
    with pytest.raises(UserError, match="gives 1 images one of their own captions"):
        OUTPUTS["captions"](given, DATA, of(exact_hits="excluded"))


def test_the_data_sets_own_tags_need_a_data_set_that_has_them():
    with pytest.raises(UserError, match="tagger = 'hanta'"):
        outcome_of(faithfulness, constant_encoder(), replace(DATA, word_tags=None), OPTIONS)


@pytest.mark.slow
def test_hanta_is_named_with_its_version():
    pytest.importorskip("HanTa")
    outcome = outcome_of(faithfulness, caption_key(DATA), DATA, OPTIONS.model_copy(update={"tagger": "hanta"}))
    assert found(outcome)["k_precision_na"] == pytest.approx(1)
    assert "HanTa 1." in outcome.notes[0]


@pytest.fixture(scope="module")
def coco_words(test_data):
    """The captions of COCO val2017 by image, as words with articles."""
    rows = json.loads((test_data / "coco_val2017_mini" / "captions_val2017_all.json").read_text())["annotations"]
    by_image: dict[int, list[tuple[str, ...]]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(caption_words(row["caption"], "keep"))
    return list(by_image.values())


def without_articles(captions):
    return [tuple(word for word in words if word not in ("a", "an", "the")) for words in captions]


def human(captions_by_image, rule):
    return np.nanmean(
        [
            k_precision_score(words, captions[:i] + captions[i + 1 :], rule)
            for captions in captions_by_image
            for i, words in enumerate(captions)
        ]
    )


@pytest.mark.slow
def test_floors_on_coco(coco_words):
    """Counted independently. With articles: "A" .998, human .52 (max); without: human .58, random .18 (union)."""
    assert KPrecision([("a",)], "union").scores(coco_words).mean() == pytest.approx(0.998, abs=0.0006)
    assert human(coco_words[::4], "max") == pytest.approx(0.52, abs=0.01)
    references = [without_articles(captions) for captions in coco_words]
    assert human(references[::4], "union") == pytest.approx(0.58, abs=0.01)
    # one word that most references hold beats a human caption: why captions of other systems need their lengths told
    words = [set().union(*captions) for captions in references]
    assert np.mean(["of" in known for known in words]) == pytest.approx(0.733, abs=0.0005)
    assert KPrecision([("of",), ("man", "in")], "union").scores(references).mean(axis=0) == pytest.approx(
        [np.mean(["of" in known for known in words]), np.mean([[w in known for w in ("man", "in")] for known in words])]
    )
    sample = [captions[0] for captions in references[::50]]
    assert np.nanmean(KPrecision(sample, "union").scores(references)) == pytest.approx(0.18, abs=0.015)
