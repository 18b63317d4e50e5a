"""The words of captions: noun phrases, plurals, articles, relations, numbers, and the part of speech of each word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparc_bench.scenes.logical_forms import Description
from sparc_bench.scenes.random_stream import RandomStream
from sparc_bench.scenes.world import COLOURS, SHAPES

_PLURAL = {"cross": "crosses"}
_NUMBERS = ("zero", "one", "two", "three", "four")
_ANY = ("object", "shape", "thing")
_SIZES = {"small": ("small", "little"), "large": ("large", "big")}
_PATTERNS = {"solid": ("solid", "plain"), "striped": ("striped", "striped"), "dotted": ("dotted", "spotted")}
_PATTERNS_AFTER = {"striped": "with stripes", "dotted": "with dots"}
_RELATIONS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "above", "higher than"),
    "below": ("below", "under", "lower than"),
}
_PLACES = {
    ("top", None): ("at the top", "near the top"),
    ("bottom", None): ("at the bottom", "near the bottom"),
    (None, "left"): ("on the left", "on the left side"),
    (None, "right"): ("on the right", "on the right side"),
    (None, "middle"): ("halfway between left and right", "halfway between left and right"),
    ("middle", None): ("halfway between top and bottom", "halfway between top and bottom"),
    ("middle", "middle"): ("in the middle", "in the centre"),
    ("top", "middle"): ("at the top in the middle", "at the top in the centre"),
    ("bottom", "middle"): ("at the bottom in the middle", "at the bottom in the centre"),
    ("middle", "left"): ("on the left at middle height", "on the left side at middle height"),
    ("middle", "right"): ("on the right at middle height", "on the right side at middle height"),
    ("top", "left"): ("at the top left", "in the top left corner"),
    ("top", "right"): ("at the top right", "in the top right corner"),
    ("bottom", "left"): ("at the bottom left", "in the bottom left corner"),
    ("bottom", "right"): ("at the bottom right", "in the bottom right corner"),
}

_NOUNS = (
    "bottom centre corner dots height image left middle number object objects picture right scene shape shapes "
    "side stripes thing things top total"
)
_ADJECTIVES = "big dotted large little plain small solid spotted striped"
_OTHERS = (
    "a above all an and are at be below between but can contains count else exactly four halfway has here higher in is "
    "just less lies lower more near no nothing of on one only other see seen shows than that the there this three to "
    "two under we where which with you zero"
)


def word_tags() -> dict[str, str]:
    """Word -> "NOUN", "ADJ" or "OTHER" (verbs, numbers, prepositions, articles), for all words of captions.

    "left", "right", "top", "bottom" and "middle" always count as nouns ("on the left").
    """
    tags = dict.fromkeys(_OTHERS.split(), "OTHER")
    tags |= dict.fromkeys([*_ADJECTIVES.split(), *COLOURS], "ADJ")
    return tags | dict.fromkeys([*_NOUNS.split(), *SHAPES, *(plural(shape) for shape in SHAPES)], "NOUN")


@dataclass(frozen=True)
class Style:
    """The choices among synonyms in one caption.

    The style is drawn independently of the claims, so that captions of one style differ only in their claims.

    Attributes:
        template: number of the sentence template.
        noun: number of the word for an object of unstated shape.
        size: number of the word for a size.
        pattern: number of the word for a pattern; 2 puts it behind the noun ("with stripes").
        relation: number of the words for a relation.
        place: number of the words for a place.
    """

    template: int
    noun: int
    size: int
    pattern: int
    relation: int
    place: int

    @classmethod
    def draw(cls, stream: RandomStream) -> Style:
        """A random style."""
        return cls(*stream.several(2520, 3, 2, 3, 3, 2))


def plural(noun: str) -> str:
    """The plural of a noun.

    >>> plural("cross"), plural("star")
    ('crosses', 'stars')
    """
    return _PLURAL.get(noun, f"{noun}s")


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" in front.

    >>> with_article("orange star"), with_article("red star")
    ('an orange star', 'a red star')
    """
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun_phrase(
    what: Description, style: Style, number: int | None = 1, definite: bool = False, counted: bool = False
) -> str:
    """The noun phrase of one object ("a red star"), of several ("two red stars"), or, with None, "red stars".

    One object has the article "a" or "an", "the" with `definite`, or the number "one" with `counted`.
    """
    noun = what.shape or _ANY[style.noun]
    words = [_SIZES[what.size][style.size]] if what.size else []
    behind = ""
    if what.pattern and style.pattern == 2 and what.pattern in _PATTERNS_AFTER:
        behind = f" {_PATTERNS_AFTER[what.pattern]}"
    elif what.pattern:
        words.append(_PATTERNS[what.pattern][style.pattern % 2])
    if what.colour:
        words.append(what.colour)
    words.append(noun if number == 1 else plural(noun))
    phrase = " ".join(words) + behind
    place = place_phrase(what, style)
    if place:
        phrase = f"{phrase} {place}"
    if number is None:
        return phrase
    if definite:
        return f"the {phrase}"
    return with_article(phrase) if number == 1 and not counted else f"{number_word(number)} {phrase}"


def place_phrase(what: Description, style: Style) -> str:
    """The words for a place; empty where the description states none."""
    if what.row is None and what.column is None:
        return ""
    return _PLACES[what.row, what.column][style.place]


def relation_phrase(relation: str, style: Style) -> str:
    """The words for a relation."""
    return _RELATIONS[relation][style.relation]


def number_word(number: int) -> str:
    """The word for a number from zero to four."""
    return _NUMBERS[number]


def listing(phrases: Sequence[str]) -> str:
    """Phrases joined by commas and "and".

    >>> listing(["a", "b", "c"])
    'a, b and c'
    """
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
