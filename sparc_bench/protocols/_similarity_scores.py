"""Similarity scores of images and texts by the model's own rule, in bounded memory.

Shapes: N images, M texts, U distinct texts, E texts that repeat an earlier one, L tokens of a text, W kept tokens of
all texts, D joint width. A lower-case letter (m, w) is a part of that axis.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.encoder import Encoder, image_need, pairwise, recut, text_need
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.images.view import View

_TEXTS_AT_ONCE = 2048
_TIMED_TEXTS = 256

ANNOUNCED_SECONDS = 5.0
"""Least number of seconds that is announced before pairwise scoring starts."""


@dataclass(frozen=True)
class DistinctTexts:
    """Distinct strings of a list of M texts, and the index of each text among them.

    Each string is scored once, so equal captions tie exactly, whatever the arithmetic.
    """

    texts: tuple[str, ...]
    index_M: Int[ndarray, "M"]

    @classmethod
    def of(cls, texts: Sequence[str]) -> DistinctTexts:
        """Distinct strings in order of first appearance."""
        place = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        return cls(tuple(place), np.array([place[text] for text in texts], dtype=np.int64))

    @property
    def repeated_E(self) -> Int[ndarray, "E"]:
        """Distinct string (its index) of each text that repeats an earlier one."""
        return np.delete(self.index_M, np.unique(self.index_M, return_index=True)[1])


@dataclass(frozen=True)
class PackedTexts:
    """Features of many texts without padding: token vectors are kept up to each text's last word.

    Attributes:
        texts: the M strings.
        global_MD: one vector per text, or None.
        tokens_WD: kept token vectors of all texts, text after text; None for a model without token vectors.
        mask_W: True where a kept token is a word.
        length_M: number of kept tokens of each text.
    """

    texts: tuple[str, ...]
    global_MD: Tensor | None
    tokens_WD: Tensor | None
    mask_W: Tensor | None
    length_M: Tensor

    @classmethod
    def of(cls, encoder: Encoder, texts: Sequence[str]) -> PackedTexts:
        """All features that the model's `similarity` uses, encoded in batches: padding never exists for all texts."""
        need = text_need(encoder)
        if "tokens" not in need:
            return cls._packed(encoder.texts(texts, need))
        starts = range(0, len(texts), _TEXTS_AT_ONCE)
        parts = [cls._packed(encoder.texts(texts[start : start + _TEXTS_AT_ONCE], need)) for start in starts]
        return cls(
            texts=tuple(texts),
            global_MD=_joined([part.global_MD for part in parts]),
            tokens_WD=_joined([part.tokens_WD for part in parts]),
            mask_W=_joined([part.mask_W for part in parts]),
            length_M=torch.cat([part.length_M for part in parts]),
        )

    @classmethod
    def _packed(cls, features: TextFeatures) -> PackedTexts:
        tokens_MLD, mask_ML = features.tokens_MLD, features.mask_ML
        if tokens_MLD is None or mask_ML is None:
            none_M = torch.zeros(len(features), dtype=torch.long)
            return cls(features.texts, features.global_MD, tokens_MLD, mask_ML, none_M)
        place_L = torch.arange(1, mask_ML.shape[1] + 1, device=mask_ML.device)
        length_M = (mask_ML * place_L).amax(1)
        held_ML = place_L <= length_M.unsqueeze(1)
        return cls(features.texts, features.global_MD, tokens_MLD[held_ML], mask_ML[held_ML], length_M)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Int[ndarray, "m"]) -> TextFeatures:
        """Features of the texts `rows`, in that order; tokens are padded with masked zeros."""
        texts = tuple(self.texts[row] for row in rows)
        index_m = torch.from_numpy(rows).long().to(self.length_M.device)
        global_mD = None if self.global_MD is None else self.global_MD[index_m]
        if self.tokens_WD is None or self.mask_W is None:
            return TextFeatures(texts, global_mD)
        length_m = self.length_M[index_m]
        start_m = (self.length_M.cumsum(0) - self.length_M)[index_m]
        place_w = torch.arange(int(length_m.sum()), device=length_m.device)
        first_w = (start_m - (length_m.cumsum(0) - length_m)).repeat_interleave(length_m)
        tokens_mLD, mask_mL = _padded(self.tokens_WD[first_w + place_w], self.mask_W[first_w + place_w], length_m)
        return TextFeatures(texts, global_mD, tokens_mLD, mask_mL)

    def padding_buffer(self) -> Tensor | None:
        """Memory for the padded tokens of one batch, reused by all: to allocate it anew takes longer than to fill it.

        None for a model without token vectors.
        """
        if self.tokens_WD is None or not len(self):
            return None
        lengths = (self.length_M[start : start + _TEXTS_AT_ONCE] for start in range(0, len(self), _TEXTS_AT_ONCE))
        sizes = [len(length_m) * max(1, int(length_m.max())) for length_m in lengths]
        return self.tokens_WD.new_empty(max(sizes), self.tokens_WD.shape[1])

    def batches(self, buffer: Tensor | None) -> Iterator[TextFeatures]:
        """Features of all texts, batch by batch; with a `buffer` the next batch overwrites a batch's tokens."""
        ends_M = self.length_M.cumsum(0)
        for start in range(0, len(self), _TEXTS_AT_ONCE):
            part = slice(start, min(start + _TEXTS_AT_ONCE, len(self)))
            global_mD = None if self.global_MD is None else self.global_MD[part]
            if self.tokens_WD is None or self.mask_W is None:
                yield TextFeatures(self.texts[part], global_mD)
                continue
            held = slice(int(ends_M[start - 1]) if start else 0, int(ends_M[part.stop - 1]))
            padded = _padded(self.tokens_WD[held], self.mask_W[held], self.length_M[part], buffer)
            yield TextFeatures(self.texts[part], global_mD, *padded)


