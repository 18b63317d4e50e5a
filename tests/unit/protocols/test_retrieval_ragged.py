"""Several captions per image, not always as many: by hand, and against plain loops that know nothing of our ranks."""

from itertools import pairwise
from math import comb

import numpy as np
import pytest
import torch
from PIL import Image

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.protocols import retrieval
from sparc_bench.protocols.retrieval import Options
from tests.toys.encoders import LookupEncoder, constant_encoder, item, random_encoder, split_of

COUNTS = (4, 5, 6, 7)
ENDS = [0, *np.cumsum(COUNTS).tolist()]


class Given(LookupEncoder):
    """Scores as given: two matrices, images x distinct texts."""

    def similarity(self, images, texts, regions=None, path=None):  # noqa: ARG002
        rows = images.global_ND.argmax(1)
        columns = texts.global_MD.argmax(1)
        both = [torch.tensor(matrix, dtype=torch.float32)[rows][:, columns] for matrix in self.matrices]
        return both[0], both[1]


def given(data, image_to_text, text_to_image):
    texts = list(dict.fromkeys(data.captions))
    image_rows = {example.id: np.eye(len(data))[row] for row, example in enumerate(data)}
    text_rows = dict(zip(texts, np.eye(len(texts)), strict=True))
    encoder = Given(image_rows.__getitem__, text_rows.__getitem__)
    encoder.matrices = (image_to_text, text_to_image)
    return encoder


def ragged(counts, texts=None):
    ends = [0, *np.cumsum(counts).tolist()]
    texts = texts or [f"caption {number}" for number in range(ends[-1])]
    return split_of(
        Example(id=f"i{i}", image=item(f"i{i}"), captions=tuple(texts[start:stop]))
        for i, (start, stop) in enumerate(pairwise(ends))
    )


def test_four_five_six_and_seven_captions_worked_by_hand():
    data = ragged(COUNTS)
    image_to_text = np.tile(np.arange(22.0), (4, 1))
    image_to_text[0, 1] = 30  # image 0: its second caption is the best of all 22
    image_to_text[1, 5] = 20.5  # image 1: one of its five is second, after caption 21
    image_to_text[2, [9, 14]] = 16.5  # image 2: 17 to 21 above, two of its six tied for the sixth place
    image_to_text[3] = 0  # image 3: all tied, seven of them its own
    text_to_image = np.zeros((4, 22))
    text_to_image[0, 0:4] = 1  # four captions: their image first
    text_to_image[[1, 2], 4:9] = [[1] * 5, [2] * 5]  # five: their image second
    text_to_image[[2, 3], 9:15] = 1  # six: their image tied with another one for the first place
    text_to_image[0:3, 15:22] = 1  # seven: their image last
    outcome = outcome_of(
        retrieval, given(data, image_to_text, text_to_image), data, Options(ks=(1, 2, 5), truth="own", ties="expected")
    )

    tied = [1 - comb(15, k) / comb(22, k) for k in (1, 2, 5)]
    expected = {
        "image_to_text_r1": (1 + 0 + 0 + tied[0]) / 4,
        "image_to_text_r2": (1 + 1 + 0 + tied[1]) / 4,
        "image_to_text_r5": (1 + 1 + 0 + tied[2]) / 4,
        "text_to_image_r1": (4 + 0 + 6 / 2 + 0) / 22,
        "text_to_image_r2": (4 + 5 + 6 + 0) / 22,
        "text_to_image_r5": 1,
    }
    assert {name: stat.value for name, stat in outcome.metrics.items()} == pytest.approx(expected, abs=1e-12)
    assert outcome.examples["rank_image_to_text"].tolist() == [1, 2, 6, 1 + 15 / 8]
    assert outcome.rows["rank_text_to_image"].tolist() == [1] * 4 + [2] * 5 + [1.5] * 6 + [4] * 7
    assert outcome.ties == 1 + 6
    np.testing.assert_array_equal(outcome.metrics["text_to_image_r1"].count_G, COUNTS)
    assert (outcome.counts["captions_per_image_min"], outcome.counts["captions_per_image_max"]) == (4, 7)


