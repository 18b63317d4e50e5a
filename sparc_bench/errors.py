"""Errors that a user can mend: one sentence that ends in what to type or change."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in what was typed, in a card or on disk; the command line prints its sentence and exits with 2."""


class UnreadableImageError(UserError):
    """An image file that is missing, truncated or no image at all."""


def nearest(name: str, options: Iterable[str]) -> str:
    """The end of an error sentence about an unknown name: the nearest valid one, or all of them.

    >>> nearest("scenes_spark", ["scenes_sparc", "scenes_clip"])
    "did you mean 'scenes_sparc'?"
    """
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    if not options:
        return "there are none."
    return f"choose one of {', '.join(options)}."
