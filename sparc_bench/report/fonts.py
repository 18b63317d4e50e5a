"""Fonts for whatever script a text is in: no letter is drawn as an empty box."""

from __future__ import annotations

from functools import cache

DEFAULT = "DejaVu Sans"


def families(text: str) -> tuple[str, ...]:
    """Families that together have the letters of a text, as far as any font has them; matplotlib's own comes first."""
    missing = {letter for letter in text if not letter.isspace() and ord(letter) not in _letters(_default_file())}
    found = [DEFAULT]
    for family, file in _installed() if missing else ():
        covered = {letter for letter in missing if ord(letter) in _letters(file)}
        if covered:
            found.append(family)
            missing -= covered
        if not missing:
            break
    return tuple(found)


def drawable(text: str, of: tuple[str, ...]) -> str:
    r"""The text with every letter that none of the families has as its code point, such as U+4E2D.

    >>> drawable("a cat", (DEFAULT,)), drawable("\U0001fae8", (DEFAULT,))
    ('a cat', 'U+1FAE8')
    """
    files = [_default_file(), *(file for family, file in _installed() if family in of)]
    return "".join(
        letter if letter.isspace() or any(ord(letter) in _letters(file) for file in files) else f"U+{ord(letter):04X}"
        for letter in text
    )


@cache
def _letters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())


@cache
def _default_file() -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return findfont(FontProperties(family=DEFAULT))


@cache
def _installed() -> tuple[tuple[str, str], ...]:
    """Family and file of the machine's own upright fonts; matplotlib's others are of formulas, or of named boxes."""
    from matplotlib import get_data_path
    from matplotlib.font_manager import fontManager

    own = [entry for entry in fontManager.ttflist if not entry.fname.startswith(get_data_path())]
    fonts = {entry.name: entry.fname for entry in own if entry.style == "normal" and entry.weight == 400}
    return tuple(sorted((name, file) for name, file in fonts.items() if "Last Resort" not in name))
