"""Faithfulness: K-Precision of an image's top-1 retrieved caption against the image's own captions.

Shapes: N images, U distinct candidate captions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sparc_bench.cards.card import Extended
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.metrics.caption_words import Tokens, caption_words
from sparc_bench.metrics.content_words import ContentWords, hanta_version, tagged_by, tagged_by_hanta
from sparc_bench.metrics.k_precision import References, k_precision_score
from sparc_bench.metrics.statistic import Mean, Statistic
from sparc_bench.outputs.captions import Captions
from sparc_bench.outputs.scores_encoder import similarity_predictions
from sparc_bench.protocol import Block, Outcome, Predictions, Work
from sparc_bench.protocols._k_precision_sums import ExactHits, KPrecisionSums
from sparc_bench.protocols._similarity_scores import DistinctTexts
from sparc_bench.protocols._top1_captions import (
    Choices,
    candidate_texts,
    given_block,
    given_captions,
    own_candidates,
    pool_strings,
    retrieved_captions,
    top1_captions,
)

VERSION = 1
TITLE = "faithfulness: K-Precision of the top-1 retrieved caption"
NEEDS = frozenset({"image", "text"})
DATA = frozenset({"captions"})


class Options(Extended):
    """Options of the protocol in a task card; the SPARC paper states none of them."""

    pool: Literal["all", "split"]
    """candidate captions: "all" (those of the scored images and of the reader's pool) or "split" (without the pool)"""
    references: References
    """how several reference captions are combined: set union ("union"), multiset union ("multiset"), maximum ("max")"""
    tokens: Tokens
    """how a caption is split into words: instruct_qa (punctuation deleted, split at white space) or letters (runs of
    letters and digits)"""
    articles: Literal["drop", "keep"]
    """whether "a", "an" and "the" are dropped or counted as words"""
    tagger: Literal["hanta", "dataset"]
    """part-of-speech tagger for nouns and adjectives: HanTa, or the data set's own word_tags"""
    exact_hits: ExactHits
    """rule for an image whose own caption is retrieved: `apart` scores it, and reports the other images (misses) apart;
    `excluded` removes an image's own captions from its candidates; `other_references` is `apart`, with an own caption
    compared with the image's other captions"""
    ties: Literal["expected"]
    """expected: the mean over the candidates with the top score"""

    FORMER: ClassVar[Mapping[str, Any]] = {"pool": "all", "tokens": "instruct_qa", "exact_hits": "apart"}

    def words(self, caption: str) -> tuple[str, ...]:
        """Words of a caption that count."""
        return caption_words(caption, self.articles, self.tokens)

    def all_words(self, caption: str) -> tuple[str, ...]:
        """Words of a caption for the tagger, articles included."""
        return caption_words(caption, "keep", self.tokens)


def predict(encoder: Encoder, work: Work, options: Options) -> Iterator[Block]:
    """The candidates at the top of each image: `example`, `candidate`."""
    candidates = DistinctTexts.of(_pool(work.data, options))
    return retrieved_captions(encoder, work, candidates, without_own=options.exact_hits == "excluded")


def by_captions(outputs: Captions, data: Examples, options: Options) -> Predictions:
    """Another system's captions of the images, from the pool or generated.

    A caption with the words of one of the image's own (case and punctuation aside) counts as that one, so that it is
    no miss with a score of 1. In `retrieved`, captions outside the pool are numbered after it. The reference rows
    `random_caption` and `constant` are of the pool alone.
    """
    given_N, notes = given_captions(outputs, data)
    words_N = [options.words(caption) for caption in given_N]
    empty = [example.id for example, words in zip(data.examples, words_N, strict=True) if not words]
    if empty:
        raise UserError(
            f"{outputs.where} has {len(empty)} captions without a word that counts, such as that of {empty[0]}: give "
            "every image words."
        )
    known = set(data.word_tags or ()) if options.tagger == "dataset" else None
    strange = [word for caption in given_N for word in options.all_words(caption) if known and word not in known]
    if strange:
        raise UserError(
            f"{outputs.where} has the word '{strange[0]}', but this task knows the nouns and adjectives of the data "
            "set's own words alone: give captions in these words."
        )
    hits = sum(caption in example.captions for caption, example in zip(given_N, data.examples, strict=True))
    if options.exact_hits == "excluded" and hits:
        raise UserError(
            f"{outputs.where} gives {hits} images one of their own captions, which this task takes out of their pool: "
            "choose among the captions of other images."
        )
    block = given_block(given_N, _pool(data, options))
    return Predictions((block,), notes=(*notes, _length_note(words_N, data, options)))


OUTPUTS = {"captions": by_captions, "similarity": similarity_predictions(predict)}


def _pool(data: Examples, options: Options) -> tuple[str, ...]:
    return (*data.captions, *data.pool) if options.pool == "all" else data.captions


def score(predictions: Predictions, data: Examples, options: Options) -> Outcome:
    """Score the top-1 caption of each image, of the split's captions and the pool, by K-Precision.

    `k_precision` counts all words of the retrieved caption, `k_precision_na` its nouns and adjectives (a caption
    without any is left out of the mean, and counted). The `_misses` variants average over the images whose retrieved
    caption is not one of their own; `r1` is the share of the other images, and most of a difference between models on
    all images is a difference in r1. Where candidates tie for the top, every quantity is its mean over them. With
    exact_hits "excluded" no image can retrieve its own caption: there is neither `r1` nor `_misses`, and every model is
    scored on the same images.

    Reference rows: `constant` (one caption for all images: the best on the captions of `data.tuning`, or else the best
    on one half of the images, scored on the other half, both ways), `random_caption` (the exact mean over all
    candidates), `human` (each own caption against the image's other captions). The tie count is the number of images
    with several candidates at the top; `retrieved` is the first of them, as an index into the split's captions followed
    by its pool.
    """
    keep = _content_words(data, options)
    pool = _pool(data, options)
    candidates = candidate_texts(predictions, pool)
    pool_U = pool_strings(candidates, len(pool))
    images = len(data)
    about = (images, pool_U, options.references, options.exact_hits)
    parts = {
        "k_precision": KPrecisionSums([options.words(text) for text in candidates.texts], *about),
        "k_precision_na": KPrecisionSums([keep(options.all_words(text)) for text in candidates.texts], *about),
    }
    references_N = [[options.words(text) for text in example.captions] for example in data.examples]
    ends_N = np.cumsum([len(example.captions) for example in data.examples])
    places_N = np.split(candidates.index_M[: ends_N[-1]], ends_N[:-1])
    choices = Choices(images)
    for rows, top_NU in top1_captions(predictions, images, len(candidates.texts)):
        own_NU = own_candidates(data, rows, candidates)
        choice_NU = choices.add(rows, top_NU, own_NU)
        for part in parts.values():
            part.add(rows, references_N[rows], choice_NU, own_NU, places_N[rows])
    apart = options.exact_hits != "excluded"
    metrics: dict[str, Statistic] = {}
    for name, part in parts.items():
        if apart:
            metrics[f"{name}_misses"] = part.mean("misses")
        metrics[name] = part.mean("all")
    if apart:
        metrics["r1"] = Mean.of(choices.hit_N)
    without_content = round(float(images - parts["k_precision_na"].counts["all"].sum()))
    return Outcome(
        metrics=metrics,
        examples={
            **({"correct": choices.hit_N} if apart else {}),
            "k_precision": _per_image(parts["k_precision"]),
            "k_precision_na": _per_image(parts["k_precision_na"]),
            "retrieved": choices.retrieved_N(candidates),
        },
        ties=choices.ties,
        counts={
            "images": images,
            "captions": len(data.captions),
            "candidates": int(pool_U.sum()),
            "misses": choices.misses,
            "without_content_words": without_content,
        },
        reference_rows=_reference(parts, data, keep, options),
        notes=_notes(data, options),
    )


def human_reference(data: Examples, keep: ContentWords, options: Options) -> dict[str, float]:
    """Reference row `human`: own captions against the other ones, mean over images; NaN if no image has two."""
    scores: dict[str, list[float]] = {"k_precision": [], "k_precision_na": []}
    for example in data.examples:
        words = [options.words(text) for text in example.captions]
        content = [keep(options.all_words(text)) for text in example.captions]
        for name, captions in (("k_precision", words), ("k_precision_na", content)):
            values = [
                k_precision_score(caption, words[:index] + words[index + 1 :], options.references)
                for index, caption in enumerate(captions)
                if caption and len(words) > 1
            ]
            if values:
                scores[name].append(float(np.mean(values)))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in scores.items()}


