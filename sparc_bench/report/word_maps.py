"""Scores of an image's patches for the words of a caption, by a model's own rule and patch path.

Shapes: W words, Y rows and X columns of the patch grid.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sparc_bench.encoder import Encoder, text_need
from sparc_bench.errors import UserError
from sparc_bench.features import ImageFeatures
from sparc_bench.images.item import Box
from sparc_bench.images.view import View
from sparc_bench.models.finite_encoder import FiniteEncoder

_FUNCTION_WORDS = (
    "a an the this that these those some any all no each every both either neither "
    "of on in at to from by with without into onto over under above below behind beside between near off out up down "
    "through across around along against among toward towards upon about for as than like per via "
    "and or but nor so if while when where which who whom whose what because "
    "is are was were be been being am has have had having do does did can could will would shall should may might must "
    "i you he she it we they me him her us them my your his its our their one's there here "
    "not only just nothing exactly very too also then else more most less other another"
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""English articles, prepositions, conjunctions, pronouns, auxiliaries and adverbs that no patch shows."""


@dataclass(frozen=True)
class Caption:
    """A caption in parts: words, and punctuation apart from them.

    Attributes:
        parts: in order; joined by spaces they read as the caption.
        drawn: places of the parts that a map is drawn for.
        joined: places of the parts that follow the one before without a space.
    """

    parts: tuple[str, ...]
    drawn: tuple[int, ...]
    joined: frozenset[int] = frozenset()

    @classmethod
    def of(cls, text: str) -> Caption:
        """A caption whose content words are drawn; all its words where it has no other.

        >>> caption = Caption.of("A man's hat, on the table.")
        >>> caption.parts, caption.words
        (('A', "man's", 'hat', ',', 'on', 'the', 'table', '.'), ["man's", 'hat', 'table'])

        Raises:
            UserError: it has no word.
        """
        parts: list[str] = []
        joined: set[int] = set()
        for word in text.split():
            apart = [part for part in _apart(word) if part]
            joined |= set(range(len(parts) + 1, len(parts) + len(apart)))
            parts += apart
        words = [place for place, part in enumerate(parts) if not _is_sign(part[0])]
        if not words:
            raise UserError(f"The caption '{text}' has no word: give one of words that the image shows.")
        content = [place for place in words if parts[place].lower() not in FUNCTION_WORDS]
        return cls(tuple(parts), tuple(content or words), frozenset(joined))

    @property
    def words(self) -> list[str]:
        """The words that a map is drawn for."""
        return [self.parts[place] for place in self.drawn]


def _is_sign(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "P"


def _apart(word: str) -> tuple[str, str, str]:
    """Punctuation before a word, the word, punctuation after it."""
    signs = [_is_sign(letter) for letter in word]
    if all(signs):
        return word, "", ""
    start, end = signs.index(False), len(word) - signs[::-1].index(False)
    return word[:start], word[start:end], word[end:]


@dataclass(frozen=True)
class WordMaps:
    """One model's maps of one image by one patch path.

    Attributes:
        model: what the model is called.
        path: the patch path.
        trained: whether a loss trained that path.
        in_caption: scores are cosines of patches with the token vectors of the whole caption, averaged over the tokens
            of a word; else the model's own dense score of every patch for the word as a text of its own.
        scores_WYX: NaN for a word that the model does not read.
        area: the part of the image that the grid covers.
    """

    model: str
    path: str
    trained: bool
    in_caption: bool
    scores_WYX: Float[ndarray, "W Y X"]
    area: Box

    @property
    def deviation(self) -> float:
        """Standard deviation of all scores about the mean of their map; 0 where every map is flat."""
        known_WYX = self.scores_WYX[~np.isnan(self.scores_WYX).any((1, 2))]
        deviation = float(np.sqrt(np.mean(_centred(known_WYX) ** 2))) if len(known_WYX) else 0.0
        # what rounding alone makes of equal scores is no map
        return deviation if deviation > 1e-6 * max(1.0, float(np.abs(known_WYX).max(initial=0.0))) else 0.0

    @property
    def deviations_WYX(self) -> Float[ndarray, "W Y X"]:
        """Scores minus the mean of their map, in units of `deviation`.

        Neither the scale of a model's scores nor the level of a word shows, only where in the image a word scores high.
        """
        return _centred(self.scores_WYX) / self.deviation if self.deviation else 0.0 * self.scores_WYX


def _centred(scores_WYX: ndarray) -> ndarray:
    centred_WYX: ndarray = scores_WYX - scores_WYX.mean((1, 2), keepdims=True)
    return centred_WYX


def word_maps(encoder: Encoder, model: str, view: View, caption: Caption) -> list[WordMaps]:
    """The maps of one view, by every patch path of a model.

    Raises:
        UserError: the model has no patches.
    """
    if "patches" not in encoder.gives or "text" not in encoder.gives or not encoder.paths:
        raise UserError(f"{model} gives no patch vectors, and so no map: leave it out.")
    image = FiniteEncoder(encoder).images([view], frozenset({"patches"}))
    if image.grid is None or image.area_N4 is None:
        raise RuntimeError(f"patches of {model} without a grid or an area")
    left, top, right, bottom = map(float, image.area_N4[0].tolist())
    return [
        WordMaps(
            model=model,
            path=path,
            trained=trained,
            in_caption=path == encoder.token_path,
            scores_WYX=_scores(encoder, image, path, path == encoder.token_path, caption),
            area=(left, top, right, bottom),
        )
        for path, trained in encoder.paths.items()
    ]


def _scores(encoder: Encoder, image: ImageFeatures, path: str, in_caption: bool, caption: Caption) -> ndarray:
    if in_caption:
        scores = encoder.token_maps(image, caption.parts)[0][list(caption.drawn)]
    else:
        checked = FiniteEncoder(encoder)
        scores = checked.dense_scores(image, checked.texts(caption.words, text_need(encoder)), path)[0]
    scores_WYX: ndarray = scores.float().cpu().numpy().astype(np.float64)
    return scores_WYX
