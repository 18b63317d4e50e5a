"""Nouns and adjectives of a caption, by a part-of-speech tagger or a data set's own word list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError

ContentWords = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Function from a caption's words (lower-case, with articles as context) to its nouns and adjectives."""


def tagged_by(word_tags: Mapping[str, str]) -> ContentWords:
    """`ContentWords` by a data set's own word list, word -> NOUN | ADJ | OTHER; UserError for an unlisted word.

    >>> tagged_by({"red": "ADJ", "square": "NOUN", "is": "OTHER"})(("is", "red", "square"))
    ('red', 'square')
    """

    def keep(words: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [word for word in words if word not in word_tags]
        if unknown:
            raise UserError(f"The data set has no tag for its word '{unknown[0]}': add it to the data set's word_tags.")
        return tuple(word for word in words if word_tags[word] in ("NOUN", "ADJ"))

    return keep


@cache
def _hanta() -> Any:  # noqa: ANN401 - HanTa ships no types
    try:
        from HanTa import HanoverTagger
    except ImportError:
        raise UserError(
            "Parts of speech are found by HanTa, which is not installed: pip install 'sparc-bench[faithfulness]'."
        ) from None
    # Given a bare file name, HanTa unpickles such a file from the working folder first; the full path prevents that.
    tagger = HanoverTagger.HanoverTagger(str(Path(HanoverTagger.__file__).resolve().with_name("morphmodel_en.pgz")))
    # a word outside its lexicon is analysed once, not in every caption, which would take a quarter of the time
    tagger.analyze_forward = cache(tagger.analyze_forward)
    return tagger


def hanta_version() -> str:
    """Installed version of HanTa, for the record."""
    _hanta()
    return version("HanTa")


def hanta_tags(words: tuple[str, ...]) -> tuple[str, ...]:
    """Tag of each lower-case word of a sentence, of the BNC's C5 tags, by HanTa's English model (Wartena 2019).

    Raises UserError if HanTa is not installed.
    """
    return tuple(_hanta().tag_sent(list(words), taglevel=0))


@cache
def tagged_by_hanta(words: tuple[str, ...]) -> tuple[str, ...]:
    """Nouns (NN*, NP*) and adjectives (AJ*) by `hanta_tags`.

    Numerals, pronouns and participles are left out. Raises UserError if HanTa is not installed.
    """
    return tuple(word for word, tag in zip(words, hanta_tags(words), strict=True) if tag.startswith(("NN", "NP", "AJ")))
