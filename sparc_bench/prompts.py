"""Class names and prompt templates as cards (`tasks/classes/NAME.toml`, `tasks/prompts/NAME.toml`), and their scores.

ImageNet's names and the 80 and 7 templates are imported from open_clip (`imagenet`, `openai80`, `openai7`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    """Templates with one {} for the class words."""

    source: str
    templates: tuple[str, ...]


def _card_names(kind: str) -> list[str]:
    return sorted(path.stem for path in (cards_folder("tasks") / kind).glob("*.toml"))


def class_words(name: str, classes: Sequence[str]) -> list[str]:
    """The words for each of the data set's `classes`, from `tasks/classes/NAME.toml`; "own" keeps its own names.

    Raises:
        UserError: no such list, or a class that the list lacks.
    """
    if name == "own":
        return list(classes)
    if name not in _card_names("classes"):
        raise UserError(f"There is no class list '{name}': {nearest(name, [*_card_names('classes'), 'own'])}")
    path = cards_folder("tasks") / "classes" / f"{name}.toml"
    words = parse(ClassNames, read_toml(path), str(path)).words
    missing = [label for label in classes if label not in words]
    if missing:
        raise UserError(f"{path} has no words for the class '{missing[0]}': add it to [words].")
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
    return parse(Prompts, read_toml(path), str(path)).templates


class PromptedClasses:
    """C classes under T templates, encoded once, scored by the model's own rule.

    Where the model averages prompts as embeddings, each prompt's global vector is L2-normalised, the T vectors of a
    class are averaged and normalised again (the order of CLIP's own code); else the T scores of a class are averaged.
    """

    def __init__(self, encoder: Encoder, words_C: Sequence[str], template_names: Sequence[str]) -> None:
        self._templates = len(template_names)
        self._classes = len(words_C)
        prompts = [template.replace("{}", words) for words in words_C for template in template_names]
        self._as_scores = encoder.prompt_ensemble == "scores"
        need = frozenset({"global", "tokens"} if self._as_scores and "tokens" in encoder.gives else {"global"})
        texts = encoder.texts(prompts, need)
        if not self._as_scores and self._templates > 1:
            if texts.global_MD is None:
                raise UserError("This model has no text vectors to average: use a prompt set of one template.")
            unit_MD = torch.nn.functional.normalize(texts.global_MD, dim=-1)
            unit_CTD = unit_MD.reshape(self._classes, self._templates, -1)
            texts = TextFeatures(
                texts=tuple(words_C), global_MD=torch.nn.functional.normalize(unit_CTD.mean(1), dim=-1)
            )
        self.texts = texts

    def scores(self, score: Callable[[TextFeatures], Tensor]) -> Tensor:
        """`score` of the prompts, with its text axis (the second) reduced to the C classes."""
        scores_NM = score(self.texts)
        if self._as_scores and self._templates > 1:
            split = (len(scores_NM), self._classes, self._templates, *scores_NM.shape[2:])
            return scores_NM.reshape(split).mean(2)
        return scores_NM
