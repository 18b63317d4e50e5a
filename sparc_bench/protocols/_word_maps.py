"""Maps of words over an image's patches: of a word as a text of its own, or of its tokens within a caption.

Shapes: N images, P patches, A absent words, F function words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from sparc_bench.dataset import Example, Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.metrics.object_mentions import ObjectMentions
from sparc_bench.protocols._named_areas import Word
from sparc_bench.protocols._prompted_classes import PromptedClasses

_PARTS = re.compile(r"[^\W_]+(?:[-./'&\u2019][^\W_]+)*|[^\w\s]")
_POSSESSIVE = re.compile(r"['\u2019]s?$")


@dataclass(frozen=True)
class Maps:
    """A word's map in one image, beside those of words that say nothing about it.

    Attributes:
        word_P: of the word.
        absent_AP: of the absent words; none where there is none.
        function_FP: of the function words.
    """

    word_P: Float[ndarray, "P"]
    absent_AP: Sequence[Float[ndarray, "P"]]
    function_FP: Sequence[Float[ndarray, "P"]]


class MapsOfImages(Protocol):
    """The maps of one batch of images."""

    def maps(self, row: int, example: Example, path: str, word: Word, absent: Sequence[Word]) -> Maps | str:
        """The maps of a word in the image of a row, or why there is none: `NO_CAPTION` or `NOT_READ`."""
        ...


NO_CAPTION, NOT_READ = "without_caption", "not_read"


class WordsAlone:
    """Every word a text of its own, in the card's prompts; scored by the model's own rule for patches."""

    def __init__(
        self,
        encoder: Encoder,
        words: Sequence[Word],
        texts: Sequence[str],
        templates: Sequence[str],
        function_words: Sequence[str],
    ) -> None:
        self._encoder = encoder
        self._prompted = PromptedClasses(encoder, [*texts, *function_words], templates)
        self._place = {word: index for index, word in enumerate(words)}

    def of(self, images: ImageFeatures) -> MapsOfImages:
        """The maps of some images."""
        return _AloneOfImages(self, images)

    def scores(self, images: ImageFeatures, path: str) -> Mapping[int, ndarray]:
        """Image -> scores of all words, then of the function words, by patch."""

        def score(texts: TextFeatures) -> torch.Tensor:
            return self._encoder.dense_scores(images, texts, path)

        scores_NWP = self._prompted.scores(score).detach().float().flatten(2).cpu().numpy()
        return dict(enumerate(scores_NWP))

    def place(self, word: Word) -> int:
        """Position of a word among the scores."""
        return self._place[word]

    @property
    def words(self) -> int:
        """Number of words before the function words."""
        return len(self._place)


class _AloneOfImages:
    def __init__(self, words: WordsAlone, images: ImageFeatures) -> None:
        self._words = words
        self._scores = {path: words.scores(images, path) for path in images.patches}

    def maps(self, row: int, example: Example, path: str, word: Word, absent: Sequence[Word]) -> Maps | str:  # noqa: ARG002
        scores_WP = self._scores[path][row]
        return Maps(
            scores_WP[self._words.place(word)],
            [scores_WP[self._words.place(other)] for other in absent],
            list(scores_WP[self._words.words :]),
        )


class WordsInCaptions:
    """Every word within the first of the image's captions that has it, by its tokens; others stand in its place.

    A caption has a word where it has the name or its plural, or one of the data set's synonyms (as in CHAIR).
    """

    def __init__(self, encoder: Encoder, data: Examples, words: Sequence[Word], function_words: Sequence[str]) -> None:
        if "tokens" not in encoder.gives:
            raise UserError(
                f"{encoder.card.name} gives no token vectors: choose a task that reads each word alone (map = 'text')."
            )
        self._encoder = encoder
        self._mentions = ObjectMentions({word.name.lower(): word.name for word in words} | dict(data.synonyms))
        self._function_words = frozenset(function_words)

    def of(self, images: ImageFeatures) -> MapsOfImages:
        """The maps of some images."""
        return _InCaptionsOfImages(self, images)

    def mention(self, example: Example, word: Word) -> tuple[list[str], slice] | None:
        """The first caption that has the word, in words and signs, and the place there; None where none has it."""
        for caption in example.captions:
            parts = _PARTS.findall(caption)
            plain = [_POSSESSIVE.sub("", part.lower()) or part for part in parts]
            place = next((place for name, place in self._mentions.places(plain) if name == word.name), None)
            if place is not None:
                return parts, place
        return None

    def function_places(self, parts: Sequence[str]) -> list[int]:
        """Places of the function words in a caption."""
        return [place for place, part in enumerate(parts) if part.lower() in self._function_words]

    def scores(self, image: ImageFeatures, parts: Sequence[str], path: str) -> ndarray:
        """Scores of the patches of one image for each part of a caption."""
        maps_NWYX = self._encoder.token_maps(image, parts, path)
        return np.asarray(maps_NWYX[0].detach().float().flatten(1).cpu().numpy())


class _InCaptionsOfImages:
    def __init__(self, words: WordsInCaptions, images: ImageFeatures) -> None:
        self._words, self._images = words, images
        self._known: dict[tuple[int, str, tuple[str, ...]], ndarray] = {}

    def maps(self, row: int, example: Example, path: str, word: Word, absent: Sequence[Word]) -> Maps | str:
        found = self._words.mention(example, word)
        if found is None:
            return NO_CAPTION
        parts, place = found
        scores_LP = self._scores(row, parts, path)
        if np.isnan(scores_LP[place]).any():
            return NOT_READ
        others = []
        for other in absent:
            instead = other.name.split()
            changed = [*parts[: place.start], *instead, *parts[place.stop :]]
            other_P = self._scores(row, changed, path)[place.start : place.start + len(instead)].mean(axis=0)
            others += [] if np.isnan(other_P).any() else [other_P]
        function_FP = [scores_LP[at] for at in self._words.function_places(parts) if not np.isnan(scores_LP[at]).any()]
        return Maps(scores_LP[place].mean(axis=0), others, function_FP)

    def _scores(self, row: int, parts: Sequence[str], path: str) -> ndarray:
        key = (row, path, tuple(parts))
        if key not in self._known:
            self._known[key] = self._words.scores(self._images[row : row + 1], parts, path)
        return self._known[key]
