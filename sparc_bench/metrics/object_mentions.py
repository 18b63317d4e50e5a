"""Objects that a caption mentions, found with a list of synonyms as in the CHAIR metric.

Rohrbach et al. 2018, Object Hallucination in Image Captioning (arXiv:1809.02156), section 3.1; LisaAnne/Hallucination,
utils/chair.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

_TOKEN = re.compile(r"[^\W_]+(?:[-./'&][^\W_]+)*|[^\w\s]")
_POSSESSIVE = re.compile(r"['\u2019]s?(?!\w)")

YOUNG_AND_OLD = ("baby", "adult")
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
"""Animals that `YOUNG_AND_OLD` words may precede: a "baby elephant" is an elephant and no person."""
VEHICLES = ("jet", "train")
"""Vehicles that "passenger" may precede: a "passenger train" is a train and no person."""
NO_OBJECTS = ("home plate", "train track")
"""Pairs of words that are one word and no object: a "train track" shows no train."""
_IRREGULAR = {"man": "men", "child": "children", "mouse": "mice", "goose": "geese", "person": "people"}


class ObjectMentions:
    """Finder of the objects that a caption mentions.

    Words are compared in lower case and as singulars (of the listed words only, not of all English words). A listed
    pair of words ("hot dog", "cell phone") is one mention; "baby" or "adult" before an animal and "passenger" before a
    jet or train are no person; a "train track" is no train; a "toilet seat" is a toilet, and in a caption with a toilet
    "seat" is no chair. An object mentioned twice counts twice, as in the official code.

    Unlike here, the official code misses "bus" and "ties", which its general rules turn into "bu" and "ty", and list
    entries written with an extra space.
    """

    def __init__(self, synonyms: Mapping[str, str]) -> None:
        """`synonyms`: a word or a pair of words in lower case -> its object."""
        self._object_of = dict(synonyms)
        self._singular: dict[str, str] = {}
        words = {part for entry in synonyms for part in entry.split()} | {*YOUNG_AND_OLD, *ANIMALS, *VEHICLES}
        words |= {part for pair in NO_OBJECTS for part in pair.split()}
        for word in sorted(words):
            for plural in _plurals(word):
                self._singular.setdefault(plural, word)
        for word in words:
            self._singular[word] = word
        pairs = {pair: pair for pair in NO_OBJECTS} | {entry: entry for entry in synonyms if " " in entry}
        pairs |= {f"{age} {animal}": animal for age in YOUNG_AND_OLD for animal in ANIMALS}
        pairs |= {f"passenger {vehicle}": vehicle for vehicle in VEHICLES}
        self._pairs = pairs | ({"toilet seat": "toilet"} if "toilet" in synonyms else {})

    def of(self, caption: str) -> tuple[str, ...]:
        """Objects of a caption in the order of their mentions, with repetitions."""
        return tuple(name for name, _ in self.places(_words(caption)))

    def places(self, words: Sequence[str]) -> list[tuple[str, slice]]:
        """Objects of a caption that is split into lower-case words and signs, each with the words that mention it.

        >>> ObjectMentions({"hot dog": "hot dog", "dog": "dog"}).places(["hot", "dogs", "for", "dogs"])
        [('hot dog', slice(0, 2, None)), ('dog', slice(3, 4, None))]
        """
        found = list(self._joined([self._singular.get(word, word) for word in words]))
        if "toilet" in (word for word, _ in found):
            found = [(word, place) for word, place in found if word != "seat"]
        return [(self._object_of[word], place) for word, place in found if word in self._object_of]

    def _joined(self, words: list[str]) -> Iterator[tuple[str, slice]]:
        index = 0
        while index < len(words):
            pair = " ".join(words[index : index + 2])
            joined = self._pairs.get(pair)
            length = 1 if joined is None else 2
            yield (words[index] if joined is None else joined), slice(index, index + length)
            index += length


def _words(caption: str) -> list[str]:
    """Words and punctuation marks in lower case, without possessive endings; a mark separates a pair of words."""
    return _TOKEN.findall(_POSSESSIVE.sub(" ' ", caption.lower()))


def _plurals(word: str) -> Iterator[str]:
    """Possible spellings of the plural of a word."""
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