def _length_note(words_N: Sequence[Sequence[str]], data: Examples, options: Options) -> str:
    theirs = np.mean([len(words) for words in words_N])
    ours = np.mean([len(options.words(caption)) for caption in data.captions])
    known = Counter(
        word for example in data.examples for word in {w for text in example.captions for w in options.words(text)}
    )
    word, images = known.most_common(1)[0]
    return (
        f"Captions have {theirs:.1f} words on average, the references {ours:.1f}; precision asks for no length: the "
        f"one word '{word}' scores {images / len(data):.2f} on these images."
    )


def _content_words(data: Examples, options: Options) -> ContentWords:
    if options.tagger == "hanta":
        hanta_version()
        return tagged_by_hanta
    if data.word_tags is None:
        raise UserError(f"{data.dataset} has no word tags of its own: set tagger = 'hanta'.")
    return tagged_by(data.word_tags)


def _per_image(part: KPrecisionSums) -> Float[ndarray, "N"]:
    score_N = np.full(len(part.sums["all"]), np.nan, dtype=np.float32)
    np.divide(part.sums["all"], part.counts["all"], out=score_N, where=part.counts["all"] > 0, casting="same_kind")
    return score_N


def _reference(
    parts: dict[str, KPrecisionSums], data: Examples, keep: ContentWords, options: Options
) -> dict[str, dict[str, float]]:
    constant: dict[str, float] = {}
    random: dict[str, float] = {}
    tuning = [[options.words(text) for text in captions] for captions in data.tuning]
    for name, part in parts.items():
        everywhere, on_misses = part.constant(tuning)
        if options.exact_hits == "excluded":
            constant[name], random[name] = on_misses, part.mean("random_all").value
            continue
        constant[name], constant[f"{name}_misses"] = everywhere, on_misses
        random[name] = part.mean("random_all").value
        random[f"{name}_misses"] = part.mean("random_misses").value
    return {"constant": constant, "random_caption": random, "human": human_reference(data, keep, options)}


def _notes(data: Examples, options: Options) -> tuple[str, ...]:
    tagger = f"HanTa {hanta_version()}" if options.tagger == "hanta" else "the data set's own word list"
    hits = {
        "apart": "Misses are other images for every model; read them with r1.",
        "excluded": "No image can retrieve a caption of its own, so that every model is scored on the same images.",
        "other_references": "An image's own caption at the top is compared with the image's other captions.",
    }[options.exact_hits]
    constant = (
        f"The constant caption is the best on {len(data.tuning)} other images."
        if data.tuning
        else "The constant caption is the best on half of these images, scored on the other half, and the reverse."
    )
    human = "The human row has one reference caption fewer than a model's."
    return (f"Nouns and adjectives by {tagger}.", hits, constant, human)
