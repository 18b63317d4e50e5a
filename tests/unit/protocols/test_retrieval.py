from dataclasses import replace

import numpy as np
import pytest

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.protocols import retrieval
from sparc_bench.protocols._similarity_scores import DistinctTexts
from sparc_bench.protocols.retrieval import Options, hit_rates, ranking_scores
from tests.toys.encoders import LookupEncoder, answer_key, caption_key, constant_encoder, item, split_of

OWN = Options(ks=(1, 2), truth="own", ties="expected")
FULL = Options(ks=(1, 2), truth="full", ties="expected")


def data_of(*captions, tags=(), truth=None):
    examples = [
        Example(id=f"i{i}", image=item(f"i{i}"), captions=own, caption_tags=tags[: len(own)])
        for i, own in enumerate(captions)
    ]
    known = None if truth is None else lambda _: np.array(truth, dtype=bool)
    return split_of(examples, caption_truth=known)


def test_worked_by_hand():
    data = data_of(("a", "b"), ("c",), tags=("kind 1", "kind 2"))
    # image 0 likes c best, then a, then b; image 1 likes a, c, b
    scores = np.array([[2.0, 1.0, 3.0], [3.0, 1.0, 2.0]])
    images = {"i0": scores[0], "i1": scores[1]}
    texts = dict(zip("abc", np.eye(3), strict=True))
    outcome = outcome_of(retrieval, LookupEncoder(images.__getitem__, texts.__getitem__), data, OWN)
    found = {name: statistic.value for name, statistic in outcome.metrics.items()}
    # a: image 1 first, so wrong; b: a tie of both images; c: image 0 first, so wrong
    assert found == pytest.approx(
        {"image_to_text_r1": 0, "image_to_text_r2": 1, "text_to_image_r1": 0.5 / 3, "text_to_image_r2": 1}
    )
    assert outcome.examples["rank_image_to_text"].tolist() == [2, 2]
    assert outcome.rows["rank_text_to_image"].tolist() == [2, 1.5, 2]
    assert outcome.ties == 1
    kinds = outcome.groups["caption kind"]
    assert (kinds["kind 1"].value, kinds["kind 2"].value) == (0, 0.5)
    assert outcome.counts["captions_per_image_min"] == 1
    assert outcome.counts["captions_per_image_max"] == 2
    assert outcome.reference_rows["chance"]["text_to_image_r1"] == pytest.approx(1 / 2)
    assert outcome.reference_rows["constant"] == {"image_to_text_r1": 0.5, "text_to_image_r1": pytest.approx(2 / 3)}


def test_equal_strings_tie_and_lower_the_ceiling():
    data = data_of(("same",), ("same",), ("other",))
    outcome = outcome_of(retrieval, caption_key(data), data, OWN)
    # the best that can be done: two images share a string
    assert outcome.metrics["text_to_image_r1"].value == pytest.approx(2 / 3)
    assert outcome.reference_rows["ceiling"]["text_to_image_r1"] == pytest.approx(2 / 3)
    assert outcome.reference_rows["ceiling"]["image_to_text_r1"] == pytest.approx(2 / 3)
    assert outcome.counts["distinct_captions"] == 2


def test_full_truth_counts_every_true_caption_and_says_what_own_pairs_could_reach():
    truth = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    data = data_of(("a",), ("b",), ("c",), truth=truth)
    outcome = outcome_of(retrieval, caption_key(data, np.array(truth, dtype=bool)), data, FULL)
    found = {name: statistic.value for name, statistic in outcome.metrics.items()}
    for name in ("image_to_text_r1", "text_to_image_r1", "image_to_text_map_r", "text_to_image_map_r"):
        assert found[name] == pytest.approx(1)
    assert found["text_to_image_own_r1"] == pytest.approx(2 / 3)
    assert outcome.reference_rows["ceiling"]["text_to_image_own_r1"] == pytest.approx(2 / 3)
    assert outcome.reference_rows["ceiling"]["text_to_image_map_r"] == pytest.approx(1)
    assert outcome.counts["true_pairs"] == 5


def test_full_truth_needs_a_data_set_that_knows():
    with pytest.raises(UserError, match="truth = 'own'"):
        outcome_of(retrieval, constant_encoder(), data_of(("a",), ("b",)), FULL)


def test_a_caption_must_be_true_of_its_own_image():
    with pytest.raises(RuntimeError, match="own image"):
        outcome_of(retrieval, constant_encoder(), data_of(("a",), ("b",), truth=[[0, 1], [0, 1]]), FULL)


def test_captions_are_clustered_by_image():
    data = data_of(("a", "b", "c"), ("d",))
    statistic = outcome_of(retrieval, caption_key(data), data, OWN).metrics["text_to_image_r1"]
    np.testing.assert_array_equal(statistic.count_G, [3, 1])


def test_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 5, size=(50, 20)).astype(np.float32), rng.random((50, 20)) < 0.2
    whole = ranking_scores(scores, truth, (1, 5), with_map=True)
    monkeypatch.setattr(retrieval, "_QUERIES_AT_ONCE", 7)
    parts = ranking_scores(scores, truth, (1, 5), with_map=True)
    np.testing.assert_array_equal(whole.hits[5], parts.hits[5])
    np.testing.assert_array_equal(whole.rank_Q, parts.rank_Q)
    np.testing.assert_array_equal(whole.map_r_Q, parts.map_r_Q)


def test_each_string_is_encoded_once():
    data = data_of(("a", "b"), ("a",))
    encoder = answer_key(["i0", "i1"], ["a", "b"], np.eye(2))
    outcome_of(retrieval, encoder, data, OWN)
    assert encoder.asked == [("images", 2), ("texts", 2)]
    assert DistinctTexts.of(data.captions).index_M.tolist() == [0, 1, 0]


def test_a_pairwise_model_gets_patches_and_tokens():
    data = data_of(("a",), ("b",))
    key = caption_key(data)

    class Pairwise(LookupEncoder):
        def similarity(self, images, texts, regions=None, path=None):  # noqa: ARG002
            scores = images.patches["local"].mean(1) @ texts.tokens_MLD[:, 0].T
            return scores, scores

    encoder = Pairwise(key.image_vector, key.text_vector, prompt_ensemble="scores")
    assert outcome_of(retrieval, encoder, data, OWN).metrics["text_to_image_r1"].value == 1
    assert (
        outcome_of(retrieval, replace(key, gives=key.gives - {"tokens"}), data, OWN).metrics["text_to_image_r1"].value
        == 1
    )


@pytest.mark.parametrize("truth", [None, [[1, 1, 0, 1], [1, 1, 1, 0], [0, 0, 1, 1]]])
def test_hit_rates_alone_are_those_of_the_task(truth):
    data = data_of(("a", "b"), ("c",), ("a",), truth=truth)
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, size=(3, 3)).astype(float)  # with ties
    images = {f"i{row}": scores[row] for row in range(3)}
    encoder = LookupEncoder(images.__getitem__, dict(zip("abc", np.eye(3), strict=True)).__getitem__)
    whole = outcome_of(retrieval, encoder, data, OWN if truth is None else FULL).metrics
    found = hit_rates(encoder, data, (1, 2))
    assert found.keys() == {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 2)}
    assert found == {name: whole[name].value for name in found}
    assert not all(value in (0, 1) for value in found.values())