def _padded(tokens_wD: Tensor, mask_w: Tensor, length_m: Tensor, buffer: Tensor | None = None) -> tuple[Tensor, Tensor]:
    texts, longest, width = len(length_m), max(1, int(length_m.max())), tokens_wD.shape[1]
    place_L = torch.arange(longest, device=length_m.device)
    place_w = (place_L < length_m.unsqueeze(1)).flatten().nonzero()[:, 0]
    flat_xD = tokens_wD.new_empty(texts * longest, width) if buffer is None else buffer[: texts * longest]
    flat_xD.zero_().index_copy_(0, place_w, tokens_wD)
    mask_x = mask_w.new_zeros(texts * longest).index_copy_(0, place_w, mask_w)
    return flat_xD.view(texts, longest, width), mask_x.view(texts, longest)


def bounded(encoder: Encoder, images: ImageFeatures) -> Iterator[ImageFeatures]:
    """At most 64 images at a time for a pairwise model, 256 for one with a vector per image."""
    return recut([images], 64 if pairwise(encoder) else 256)


def image_batches(encoder: Encoder, views: Sequence[View]) -> Iterator[tuple[slice, ImageFeatures]]:
    """Batches (rows, features) of `bounded` numbers of images."""
    start = 0
    for features in encoder.stream([views], image_need(encoder)):
        for images in bounded(encoder, features):
            yield slice(start, start + len(images)), images
            start += len(images)


class ScoredTexts:
    """Texts that are encoded once and scored with images batch by batch.

    For a pairwise model the expected time is announced first (see `announce_duration`), unless `quiet`.

    Args:
        encoder: the model.
        texts: distinct strings.
        images: number of images that will be scored.
        quiet: announce nothing.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], images: int, *, quiet: bool = False) -> None:
        self._encoder = encoder
        self._packed = PackedTexts.of(encoder, texts)
        self._buffer = self._packed.padding_buffer()
        self._unpadded = tuple(self._packed.batches(None)) if self._packed.tokens_WD is None else ()
        self._pairs = images * len(self._packed)
        self._announced = quiet or not pairwise(encoder)

    def scores(self, images: ImageFeatures) -> tuple[Float[ndarray, "N U"], Float[ndarray, "N U"]]:
        """Image-to-text and text-to-image scores, as `in_own_precision`; one object for a model with one matrix."""
        if not self._announced:
            announce_duration(self._encoder, images, self._packed, self._pairs)
            self._announced = True
        return _scores(self._encoder, images, self._unpadded or self._packed.batches(self._buffer))


def similarity_batches(
    encoder: Encoder,
    views: Sequence[View],
    texts: Sequence[str],
    *,
    quiet: bool = False,
) -> Iterator[tuple[slice, Float[ndarray, "N U"], Float[ndarray, "N U"]]]:
    """Batches (rows, image-to-text scores, text-to-image scores) of images with all texts (see `ScoredTexts`)."""
    scored = ScoredTexts(encoder, texts, len(views), quiet=quiet)
    for rows, images in image_batches(encoder, views):
        yield rows, *scored.scores(images)


def similarity_scores(
    encoder: Encoder, images: ImageFeatures, texts: TextFeatures
) -> tuple[Float[ndarray, "N U"], Float[ndarray, "N U"]]:
    """Image-to-text and text-to-image scores of images with all texts; one object for a model with one matrix."""
    batches = (texts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(texts), _TEXTS_AT_ONCE))
    return _scores(encoder, images, batches)


def announce_duration(encoder: Encoder, images: ImageFeatures, texts: PackedTexts, pairs: int) -> None:
    """Write to standard error how long `pairs` pairs will take, measured on these images with a few texts.

    Less than `ANNOUNCED_SECONDS` is not announced.
    """
    few = texts.take(np.arange(min(_TIMED_TEXTS, len(texts))))
    _scores(encoder, images[:1], [few[:32]])  # warm-up: the first call is slower
    begun = time.perf_counter()
    _scores(encoder, images, [few])
    seconds = (time.perf_counter() - begun) * pairs / (len(images) * len(few))
    if seconds >= ANNOUNCED_SECONDS:
        sys.stderr.write(
            f"{encoder.card.name} scores {pairs:,} pairs of an image and a text one by one: about "
            f"{_duration(seconds)} on {encoder.device}, beside the time that encoding takes.\n"
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _scores(
    encoder: Encoder, images: ImageFeatures, batches: Iterable[TextFeatures]
) -> tuple[Float[ndarray, "N U"], Float[ndarray, "N U"]]:
    blocks = [encoder.similarity(images, texts) for texts in batches]
    text_to_image = _array([block[1] for block in blocks])
    if all(block[0] is block[1] for block in blocks):
        return text_to_image, text_to_image
    return _array([block[0] for block in blocks]), text_to_image


def _array(blocks: Sequence[Tensor]) -> Float[ndarray, "N U"]:
    parts = [in_own_precision(block) for block in blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def in_own_precision(scores: Tensor) -> Float[ndarray, "..."]:
    """Scores as an array: float64 stays, since rounding would make ties of it; all others in float32."""
    wide = scores.dtype == torch.float64
    found: Float[ndarray, "..."] = (scores if wide else scores.float()).detach().cpu().numpy()
    return found


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None
