"""Which words of a caption are nouns or adjectives?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparc_bench.errors import UserError

ContentWords = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Keeps the nouns and adjectives of a caption's words (lower-case, articles left in: they are context)."""


def tagged_by(word_tags: Mapping[str, str]) -> ContentWords:
    """By a data set's own word list, word -> NOUN | ADJ | OTHER.

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
    # HanTa unpickles a file of that name from the working folder first; only the package's own may be loaded.
    return HanoverTagger.HanoverTagger(str(Path(HanoverTagger.__file__).resolve().with_name("morphmodel_en.pgz")))


def hanta_version() -> str:
    """The installed version of HanTa, for the record."""
    _hanta()
    return version("HanTa")


@cache
def tagged_by_hanta(words: tuple[str, ...]) -> tuple[str, ...]:
    """By HanTa's English model (Wartena 2019), which tags with the BNC's C5 set: NN* and NP* nouns, AJ* adjectives.

    Numerals, pronouns and participles are not counted. Raises UserError where HanTa is not installed.
    """
    tags = _hanta().tag_sent(list(words), taglevel=0)
    return tuple(word for word, tag in zip(words, tags, strict=True) if tag.startswith(("NN", "NP", "AJ")))
