"""Counter-based random numbers: a pure function of a key and a counter, in 64-bit integers, equal on every machine.

The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014,
section 5): the k-th word of a stream is a bijective mixing of key + k times an odd constant, so that any word can be
computed without the words before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import UInt64
from numpy import ndarray

Item = TypeVar("Item")

_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_WORD = (1 << 64) - 1


def mix(word: int) -> int:
    """SplitMix64's finaliser: a bijection of 64-bit integers in which every output bit depends on every input bit."""
    word = ((word ^ (word >> 30)) * _FIRST) & _WORD
    word = ((word ^ (word >> 27)) * _SECOND) & _WORD
    return word ^ (word >> 31)


def fold(*parts: str | int) -> int:
    """The 64-bit key of a sequence of strings and integers; any change of a part changes the key."""
    key = len(parts)
    for part in parts:
        for number in _numbers(part):
            key = mix((key + _STEP + mix(number & _WORD)) & _WORD)
    return key


def _numbers(part: str | int) -> list[int]:
    """A part as integers; for a string its number of bytes and its bytes in groups of eight (`hash` varies by run)."""
    if isinstance(part, int):
        return [part]
    data = part.encode()
    return [len(data), *(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))]


def words(key: int, count: int) -> UInt64[ndarray, "count"]:
    """The first `count` words of the stream of `key`, as one array."""
    step_K = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
    word_K = step_K + np.uint64(key)
    word_K = (word_K ^ (word_K >> np.uint64(30))) * np.uint64(_FIRST)
    word_K = (word_K ^ (word_K >> np.uint64(27))) * np.uint64(_SECOND)
    return word_K ^ (word_K >> np.uint64(31))


class RandomStream:
    """The random words of one key, one after the other, and draws from them.

    >>> RandomStream("scenes1", "test", 3).below(10) == RandomStream("scenes1", "test", 3).below(10)
    True
    """

    def __init__(self, *key: str | int) -> None:
        self._state = fold(*key)

    def word(self) -> int:
        """The next 64-bit word."""
        self._state = word = (self._state + _STEP) & _WORD
        word = ((word ^ (word >> 30)) * _FIRST) & _WORD
        word = ((word ^ (word >> 27)) * _SECOND) & _WORD
        return word ^ (word >> 31)

    def below(self, limit: int) -> int:
        """A random integer in 0..limit - 1; no value is favoured by more than limit / 2**64."""
        return (self.word() * limit) >> 64

    def several(self, *limits: int) -> list[int]:
        """One random integer below each limit, all from one word; the product of the limits must be far below 2**64."""
        word, drawn = self.word(), []
        for limit in limits:
            word *= limit
            drawn.append(word >> 64)
            word &= _WORD
        return drawn

    def chance(self, times: int, out_of: int) -> bool:
        """True with probability `times` / `out_of`."""
        return self.below(out_of) < times

    def choice(self, options: Sequence[Item]) -> Item:
        """One of the options, uniformly drawn."""
        return options[self.below(len(options))]

    def weighted(self, options: Sequence[tuple[Item, int]]) -> Item:
        """One of the options, drawn with probability proportional to its weight."""
        at = self.below(sum(weight for _, weight in options))
        for option, weight in options:
            at -= weight
            if at < 0:
                return option
        raise RuntimeError("weights do not cover their sum")

    def shuffled(self, options: Sequence[Item]) -> list[Item]:
        """The options in random order (Fisher and Yates)."""
        order = list(options)
        for last in range(len(order) - 1, 0, -1):
            other = self.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order
