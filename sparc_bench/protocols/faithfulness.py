"""Faithfulness: do an image's reference captions say what its top-1 retrieved caption says?

Shapes: N images, U distinct candidate captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from sparc_bench.cards import Strict
from sparc_bench.errors import UserError
from sparc_bench.examples import DataSplit, Example
from sparc_bench.features import Encoder
from sparc_bench.metrics.content_words import ContentWords, hanta_version, tagged_by, tagged_by_hanta
from sparc_bench.metrics.k_precision import KPrecision, References, k_precision_score
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.metrics.tokens import caption_words
from sparc_bench.outcome import Outcome
from sparc_bench.outputs.captions import Captions
from sparc_bench.outputs.scores_encoder import looked_up
from sparc_bench.protocols._pairs import DistinctTexts, score_chunks

VERSION = 1
TITLE = "faithfulness: K-Precision of the top-1 retrieved caption"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions"})
_IMAGES_AT_ONCE = 64


class Options(Strict):
    """What a card decides; the paper states none of it."""

    references: References
    """how several reference captions count"""
    articles: Literal["drop", "keep"]
    """whether "a", "an" and "the" are words"""
    tagger: Literal["hanta", "dataset"]
    """who finds nouns and adjectives: HanTa, or the data set's own word_tags"""
    ties: Literal["expected"]
    """expected: the mean over the candidates that share the top score"""


class _Part:
    """One of the two scores, summed up over images: of the retrieved caption, of a random and of a constant one."""

    def __init__(self, precision: KPrecision, images: int, pool_U: Bool[ndarray, "U"]) -> None:
        self._precision = precision
        self._has_words_U = precision.length_M > 0
        self._images = images
        self._pool_U = pool_U
        candidates = len(precision.length_M)
        self.sums = {name: np.zeros(images) for name in ("all", "misses", "random_all", "random_misses")}
        self.counts = {name: np.zeros(images) for name in self.sums}
        self._half_sum_2U = np.zeros((2, candidates))
        self._half_miss_sum_2U = np.zeros((2, candidates))
        self._half_misses_2U = np.zeros((2, candidates))

    def add(
        self, rows: slice, references: Sequence[Sequence[Sequence[str]]], choice_NU: ndarray, own_NU: ndarray
    ) -> None:
        """Take in some images: `choice_NU` is the probability that a candidate is the retrieved one."""
        score_NU = np.nan_to_num(self._precision.scores(references), nan=0.0)
        even_NU = np.broadcast_to(self._pool_U / self._pool_U.sum(), choice_NU.shape)
        for name, weight_NU in (
            ("all", choice_NU),
            ("misses", choice_NU * ~own_NU),
            ("random_all", even_NU),
            ("random_misses", even_NU * ~own_NU),
        ):
            self.sums[name][rows] = (weight_NU * score_NU).sum(axis=1)
            self.counts[name][rows] = weight_NU @ self._has_words_U
        half_N = np.arange(rows.start, rows.stop) % 2
        for half in (0, 1):
            chosen_N = half_N == half
            self._half_sum_2U[half] += score_NU[chosen_N].sum(axis=0)
            self._half_miss_sum_2U[half] += (score_NU * ~own_NU)[chosen_N].sum(axis=0)
            self._half_misses_2U[half] += (~own_NU)[chosen_N].sum(axis=0)

    def mean(self, name: str) -> Mean:
        """The score as a statistic over images."""
        return Mean(self.sums[name], self.counts[name])

    def constant(self) -> tuple[float, float]:
        """All images and misses alone: the caption that is best on one half of the images, scored on the other."""
        best = [int(np.where(self._pool_U, self._half_sum_2U[half], -1).argmax()) for half in (1, 0)]
        total = sum(self._half_sum_2U[half, best[half]] for half in (0, 1))
        missed = sum(self._half_miss_sum_2U[half, best[half]] for half in (0, 1))
        misses = sum(self._half_misses_2U[half, best[half]] for half in (0, 1))
        return float(total / self._images), float(missed / misses) if misses else float("nan")


