from dataclasses import replace

import numpy as np
import pytest
import torch

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.protocols import _similarity_scores, retrieval, retrieval_rerank
from sparc_bench.protocols.retrieval_rerank import Options
from tests.toys.encoders import LookupEncoder, constant_encoder, item, random_encoder, split_of


class TwoScores(LookupEncoder):
    """The first stage sees global vectors; the own scores (two matrices) see patches and tokens."""

    def similarity(self, images, texts, regions=None, path=None):  # noqa: ARG002
        scores = images.patches["local"].mean(1) @ texts.tokens_MLD[:, 0].T
        return scores, scores + torch.sin(3 * scores)


def data_of(*captions):
    return split_of(Example(id=f"i{i}", image=item(f"i{i}"), captions=tuple(own)) for i, own in enumerate(captions))


def encoder_of(vectors, texts, patches):
    return TwoScores(
        lambda image_id: np.array(vectors[image_id], dtype=float),
        lambda text: np.array(texts[text], dtype=float),
        patch_vectors=lambda _, image_id: np.tile(np.array(patches[image_id], dtype=float), (16, 1)),
        prompt_ensemble="scores",
    )


def options(candidates, ks=(1, 2)):
    return Options(ks=ks, candidates=candidates, ties="expected")


def test_worked_by_hand():
    data = data_of("ab", "c")
    # cosines: of image 0 with a, b, c: 1, 0.6, 0; of image 1: 0, 0.8, 1
    texts = {"a": [1, 0], "b": [0.6, 0.8], "c": [0, 1]}
    # own scores of image 0: a 0, b 1.6, c 2; of image 1: a 3, b 1.8, c 0
    encoder = encoder_of({"i0": [1, 0], "i1": [0, 1]}, texts, {"i0": [0, 2], "i1": [3, 0]})
    outcome = outcome_of(retrieval_rerank, encoder, data, options(2))
    # image 0 re-ranks a and b: b, its own, first; c comes third. Image 1 re-ranks b and c: b above its own c
    assert outcome.examples["rank_image_to_text"].tolist() == [1, 2]
    assert outcome.metrics["image_to_text_r1"].value == 0.5
    outcome = outcome_of(retrieval_rerank, encoder, data, options(1))
    # one candidate is nothing to order: the ranking is that of the cosines
    assert outcome.examples["rank_image_to_text"].tolist() == [1, 1]
    assert outcome.rows["rank_text_to_image"].tolist() == [1, 2, 1]
    assert (outcome.counts["images_left_out"], outcome.counts["captions_left_out"]) == (0, 1)
    assert outcome.counts["pairs_scored"] == 3
    assert "No exact ranking: the model's own score orders each query's 1 best candidates" in outcome.notes[0]
    assert "(3 of 6 pairs)" in outcome.notes[0]
    assert "0 of 2 images had none of their captions among them and 1 of 3 captions not their image" in outcome.notes[0]


def drawn(seed, tied):
    rng = np.random.default_rng(seed)
    captions = [[f"c{rng.integers(0, 60)}" for _ in range(rng.integers(1, 8))] for _ in range(20)]
    data = data_of(*captions)

    def draw():
        return rng.integers(-1, 2, size=4) if tied else rng.standard_normal(4)

    vectors, patches = ({example.id: draw() for example in data} for _ in range(2))
    return data, encoder_of(vectors, {text: draw() for text in data.captions}, patches)


