"""Which objects does a caption mention? A list of synonyms, read as the CHAIR metric reads it.

Rohrbach et al. 2018, Object Hallucination in Image Captioning (arXiv:1809.02156), section 3.1; LisaAnne/Hallucination,
utils/chair.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_TOKEN = re.compile(r"[^\W_]+(?:[-./'&][^\W_]+)*|[^\w\s]")
_POSSESSIVE = re.compile(r"['\u2019]s?(?!\w)")

YOUNG_AND_OLD = ("baby", "adult")
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
"""A "baby elephant" is an elephant and no person."""
CARRIERS = ("jet", "train")
"""A "passenger train" is a train and no person."""
_IRREGULAR = {"man": "men", "child": "children", "mouse": "mice", "goose": "geese", "person": "people"}


class ObjectMentions:
    """Finds the objects that a caption mentions.

    Words are compared in lower case and as singulars (the plurals of the listed words are known, not those of all
    English). Two words that the list holds as one entry ("hot dog", "cell phone") are one mention; "baby" or "adult"
    before an animal and "passenger" before a jet or train name no person; a "toilet seat" is a toilet, and beside a
    toilet a "seat" is no chair. An object that is mentioned twice counts twice, as in the official code.

    The official code makes singulars by general rules that turn "bus" into "bu" and "ties" into "ty", which it then
    misses, and misses entries that its file writes with an extra space; here they count.
    """

    def __init__(self, synonyms: Mapping[str, str]) -> None:
        """`synonyms`: a word or two words, in lower case -> the object that it names."""
        self._object_of = dict(synonyms)
        self._singular: dict[str, str] = {}
        words = {part for entry in synonyms for part in entry.split()} | {*YOUNG_AND_OLD, *ANIMALS, *CARRIERS}
        for word in sorted(words):
            for plural in _plurals(word):
                self._singular.setdefault(plural, word)
        for word in words:
            self._singular[word] = word
        pairs = {entry: entry for entry in synonyms if " " in entry}
        pairs |= {f"{age} {animal}": animal for age in YOUNG_AND_OLD for animal in ANIMALS}
        pairs |= {f"passenger {carrier}": carrier for carrier in CARRIERS}
        self._pairs = pairs | ({"toilet seat": "toilet"} if "toilet" in synonyms else {})

    def of(self, caption: str) -> tuple[str, ...]:
        """The objects in the order of their mentions, repetitions included."""
        words = list(self._joined([self._singular.get(word, word) for word in _words(caption)]))
        if "toilet" in words:
            words = [word for word in words if word != "seat"]
        return tuple(self._object_of[word] for word in words if word in self._object_of)

    def _joined(self, words: list[str]) -> Iterator[str]:
        index = 0
        while index < len(words):
            pair = " ".join(words[index : index + 2])
            joined = self._pairs.get(pair)
            yield words[index] if joined is None else joined
            index += 1 if joined is None else 2


def _words(caption: str) -> list[str]:
    """Words and marks in lower case: a mark between two words keeps them apart, a possessive ending is left out."""
    return _TOKEN.findall(_POSSESSIVE.sub(" ' ", caption.lower()))


def _plurals(word: str) -> Iterator[str]:
    """How the plural of a word may be spelt."""
    for singular, plural in _IRREGULAR.items():
        if word.endswith(singular):
            yield word.removesuffix(singular) + plural
    if re.search(r"[^aeiou]y$", word):
        yield f"{word[:-1]}ies"
    elif word.endswith(("s", "x", "z", "ch", "sh")):
        yield f"{word}es"
    else:
        yield f"{word}s"
    if word.endswith("o"):
        yield f"{word}es"
    if word.endswith("fe"):
        yield f"{word[:-2]}ves"
    if word.endswith("lf"):
        yield f"{word[:-1]}ves"
