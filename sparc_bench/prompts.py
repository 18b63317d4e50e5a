"""Class names and prompt templates as cards (`tasks/classes/NAME.toml`, `tasks/prompts/NAME.toml`), and their scores.

ImageNet's names and the 80 and 7 templates are imported from open_clip (`imagenet`, `openai80`, `openai7`).
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sparc_bench.cards import Strict, parse, read_toml
from sparc_bench.discover import cards_folder
from sparc_bench.errors import UserError, nearest
from sparc_bench.features import Encoder, TextFeatures


class ClassNames(Strict):
    """The words that stand for a data set's classes."""

    source: str
    words: dict[str, str]
    """The data set's own class name -> the words put into prompts."""


class Prompts(Strict):
    """Templates with one {} for the class words; or another set's templates, each with each of some suffixes."""

    source: str
    templates: tuple[str, ...] = ()
    prefixes: str | None = None
    """A prompt set that stands before the suffixes: its templates, without their full stop, then `, SUFFIX`."""
    suffixes: tuple[str, ...] = ()


def _card_names(kind: str) -> list[str]:
    return sorted(path.stem for path in (cards_folder("tasks") / kind).glob("*.toml"))


IMAGENET_LISTS = {
    "imagenet": "imagenet_synsets.txt",
    "imagenet_a": "imagenet_a_synsets.txt",
    "imagenet_r": "imagenet_r_synsets.txt",
}
"""Class list -> timm's list of its WordNet ids, sorted: their order is the classes' order."""


def is_class_list(name: str) -> bool:
    """Whether `class_list` knows it."""
    return name in IMAGENET_LISTS or name in _card_names("classes")


def class_list(name: str) -> Mapping[str, str]:
    """The data set's own class names, in their order, with the words for each.

    `imagenet`, and the 200 classes each of `imagenet_a` and `imagenet_r`, are WordNet ids with open_clip's words;
    every other list is `tasks/classes/NAME.toml`.

    Raises:
        UserError: no such list.
    """
    if name in IMAGENET_LISTS:
        import open_clip

        words = dict(zip(_wordnet_ids("imagenet"), open_clip.IMAGENET_CLASSNAMES, strict=True))
        return {wordnet_id: words[wordnet_id] for wordnet_id in _wordnet_ids(name)}
    if not is_class_list(name):
        known = [*_card_names("classes"), *IMAGENET_LISTS]
        raise UserError(f"There is no class list '{name}': {nearest(name, [*known, 'own'])}")
    path = cards_folder("tasks") / "classes" / f"{name}.toml"
    return parse(ClassNames, read_toml(path), str(path)).words


def _wordnet_ids(name: str) -> list[str]:
    content = pkgutil.get_data("timm.data", f"_info/{IMAGENET_LISTS[name]}")
    assert content is not None
    return content.decode().split()


def class_words(name: str, classes: Sequence[str]) -> list[str]:
    """The words for each of the data set's `classes`, from a class list; "own" keeps its own names.

    Raises:
        UserError: no such list, or a class that the list lacks.
    """
    if name == "own":
        return list(classes)
    words = class_list(name)
    missing = [label for label in classes if label not in words]
    if missing:
        where = name if name in IMAGENET_LISTS else cards_folder("tasks") / "classes" / f"{name}.toml"
        raise UserError(f"{where} has no words for the class '{missing[0]}': add it to [words].")
    return [words[label] for label in classes]


def templates(name: str) -> tuple[str, ...]:
    """The templates of a prompt set; each holds one {}."""
    if name in ("openai80", "openai7"):
        import open_clip

        source = open_clip.OPENAI_IMAGENET_TEMPLATES if name == "openai80" else open_clip.SIMPLE_IMAGENET_TEMPLATES
        return tuple(template("{}") for template in source)
    if name not in _card_names("prompts"):
        known = [*_card_names("prompts"), "openai80", "openai7"]
        raise UserError(f"There is no prompt set '{name}': {nearest(name, known)}")
    path = cards_folder("tasks") / "prompts" / f"{name}.toml"
    return expanded(parse(Prompts, read_toml(path), str(path)), path)


def expanded(card: Prompts, path: Path) -> tuple[str, ...]:
    """The templates of a prompt card, prefix by prefix where it has suffixes.

    Raises:
        UserError: it has neither templates nor both prefixes and suffixes, or a template without its one {}.
    """
    if bool(card.templates) == bool(card.prefixes) or bool(card.prefixes) != bool(card.suffixes):
        raise UserError(f"{path}: write either templates, or prefixes and suffixes.")
    found = card.templates
    if card.prefixes:
        before = [template.removesuffix(".") for template in templates(card.prefixes)]
        found = tuple(f"{prefix}, {suffix}" for prefix in before for suffix in card.suffixes)
    bad = [template for template in found if template.count("{}") != 1]
    if bad:
        raise UserError(f"{path}: {bad[:1]} does not hold one {{}}: mend it.")
    return found


_PROMPTS_AT_ONCE = 16_384
"""So many prompts are encoded before they are averaged: 1,000 classes under 480 templates would fill the memory."""


class PromptedClasses:
    """C classes under T templates, encoded once, scored by the model's own rule.

    Where the model averages prompts as embeddings, each prompt's global vector is L2-normalised, the T vectors of a
    class are averaged and normalised again (the order of CLIP's own code); else the T scores of a class are averaged.
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
        """`score` of the prompts, with its text axis (the second) reduced to the C classes."""
        scores_NM = score(self.texts)
        if self._as_scores and self._templates > 1:
            split = (len(scores_NM), -1, self._templates, *scores_NM.shape[2:])
            scores_NM = scores_NM.reshape(split).mean(2)
        return scores_NM if self._repeats_C is None else scores_NM[:, self._repeats_C.to(scores_NM.device)]


def _averaged(texts: TextFeatures, words_C: Sequence[str]) -> TextFeatures:
    if texts.global_MD is None:
        raise UserError("This model has no text vectors to average: use a prompt set of one template.")
    unit_MD = torch.nn.functional.normalize(texts.global_MD, dim=-1)
    mean_CD = unit_MD.reshape(len(words_C), -1, unit_MD.shape[-1]).mean(1)
    return TextFeatures(texts=tuple(words_C), global_MD=torch.nn.functional.normalize(mean_CD, dim=-1))
