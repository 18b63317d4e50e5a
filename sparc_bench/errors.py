"""Errors that a user can fix: one sentence that ends in the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sparc_bench.foreign_text import visible


class UserError(Exception):
    """A mistake in a command, a card or a file; the command line prints its sentence and exits with code 2.

    Control characters in the sentence, as of a stranger's file that it names, are escaped.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(visible(sentence))


class ElsewhereError(UserError):
    """Another of several processes failed and says why; this one ends with code 2 and says nothing."""

    def __init__(self) -> None:
        super().__init__("Another process failed: read what it says.")


class StoppedError(BaseException):
    """A signal asked the command to stop; the command line prints the sentence and exits with `code`.

    No `Exception`, as KeyboardInterrupt is none: what fails a single task or job must not swallow it.

    Attributes:
        code: 128 and the number of the signal: 143 for SIGTERM, 138 for SIGUSR1, 130 for Ctrl-C.
    """

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.code = 128 + number

    def where(self, kept: str) -> StoppedError:
        """The same, with words on what is kept and where; itself without words.

        >>> print(StoppedError("Stopped by SIGTERM: all is well.", 15).where("3 of 9 blocks are kept in a.partial"))
        Stopped by SIGTERM: 3 of 9 blocks are kept in a.partial, and the same command goes on from there.
        """
        if not kept:
            return self
        start = str(self).partition(":")[0]
        return StoppedError(f"{start}: {kept}, and the same command goes on from there.", self.code - 128)


class UnreadableImageError(UserError):
    """An image file that is missing, truncated or no image at all."""


def reason(error: Exception) -> str:
    r"""First line of a library's error, shortened for a sentence; class of an error without text.

    >>> reason(OSError("connection refused.\nsee the log")), reason(TimeoutError())
    ('connection refused', 'TimeoutError')
    """
    lines = str(error).strip().splitlines()
    return shortened(lines[0]).rstrip(".") if lines else type(error).__name__


def shortened(text: str, most: int = 120) -> str:
    """The words of a text that fit into `most` characters, and dots where some did not; never a part of a word.

    >>> shortened("a header that is too large", 20), shortened("/a/folder/with/a/long/name is missing", 20)
    ('a header that is ...', '/a/folder/with/a/long/name ...')
    """
    words = text.split()
    if len(" ".join(words)) <= most:
        return " ".join(words)
    kept = max(1, sum(len(" ".join(words[: number + 1])) + 4 <= most for number in range(len(words))))
    return " ".join([*words[:kept], "..."])


def quoted(name: object, most: int = 100) -> str:
    """A name of a stranger's file in quotes, and dots in the middle of one that is too long for a sentence.

    >>> quoted("logit_scale"), quoted("x" * 10**6, 10)
    ("'logit_scale'", "'xxxx...xxxx'")
    """
    text = repr(name)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-(most // 2) :]}"


NO_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "too little memory")
"""Words of errors where memory is short: of torch on the CPU and on GPUs, and of our own sentence."""


def is_short_of_memory(error: Exception) -> bool:
    """Whether an error says that there is too little memory."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


MANY = 12
"""So many names a sentence may hold."""


def nearest(name: str, options: Iterable[str], listed_by: str = "") -> str:
    """The end of an error sentence about an unknown name: the nearest valid name, or all of a few, or what lists many.

    Args:
        name: as it was typed.
        options: the valid names.
        listed_by: a command that prints them, for where there are more than a sentence should hold.

    >>> nearest("scenes_spark", ["scenes_sparc", "scenes_clip"])
    "did you mean 'scenes_sparc'?"
    >>> nearest("x", [f"task{number}" for number in range(100)], "sparc-bench list tasks")
    'list the 100 that there are with sparc-bench list tasks.'
    """
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    if not options:
        return "there are none."
    if len(options) <= MANY:
        return f"choose one of {', '.join(options)}."
    if listed_by:
        return f"list the {len(options)} that there are with {listed_by}."
    return f"choose one of the {len(options)} that there are, such as {' or '.join(options[:2])}."
