"""Batch sizes as `sparc-bench cost --batch` takes them."""

from __future__ import annotations

from sparc_bench.errors import UserError


def listed(words: str) -> list[str]:
    """The words between the commas of an option, without blank ones.

    >>> listed("clip, filip,")
    ['clip', 'filip']
    """
    return [word.strip() for word in words.split(",") if word.strip()]


def batch_sizes(words: str) -> tuple[int, ...]:
    """The batch sizes of an option, each once.

    Raises:
        UserError: a word is no whole number from 2 to a million.
    """
    return tuple(dict.fromkeys(_size(word) for word in listed(words)))


def _size(word: str) -> int:
    if not word.isdecimal() or len(word) > 7 or not 2 <= int(word) <= 1_000_000:
        raise UserError(f"'{word[:20]}' is no batch size: give whole numbers from 2 on, such as --batch 8,16,32.")
    return int(word)