def run(encoder: Encoder, data: DataSplit, options: Options) -> Outcome:
    """Rank the distinct captions of the split and of its pool for every image, and score the best one.

    `k_precision` counts all words of the retrieved caption, `k_precision_na` its nouns and adjectives (a caption
    without any is left out of that mean, and counted). The `_misses` variants average over the images whose retrieved
    caption is none of their own strings; most of a difference on all images is a difference in `r1`, the share of
    images that retrieve one of their own. Where candidates tie for the top, every quantity is its mean over them.

    Reference rows: `constant` (one caption for all images: the best on either half of the images, by position, scored
    on the other half), `random` is a random encoder's row and `random_caption` the exact mean over all candidates,
    `human` (each own caption against the image's other ones). The tie count is the number of images with several
    candidates at the top. `retrieved` is the first of them, as an index into the split's captions and then its pool.
    """

    def chosen(candidates: DistinctTexts) -> Iterator[tuple[slice, Bool[ndarray, "N U"]]]:
        for rows, score_NU in _runs(encoder, data, candidates.texts):
            yield rows, score_NU == score_NU.max(axis=1, keepdims=True)

    return _outcome(data, options, (), chosen)


def score(outputs: Captions, data: DataSplit, options: Options) -> Outcome:
    """The same of captions that another system gives for the images, from the pool or of its own making.

    A caption counts as the image's own where it has the words of one (case and punctuation aside), so that an own
    caption written a little differently is no miss that scores 1. `retrieved` counts on after the pool for captions
    that are not in it. Random and constant rows stay those of the pool.
    """
    captions_N, notes = outputs.of([example.id for example in data.examples])
    words_N = [caption_words(caption, options.articles) for caption in captions_N]
    empty = [example.id for example, words in zip(data.examples, words_N, strict=True) if not words]
    if empty:
        raise UserError(
            f"{outputs.where} has {len(empty)} captions without a word that counts, such as that of {empty[0]}: give "
            "every image words."
        )
    known = set(data.word_tags or ()) if options.tagger == "dataset" else None
    strange = [word for caption in captions_N for word in caption_words(caption, "keep") if known and word not in known]
    if strange:
        raise UserError(
            f"{outputs.where} has the word '{strange[0]}', but this task knows the nouns and adjectives of the data "
            "set's own words alone: give captions in these words."
        )
    given_N = [_own_wording(caption, example) for caption, example in zip(captions_N, data.examples, strict=True)]

    def chosen(candidates: DistinctTexts) -> Iterator[tuple[slice, Bool[ndarray, "N U"]]]:
        place_N = candidates.index_M[len(candidates.index_M) - len(given_N) :]
        for start in range(0, len(given_N), _IMAGES_AT_ONCE):
            part = slice(start, min(start + _IMAGES_AT_ONCE, len(given_N)))
            yield part, place_N[part, None] == np.arange(len(candidates.texts))

    outcome = _outcome(data, options, given_N, chosen)
    theirs = np.mean([len(words) for words in words_N])
    ours = np.mean([len(caption_words(caption, options.articles)) for caption in data.captions])
    length = f"Captions have {theirs:.1f} words on average, the references {ours:.1f}; precision asks for no length."
    return replace(outcome, notes=(*outcome.notes, *notes, length))


def _own_wording(caption: str, example: Example) -> str:
    """The image's own caption that has the same words, or the caption as it is."""
    words = caption_words(caption, "keep")
    return next((own for own in example.captions if caption_words(own, "keep") == words), caption)


OUTPUTS = {"captions": score, "similarity": looked_up(run)}


def _outcome(
    data: DataSplit,
    options: Options,
    given: Sequence[str],
    chosen: Callable[[DistinctTexts], Iterator[tuple[slice, Bool[ndarray, "N U"]]]],
) -> Outcome:
    """Score the candidates that `chosen` marks for each image; captions `given` beside the pool are candidates too."""
    keep = _content_words(data, options)
    pool = (*data.captions, *data.pool)
    candidates = DistinctTexts.of((*pool, *given))
    pool_U = np.arange(len(candidates.texts)) <= candidates.index_M[: len(pool)].max()
    words_U = [caption_words(text, options.articles) for text in candidates.texts]
    content_U = [keep(caption_words(text, "keep")) for text in candidates.texts]
    images = len(data)
    parts = {
        "k_precision": _Part(KPrecision(words_U, options.references), images, pool_U),
        "k_precision_na": _Part(KPrecision(content_U, options.references), images, pool_U),
    }
    references_N = [[caption_words(text, options.articles) for text in example.captions] for example in data.examples]
    hit_N, tied_N, retrieved_N = np.zeros(images), np.zeros(images, dtype=np.int64), np.zeros(images, dtype=np.int64)
    for rows, top_NU in chosen(candidates):
        own_NU = own_strings(data, rows, candidates)
        choice_NU = top_NU / top_NU.sum(axis=1, keepdims=True)
        hit_N[rows] = (choice_NU * own_NU).sum(axis=1)
        tied_N[rows] = top_NU.sum(axis=1)
        retrieved_N[rows] = top_NU.argmax(axis=1)
        for part in parts.values():
            part.add(rows, references_N[rows], choice_NU, own_NU)
    metrics: dict[str, Statistic] = {}
    for name, part in parts.items():
        metrics[f"{name}_misses"] = part.mean("misses")
        metrics[name] = part.mean("all")
    metrics["r1"] = Mean.of(hit_N)
    without_content = round(float(images - parts["k_precision_na"].counts["all"].sum()))
    first_place_U = np.unique(candidates.index_M, return_index=True)[1]
    return Outcome(
        metrics=metrics,
        examples={
            "correct": hit_N,
            "k_precision": _per_image(parts["k_precision"]),
            "k_precision_na": _per_image(parts["k_precision_na"]),
            "retrieved": first_place_U[retrieved_N],
        },
        ties=int((tied_N > 1).sum()),
        counts={
            "images": images,
            "captions": len(data.captions),
            "candidates": int(pool_U.sum()),
            "misses": round(float((1 - hit_N).sum())),
            "without_content_words": without_content,
        },
        reference=_reference(parts, data, keep, options),
        notes=_notes(options),
    )


