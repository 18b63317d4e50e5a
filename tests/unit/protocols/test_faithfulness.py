import json
from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.errors import UserError
from sparc_bench.examples import Example
from sparc_bench.metrics.k_precision import KPrecision, k_precision_score
from sparc_bench.metrics.tokens import caption_words
from sparc_bench.protocols.faithfulness import Options, run
from tests.contract.encoders import answer_key, caption_key, constant_encoder, item, split_of

OPTIONS = Options(references="union", articles="drop", tagger="dataset", ties="expected")
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
    outcome = run(choosing(DATA, {"A red dog."}, {"A red dog."}), DATA, OPTIONS)
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
    outcome = run(choosing(DATA, {"A red dog."}, {"A red cat.", "A dog runs."}), DATA, OPTIONS)
    assert found(outcome)["k_precision"] == pytest.approx(0.75)
    assert found(outcome)["k_precision_misses"] == 0
    assert found(outcome)["r1"] == pytest.approx(0.75)
    assert outcome.ties == 1


def test_a_caption_without_content_words_is_left_out_and_counted():
    data = replace(DATA, pool=("runs",))
    outcome = run(choosing(data, {"runs"}, {"A red cat."}), data, OPTIONS)
    assert outcome.counts["without_content_words"] == 1
    assert outcome.counts["candidates"] == 5
    assert found(outcome)["k_precision"] == pytest.approx(1)
    assert np.isnan(outcome.examples["k_precision_na"][0])
    assert outcome.metrics["k_precision_na"].count_G.tolist() == [0, 1]
    assert np.isnan(found(outcome)["k_precision_na_misses"])
    assert outcome.examples["retrieved"].tolist() == [4, 3]


def test_a_pool_caption_with_an_own_string_is_no_miss():
    data = replace(DATA, pool=("A red dog.",))
    assert run(caption_key(data), data, OPTIONS).counts["candidates"] == 4


def test_reference_rows():
    data = data_of(("red dog", "dog"), ("red cat", "cat"), ("red hen", "hen"), ("red dog", "red hen"))
    outcome = run(constant_encoder(), data, OPTIONS)
    plain = [
        [
            k_precision_score(caption_words(text, "drop"), [caption_words(c, "drop") for c in e.captions], "union")
            for text in dict.fromkeys(data.captions)
        ]
        for e in data.examples
    ]
    assert outcome.reference["random_caption"]["k_precision"] == pytest.approx(np.mean(plain))
    assert found(outcome)["k_precision"] == pytest.approx(np.mean(plain))
    # "red dog" is the first of the best on images 0 and 2 and scores .5 and 1 on the others; there "red dog" and
    # "red hen" tie, "red dog" comes first, and scores 1 and .5 on images 0 and 2
    assert outcome.reference["constant"]["k_precision"] == pytest.approx((0.5 + 1 + 1 + 0.5) / 4)
    assert outcome.reference["constant"]["k_precision_misses"] == pytest.approx(0.5)
    # "red dog" against "dog" 1/2, "dog" against "red dog" 1, likewise; "red dog" against "red hen" 1/2 each
    assert outcome.reference["human"]["k_precision"] == pytest.approx((3 * 0.75 + 0.5) / 4)


def test_the_data_sets_own_tags_need_a_data_set_that_has_them():
    with pytest.raises(UserError, match="tagger = 'hanta'"):
        run(constant_encoder(), replace(DATA, word_tags=None), OPTIONS)


def test_hanta_is_named_with_its_version():
    pytest.importorskip("HanTa")
    outcome = run(caption_key(DATA), DATA, OPTIONS.model_copy(update={"tagger": "hanta"}))
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


def test_floors_on_coco(coco_words):
    """Counted independently. With articles: "A" .998, human .52 (max); without: human .58, random .18 (union)."""
    assert KPrecision([("a",)], "union").scores(coco_words).mean() == pytest.approx(0.998, abs=0.0006)
    assert human(coco_words[::4], "max") == pytest.approx(0.52, abs=0.01)
    references = [without_articles(captions) for captions in coco_words]
    assert human(references[::4], "union") == pytest.approx(0.58, abs=0.01)
    sample = [captions[0] for captions in references[::50]]
    assert np.nanmean(KPrecision(sample, "union").scores(references)) == pytest.approx(0.18, abs=0.015)