def plain_rank(cosine, own, positive, least):
    """Expected place of the first positive, from sorted pairs of (stage, score)."""
    keys = [(1, o) if c >= least else (0, c) for c, o in zip(cosine, own, strict=True)]
    best = max(key for key, true in zip(keys, positive, strict=True) if true)
    tied = [true for key, true in zip(keys, positive, strict=True) if key == best]
    return sum(key > best for key in keys) + (len(tied) + 1) / (sum(tied) + 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("candidates", [1, 3, 6])
def test_equals_plain_loops(candidates, tied, monkeypatch):
    monkeypatch.setattr(retrieval_rerank, "_TEXTS_AT_ONCE", 7)
    monkeypatch.setattr(retrieval_rerank, "_PAIRS_AT_ONCE", 4)
    monkeypatch.setattr(retrieval_rerank, "_COLUMNS_AT_ONCE", 7)
    data, encoder = drawn(candidates, tied)
    outcome = outcome_of(retrieval_rerank, encoder, data, options(candidates))
    distinct = _similarity_scores.DistinctTexts.of(data.captions)
    texts = _similarity_scores.PackedTexts.of(encoder, distinct.texts)
    cosine_NU = retrieval_rerank._cosines(encoder, data, texts)
    images = encoder.images(data.views, frozenset({"global", "patches"}))
    to_text, to_image = (way.numpy() for way in encoder.similarity(images, texts.take(np.arange(len(texts)))))
    owner, column = data.caption_image_M, distinct.index_M
    of_images = [
        plain_rank(
            cosine_NU[i, column], to_text[i, column], owner == i, np.sort(cosine_NU[i])[-min(candidates, len(texts))]
        )
        for i in range(len(data))
    ]
    of_texts = [
        plain_rank(cosine_NU[:, u], to_image[:, u], np.arange(len(data)) == i, np.sort(cosine_NU[:, u])[-candidates])
        for i, u in zip(owner, column, strict=True)
    ]
    np.testing.assert_allclose(outcome.examples["rank_image_to_text"], of_images, rtol=1e-6)
    np.testing.assert_allclose(outcome.rows["rank_text_to_image"], of_texts, rtol=1e-6)


def test_as_many_candidates_as_there_are_give_the_exact_ranking():
    data, encoder = drawn(0, tied=False)
    exact = outcome_of(retrieval, encoder, data, retrieval.Options(ks=(1, 2), truth="own", ties="expected"))
    whole, part = (
        outcome_of(retrieval_rerank, encoder, data, options(1000)),
        outcome_of(retrieval_rerank, encoder, data, options(3)),
    )
    assert {name: s.value for name, s in whole.metrics.items()} == {name: s.value for name, s in exact.metrics.items()}
    np.testing.assert_array_equal(whole.rows["rank_text_to_image"], exact.rows["rank_text_to_image"])
    assert whole.reference_rows == exact.reference_rows == part.reference_rows
    assert (whole.counts["images_left_out"], whole.counts["captions_left_out"]) == (0, 0)
    assert part.rows["rank_text_to_image"].tolist() != exact.rows["rank_text_to_image"].tolist()
    assert part.counts["pairs_scored"] < whole.counts["pairs_scored"] == exact.counts["distinct_captions"] * len(data)


def test_a_constant_encoder_scores_exactly_chance():
    data = data_of("abcd", "efghi", "jklmno", "pqrstuv")
    outcome = outcome_of(retrieval_rerank, replace(constant_encoder(), prompt_ensemble="scores"), data, options(2))
    assert {name: s.value for name, s in outcome.metrics.items()} == outcome.reference_rows["chance"]
    assert outcome.ties == 4 + 22


def test_a_model_that_scores_by_its_global_vectors_is_refused():
    with pytest.raises(UserError, match="nothing to re-rank: take the task of the exact ranking") as error:
        outcome_of(retrieval_rerank, random_encoder(), data_of("ab", "c"), options(2))
    assert "\n" not in str(error.value)
    assert "global" in retrieval_rerank.NEEDS, "a model without global vectors is refused before anything is read"


def test_long_scores_are_announced_before_they_are_made(monkeypatch, capsys):
    data, encoder = drawn(0, tied=False)
    exact = retrieval.Options(ks=(1,), truth="own", ties="expected")
    outcome_of(retrieval_rerank, encoder, data, options(3))
    outcome_of(retrieval, encoder, data, exact)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_similarity_scores, "ANNOUNCED_SECONDS", 0.0)
    outcome_of(retrieval, random_encoder(), data, exact)
    assert capsys.readouterr().err == "", "scores of one vector each are no pairwise scores"
    distinct = len(set(data.captions))
    outcome_of(retrieval, encoder, data, exact)
    assert f"lookup scores {20 * distinct:,} pairs of an image and a text one by one: about " in capsys.readouterr().err
    pairs = outcome_of(retrieval_rerank, encoder, data, options(3)).counts["pairs_scored"]
    assert f"lookup scores {pairs:,} pairs" in capsys.readouterr().err


def test_packed_texts_are_the_texts_without_their_padding(monkeypatch):
    monkeypatch.setattr(_similarity_scores, "_TEXTS_AT_ONCE", 3)

    class Padded(LookupEncoder):
        def texts(self, texts, need):
            features = super().texts(texts, need)
            length = torch.tensor([len(text) for text in texts])
            place = torch.arange(12)
            mask = (place > 0) & (place <= length[:, None])
            tokens = torch.stack([torch.full((12, 2), float(len(text))) + place[:, None] for text in texts])
            return replace(features, tokens_MLD=tokens, mask_ML=mask)

    texts = ["", "aa", "bbbb", "c", "ddddd", "ee", "fff"]
    encoder = Padded(lambda _: np.ones(2), lambda text: np.full(2, len(text)), prompt_ensemble="scores")
    packed = _similarity_scores.PackedTexts.of(encoder, texts)
    assert encoder.asked == [("texts", 3), ("texts", 3), ("texts", 1)]
    assert packed.length_M.tolist() == [0, 3, 5, 2, 6, 3, 4]
    assert len(packed.tokens_WD) == sum(packed.length_M.tolist())
    whole = encoder.texts(texts, frozenset({"global", "tokens"}))
    runs = []
    for run_of_texts in packed.batches(packed.padding_buffer()):
        runs.append((run_of_texts.tokens_MLD.clone(), run_of_texts.mask_ML.clone(), run_of_texts.global_MD))
    taken = packed.take(np.array([4, 0, 4, 1]))
    assert taken.texts == ("ddddd", "", "ddddd", "aa")
    rows = [
        (index, *(part[i] for part in run))
        for r, run in enumerate(runs)
        for i, index in enumerate(range(r * 3, r * 3 + len(run[0])))
    ]
    rows += [(index, taken.tokens_MLD[i], taken.mask_ML[i], taken.global_MD[i]) for i, index in enumerate([4, 0, 4, 1])]
    assert len(rows) == 7 + 4
    for index, tokens, mask, vector in rows:
        length = len(mask)
        assert torch.equal(mask, whole.mask_ML[index, :length])
        assert not whole.mask_ML[index, length:].any()
        assert torch.equal(tokens[mask], whole.tokens_MLD[index][whole.mask_ML[index]])
        assert torch.equal(vector, whole.global_MD[index])