def drawn(seed):
    """Ragged data with repeated wordings, and scores of which many tie."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 8, size=30)
    texts = [f"caption {rng.integers(0, 90)}" for _ in range(counts.sum())]
    data = ragged(counts, texts)
    shape = (len(data), len(set(texts)))
    return data, rng.integers(0, 6, size=shape).astype(float), rng.standard_normal(shape)


def shares(score, positive, k):
    """Chance of a positive among the best k when equal scores stand in a random order; and its expected place."""
    best = max(value for value, own in zip(score, positive, strict=True) if own)
    above = sum(value > best for value in score)
    tied = sum(value == best for value in score)
    own = sum(value == best and mine for value, mine in zip(score, positive, strict=True))
    left = k - above
    chance = 0.0 if left <= 0 else 1.0 if left >= tied else 1 - comb(tied - own, left) / comb(tied, left)
    return chance, above + (tied + 1) / (own + 1)


@pytest.mark.parametrize("seed", range(4))
def test_equals_plain_loops_over_ragged_data(seed):
    data, image_to_text, text_to_image = drawn(seed)
    distinct = list(dict.fromkeys(data.captions))
    column = [distinct.index(caption) for caption in data.captions]
    outcome = outcome_of(
        retrieval, given(data, image_to_text, text_to_image), data, Options(ks=(1, 5), truth="own", ties="expected")
    )
    owner = [i for i, example in enumerate(data) for _ in example.captions]
    for k in (1, 5):
        of_images = [
            shares([image_to_text[i, u] for u in column], [other == i for other in owner], k) for i in range(len(data))
        ]
        of_texts = [
            shares(list(text_to_image[:, column[m]]), [i == owner[m] for i in range(len(data))], k)
            for m in range(len(owner))
        ]
        np.testing.assert_allclose(outcome.metrics[f"image_to_text_r{k}"].value, np.mean([c for c, _ in of_images]))
        np.testing.assert_allclose(outcome.metrics[f"text_to_image_r{k}"].value, np.mean([c for c, _ in of_texts]))
        np.testing.assert_allclose(outcome.examples["rank_image_to_text"], [rank for _, rank in of_images], rtol=1e-6)
        np.testing.assert_allclose(outcome.rows["rank_text_to_image"], [rank for _, rank in of_texts], rtol=1e-6)


def test_without_ties_it_is_the_fields_hit_rate():
    """R@k of the CLIP literature: sort, cut at k, ask whether any own one is there; not recall of all own captions."""
    data = ragged(np.random.default_rng(3).integers(4, 8, size=40))
    scores = np.random.default_rng(4).standard_normal((40, len(data.captions))) + 2 * data.own_truth()
    found = outcome_of(
        retrieval, given(data, scores, scores), data, Options(ks=(1, 5, 10), truth="own", ties="expected")
    ).metrics
    owner = data.caption_image_M
    for k in (1, 5, 10):
        best_texts = np.argsort(-scores, axis=1)[:, :k]
        best_images = np.argsort(-scores, axis=0)[:k]
        hit = np.mean([(owner[best_texts[i]] == i).any() for i in range(40)])
        recall = np.mean([(owner[best_texts[i]] == i).sum() / (owner == i).sum() for i in range(40)])
        assert found[f"image_to_text_r{k}"].value == pytest.approx(hit)
        assert recall < hit
        assert found[f"text_to_image_r{k}"].value == pytest.approx(np.mean((best_images == owner).any(axis=0)))


def test_a_constant_encoder_scores_exactly_chance_and_every_query_is_a_tie():
    data = ragged(COUNTS * 5)
    outcome = outcome_of(retrieval, constant_encoder(), data, Options(ks=(1, 5), truth="own", ties="expected"))
    found = {name: statistic.value for name, statistic in outcome.metrics.items()}
    assert found == pytest.approx(dict(outcome.reference_rows["chance"]), abs=1e-12)
    captions = len(data.captions)
    by_hand = np.mean([1 - comb(captions - own, 5) / comb(captions, 5) for own in COUNTS])
    assert found["image_to_text_r5"] == pytest.approx(by_hand, abs=1e-12)
    assert found["image_to_text_r1"] == pytest.approx(np.mean(COUNTS) / captions, abs=1e-12)
    assert found["text_to_image_r1"] == pytest.approx(1 / 20, abs=1e-12)
    assert outcome.ties == len(data) + captions


def test_random_scores_are_chance_on_the_mean():
    data = ragged(COUNTS * 4)
    options = Options(ks=(1, 5), truth="own", ties="expected")
    outcomes = [outcome_of(retrieval, random_encoder(seed, width=16), data, options) for seed in range(10)]
    for name, chance in outcomes[0].reference_rows["chance"].items():
        found = np.array([outcome.metrics[name].value for outcome in outcomes])
        assert found.mean() == pytest.approx(chance, abs=4 * found.std(ddof=1) / np.sqrt(len(found)) + 1e-3)


CARD = """
title = "Our photos"
family = "retrieval"
dataset = "coco_captions"
split = "test"
protocol = "retrieval"
headline = "text_to_image_r1"
suites = ["ours"]
sample = true
source = "our own photos, captioned in COCO's format"

[data]
folder = "ours/photos of 2024"
annotations = "texts/{split}.json"
images = "jpg"

[options]
ks = [1]
truth = "own"
ties = "expected"

[expect]
images = 3
captions = 7
"""


def test_any_captions_file_in_cocos_format_is_a_card_away(tmp_path):
    home = tmp_path / "ours/photos of 2024"
    (home / "texts").mkdir(parents=True)
    (home / "jpg").mkdir()
    rows = {"a-1": ["one", "two", "one"], "b-2": ["three"], "c-3": ["four", "five", "six"]}
    for name in rows:
        Image.new("RGB", (6, 4)).save(home / "jpg" / f"{name}.png")
    images = [f'{{"id": "{name}", "file_name": "{name}.png"}}' for name in rows]
    texts = [f'{{"image_id": "{name}", "caption": "{text}"}}' for name, own in rows.items() for text in own]
    (home / "texts/test.json").write_text(
        f'{{"images": [{", ".join(images)}], "annotations": [{", ".join(reversed(texts))}]}}'
    )
    (tmp_path / "our_photos.toml").write_text(CARD)
    task = bind(discovery.task(str(tmp_path / "our_photos.toml")))
    data = task.dataset.read(tmp_path, task.card.split, task.data_options)
    check_counts(task.card, data.counts())
    assert [example.id for example in data] == list(rows)
    outcome = outcome_of(task.protocol, random_encoder(), data, task.options)
    assert outcome.counts == {
        "images": 3,
        "captions": 7,
        "distinct_captions": 6,
        "captions_per_image_min": 1,
        "captions_per_image_max": 3,
        "true_pairs": 7,
    }
    (tmp_path / "our_photos.toml").write_text(CARD.replace("captions = 7", "captions = 9"))
    card = discovery.task(str(tmp_path / "our_photos.toml"))
    with pytest.raises(UserError, match=r"expects 9 captions, but coco_captions:test has 7"):
        check_counts(card, data.counts())
