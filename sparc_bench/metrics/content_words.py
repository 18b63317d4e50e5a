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
            "Nouns and adjectives are found by HanTa, which is not installed: pip install 'sparc-bench[faithfulness]'."
        ) from None
    # Given a bare file name, HanTa unpickles such a file from the working folder first; the full path prevents that.
    return HanoverTagger.HanoverTagger(str(Path(HanoverTagger.__file__).resolve().with_name("morphmodel_en.pgz")))


def hanta_version() -> str:
    """Installed version of HanTa, for the record."""
    _hanta()
    return version("HanTa")


@cache
def tagged_by_hanta(words: tuple[str, ...]) -> tuple[str, ...]:
    """Nouns (NN*, NP*) and adjectives (AJ*) by HanTa's English model (Wartena 2019), which has the BNC's C5 tags.

    Numerals, pronouns and participles are left out. Raises UserError if HanTa is not installed.
    """
    tags = _hanta().tag_sent(list(words), taglevel=0)
    return tuple(word for word, tag in zip(words, tags, strict=True) if tag.startswith(("NN", "NP", "AJ")))
