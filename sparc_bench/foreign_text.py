"""Text that others wrote (titles, ids, captions, keys of a file), made harmless where it is printed or written.

A control character in it could clear the screen, a line break or `|` forge a row of a table, HTML run in a page, and a
formula in a spreadsheet.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TypeVar

Cell = TypeVar("Cell")

_JOINERS = "\u200c\u200d"
"""Signs without a shape of their own that Persian, Hindi and emoji are spelt with."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of signs that act on their surroundings and are not seen."""

_OF_MARKDOWN = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    **{sign: f"\\{sign}" for sign in "|`[]*\\"},
}

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""First signs by which a spreadsheet takes a cell for a formula (OWASP, CSV Injection)."""


def visible(text: str, keep: str = "") -> str:
    r"""The text with escapes for all control and direction characters, line breaks too; those of `keep` stay.

    >>> print(visible("a\x1b[2Jb\n\u202ec"))
    a\x1b[2Jb\n\u202ec
    """
    if text.isprintable():
        return text
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in _UNSEEN and sign not in keep and sign not in _JOINERS
        else sign
        for sign in text
    )


def markdown(text: str) -> str:
    r"""The text as it is read in a page or a cell of a table in Markdown; none of it is a mark or HTML.

    >>> print(markdown("a|b <img src=x>\n| 1 | best |"))
    a\|b &lt;img src=x&gt;\\n\| 1 \| best \|
    """
    return "".join(_OF_MARKDOWN.get(sign, sign) for sign in visible(text))


def code_span(text: str) -> str:
    r"""The text within the backticks of Markdown, for a name or a hash outside of a table.

    >>> print(code_span("a`<b>"))
    `a'<b>`
    """
    return f"`{visible(text).replace('`', chr(39))}`"


def csv_cell(value: Cell) -> Cell | str:
    r"""A cell of a CSV file: a text that a spreadsheet would take for a formula begins with an apostrophe.

    Numbers stay numbers, as texts too.

    >>> csv_cell("=HYPERLINK(1)"), csv_cell("-0.5"), csv_cell(-0.5), csv_cell("scenes_clip")
    ("'=HYPERLINK(1)", '-0.5', -0.5, 'scenes_clip')
    """
    if not isinstance(value, str):
        return value
    formula = value.lstrip(" ").startswith(_FORMULA) and not re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value)
    return f"'{visible(value)}" if formula else visible(value)