def own_strings(data: DataSplit, rows: slice, candidates: DistinctTexts) -> Bool[ndarray, "N U"]:
    """Which candidate strings are captions of which image; a string may belong to several images."""
    image_M = data.caption_image_M
    chosen_M = np.flatnonzero((image_M >= rows.start) & (image_M < rows.stop))
    own_NU = np.zeros((rows.stop - rows.start, len(candidates.texts)), dtype=bool)
    own_NU[image_M[chosen_M] - rows.start, candidates.index_M[chosen_M]] = True
    return own_NU


def human_reference(data: DataSplit, keep: ContentWords, options: Options) -> dict[str, float]:
    """Mean over images of each own caption's score against the image's other captions; NaN without a second one."""
    scores: dict[str, list[float]] = {"k_precision": [], "k_precision_na": []}
    for example in data.examples:
        words = [caption_words(text, options.articles) for text in example.captions]
        content = [keep(caption_words(text, "keep")) for text in example.captions]
        for name, captions in (("k_precision", words), ("k_precision_na", content)):
            values = [
                k_precision_score(caption, words[:index] + words[index + 1 :], options.references)
                for index, caption in enumerate(captions)
                if caption and len(words) > 1
            ]
            if values:
                scores[name].append(float(np.mean(values)))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()}


def _runs(encoder: Encoder, data: DataSplit, texts: tuple[str, ...]) -> Iterator[tuple[slice, Float[ndarray, "N U"]]]:
    for rows, to_text, _ in score_chunks(encoder, data.items, texts):
        for start in range(rows.start, rows.stop, _IMAGES_AT_ONCE):
            part = slice(start, min(start + _IMAGES_AT_ONCE, rows.stop))
            yield part, to_text[part.start - rows.start : part.stop - rows.start]


def _content_words(data: DataSplit, options: Options) -> ContentWords:
    if options.tagger == "hanta":
        hanta_version()
        return tagged_by_hanta
    if data.word_tags is None:
        raise UserError(f"{data.dataset} has no word tags of its own: set tagger = 'hanta'.")
    return tagged_by(data.word_tags)


def _per_image(part: _Part) -> Float[ndarray, "N"]:
    score_N = np.full(len(part.sums["all"]), np.nan, dtype=np.float32)
    np.divide(part.sums["all"], part.counts["all"], out=score_N, where=part.counts["all"] > 0, casting="same_kind")
    return score_N


def _reference(
    parts: dict[str, _Part], data: DataSplit, keep: ContentWords, options: Options
) -> dict[str, dict[str, float]]:
    constant: dict[str, float] = {}
    random: dict[str, float] = {}
    for name, part in parts.items():
        constant[name], constant[f"{name}_misses"] = part.constant()
        random[name] = part.mean("random_all").value
        random[f"{name}_misses"] = part.mean("random_misses").value
    return {"constant": constant, "random_caption": random, "human": human_reference(data, keep, options)}


def _notes(options: Options) -> tuple[str, ...]:
    tagger = f"HanTa {hanta_version()}" if options.tagger == "hanta" else "the data set's own word list"
    return (
        f"Nouns and adjectives by {tagger}.",
        "Misses are other images for every model; read them with r1.",
        "The constant caption is the best on half of these images, scored on the other half, and the reverse.",
        "The human row has one reference caption fewer than a model's.",
    )
