"""Class prompts: encoded once, ensembled and scored by the model's own rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.features import TextFeatures, unit

_PROMPTS_AT_ONCE = 16_384
"""Prompts that are encoded before they are averaged: all of 1,000 classes x 480 templates would fill the memory."""


class PromptedClasses:
    """Prompt ensemble of C classes under T templates, encoded once.

    With `prompt_ensemble` "embeddings" each prompt's global vector is L2-normalised, the T vectors of a class are
    averaged and normalised again (the order of CLIP's own code); with "scores" the T scores of a class are averaged.
    Classes with the same words are encoded and scored once, so that they tie exactly, whatever the arithmetic.
    """

    def __init__(self, encoder: Encoder, words_C: Sequence[str], template_names: Sequence[str]) -> None:
        place = {words: index for index, words in enumerate(dict.fromkeys(words_C))}
        self._repeats_C = torch.tensor([place[words] for words in words_C]) if len(place) < len(words_C) else None
        self._templates = len(template_names)
        self._as_scores = encoder.prompt_ensemble == "scores"
        need = frozenset({"global", "tokens"} if self._as_scores and "tokens" in encoder.gives else {"global"})
        averaged = not self._as_scores and self._templates > 1
        at_once = max(1, _PROMPTS_AT_ONCE // self._templates) if averaged else len(place)
        distinct = list(place)
        parts = []
        for start in range(0, len(distinct), at_once):
            part = distinct[start : start + at_once]
            texts = encoder.texts([each.replace("{}", words) for words in part for each in template_names], need)
            parts.append(_averaged(texts, part) if averaged else texts)
        self.texts = TextFeatures.concat(parts)

    def scores(self, score: Callable[[TextFeatures], Tensor]) -> Tensor:
        """Class scores (N, C, ...): `score` applied to the prompts, its text axis (the second) reduced to C classes."""
        scores_NM = score(self.texts)
        if self._as_scores and self._templates > 1:
            split = (len(scores_NM), -1, self._templates, *scores_NM.shape[2:])
            scores_NM = scores_NM.reshape(split).mean(2)
        return scores_NM if self._repeats_C is None else scores_NM[:, self._repeats_C.to(scores_NM.device)]


def _averaged(texts: TextFeatures, words_C: Sequence[str]) -> TextFeatures:
    if texts.global_MD is None:
        raise UserError("This model has no text vectors to average: use a prompt set of one template.")
    unit_MD = unit(texts.global_MD)
    mean_CD = unit_MD.reshape(len(words_C), -1, unit_MD.shape[-1]).mean(1)
    return TextFeatures(texts=tuple(words_C), global_MD=unit(mean_CD))
