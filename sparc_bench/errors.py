"""Errors that a user can fix: one sentence that ends in the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a command, a card or a file; the command line prints its sentence and exits with code 2."""


class UnreadableImageError(UserError):
    """An image file that is missing, truncated or no image at all."""


def nearest(name: str, options: Iterable[str]) -> str:
    """The end of an error sentence about an unknown name: the nearest valid name, or all valid names.

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
