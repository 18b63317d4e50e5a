"""Class lists and prompt templates: cards `tasks/classes/NAME.toml` and `tasks/prompts/NAME.toml`, and open_clip's.

ImageNet's names and the 80 and 7 templates are those of open_clip (`imagenet`, `openai80`, `openai7`). A name that ends
in .toml is the path of such a card, which begins at the card that names it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from sparc_bench.cards.card import Strict, is_card_path, parse, read_toml
from sparc_bench.cards.discovery import cards_folder
from sparc_bench.cards.photo_lists import refuse_unknown_source
from sparc_bench.errors import UserError, nearest


class ClassNames(Strict):
    """Class list: the words for a data set's classes in prompts."""

    source: str
    words: dict[str, str]
    """class name of the data set -> words in prompts"""
    classes_from: str = ""
    """source of photos, as photo lists name it, whose classes these are: a model trained on them is not zero-shot"""


class Prompts(Strict):
    """Prompt set: templates with one {} for the class words; or all combinations of another set's with suffixes."""

    source: str
    templates: tuple[str, ...] = ()
    prefixes: str | None = None
    """prompt set whose templates, without their full stop, precede `, SUFFIX`"""
    suffixes: tuple[str, ...] = ()


def _card_names(kind: str) -> list[str]:
    return sorted(path.stem for path in (cards_folder("tasks") / kind).glob("*.toml"))


IMAGENET_LISTS = {
    "imagenet": "imagenet_synsets.txt",
    "imagenet_a": "imagenet_a_synsets.txt",
    "imagenet_r": "imagenet_r_synsets.txt",
}
"""Class list -> timm's file of its WordNet ids, sorted: the order of the classes."""

IMAGENET = "imagenet"
"""Source of ImageNet's photos, as photo lists name it: the classes of IMAGENET_LISTS are theirs."""


def is_class_list(name: str) -> bool:
    """Whether there is a class list of this name."""
    return name in IMAGENET_LISTS or name in _card_names("classes") or is_card_path(name)


def class_list(name: str) -> Mapping[str, str]:
    """Class list: class name of the data set -> words in prompts, in the order of the classes.

    `imagenet`, and `imagenet_a` and `imagenet_r` with 200 classes each, map WordNet ids to open_clip's words; every
    other list is `tasks/classes/NAME.toml`.

    Raises:
        UserError: no such list.
    """
    if name in IMAGENET_LISTS:
        words = dict(zip(_wordnet_ids("imagenet"), _open_clips_words().IMAGENET_CLASSNAMES, strict=True))
        return {wordnet_id: words[wordnet_id] for wordnet_id in _wordnet_ids(name)}
    if not is_class_list(name):
        known = [*_card_names("classes"), *IMAGENET_LISTS]
        where = f"ls {cards_folder('tasks') / 'classes'}"
        raise UserError(f"There is no class list '{name}': {nearest(name, [*known, 'own'], where)}")
    return _class_names(_class_card(name)).words


def classes_from(named: Iterable[str], classes: Iterable[str] = ()) -> set[str]:
    """Sources of photos (as photo lists name them) whose classes a task scores.

    Args:
        named: what its card names as `classes`; names that are no class list say nothing.
        classes: of its data, which WordNet ids alone mark as ImageNet's.

    Raises:
        UserError: a class list that a path names is missing or malformed.

    >>> classes_from(["own", "imagenet_a"]), classes_from([], ["n01440764"]), classes_from(["own"], ["cat"])
    ({'imagenet'}, {'imagenet'}, set())
    """
    lists = {name for name in named if is_class_list(name)}
    cards = map(_class_card, sorted(lists - {*IMAGENET_LISTS}))
    found = {_class_names(path).classes_from for path in cards} - {""}
    here = {*classes}
    if lists & {*IMAGENET_LISTS} or (here and here <= {*_wordnet_ids("imagenet")}):
        found.add(IMAGENET)
    return found


def _class_names(path: Path) -> ClassNames:
    card = parse(ClassNames, read_toml(path), str(path))
    if card.classes_from:
        refuse_unknown_source(card.classes_from, f"{path}: classes_from")
    return card


def _class_card(name: str) -> Path:
    return Path(name) if is_card_path(name) else cards_folder("tasks") / "classes" / f"{name}.toml"


def _wordnet_ids(name: str) -> list[str]:
    return _installed("timm", f"data/_info/{IMAGENET_LISTS[name]}").read_text(encoding="utf-8").split()


@cache
def _open_clips_words() -> ModuleType:
    """The module of open_clip that holds words alone, without the package around it, which imports torch."""
    file = _installed("open_clip", "zero_shot_metadata.py")
    spec = importlib.util.spec_from_file_location("_open_clips_words", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _installed(package: str, file: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / file


def class_words(name: str, classes: Sequence[str]) -> list[str]:
    """Words in prompts for each of the data set's `classes`, from a class list; "own": the class names themselves.

    Raises:
        UserError: no such list, or a class is not in the list.
    """
    if name == "own":
        return list(classes)
    words = class_list(name)
    missing = [label for label in classes if label not in words]
    if missing:
        where = name if name in IMAGENET_LISTS else _class_card(name)
        raise UserError(f"{where} has no words for the class '{missing[0]}': add it to [words].")
    return [words[label] for label in classes]


def templates(name: str) -> tuple[str, ...]:
    """Templates of a prompt set; each contains one {}."""
    if name in ("openai80", "openai7"):
        words = _open_clips_words()
        source = words.OPENAI_IMAGENET_TEMPLATES if name == "openai80" else words.SIMPLE_IMAGENET_TEMPLATES
        return tuple(template("{}") for template in source)
    if is_card_path(name):
        return expanded(parse(Prompts, read_toml(Path(name)), name), Path(name))
    if name not in _card_names("prompts"):
        known = [*_card_names("prompts"), "openai80", "openai7"]
        where = f"ls {cards_folder('tasks') / 'prompts'}"
        raise UserError(f"There is no prompt set '{name}': {nearest(name, known, where)}")
    path = cards_folder("tasks") / "prompts" / f"{name}.toml"
    return expanded(parse(Prompts, read_toml(path), str(path)), path)


def expanded(card: Prompts, path: Path) -> tuple[str, ...]:
    """Templates of a prompt card; with suffixes every prefix in turn with each suffix.

    Raises:
        UserError: neither templates nor both prefixes and suffixes, or a template without exactly one {}.
    """
    if bool(card.templates) == bool(card.prefixes) or bool(card.prefixes) != bool(card.suffixes):
        raise UserError(f"{path}: write either templates, or prefixes and suffixes.")
    found = card.templates
    if card.prefixes:
        prefixes = str(path.parent / card.prefixes) if is_card_path(card.prefixes) else card.prefixes
        before = [template.removesuffix(".") for template in templates(prefixes)]
        found = tuple(f"{prefix}, {suffix}" for prefix in before for suffix in card.suffixes)
    bad = [template for template in found if template.count("{}") != 1]
    if bad:
        raise UserError(f"{path}: {bad[:1]} does not hold one {{}}: mend it.")
    return found
