"""Many strings in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload


class CompactStrings(Sequence[str]):
    """Strings as bytes one after the other: a million ids take a third of the memory of a list of them.

    >>> names = CompactStrings(["a.jpg", "ü.jpg"])
    >>> names.extend(["c.jpg"])
    >>> names[1], names[-1], len(names), list(names[:2])
    ('ü.jpg', 'c.jpg', 3, ['a.jpg', 'ü.jpg'])
    """

    def __init__(self, strings: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("Q")
        self.extend(strings)

    def extend(self, strings: Iterable[str]) -> None:
        """Add strings at the end; they may hold any character, those that stand for undecodable bytes of paths too."""
        for string in strings:
            self._bytes += string.encode("utf-8", "surrogatepass")
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._bytes[start:end].decode("utf-8", "surrogatepass")
            start = end

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> CompactStrings: ...
    def __getitem__(self, index: int | slice) -> str | CompactStrings:
        if isinstance(index, slice):
            return CompactStrings(self[at] for at in range(len(self))[index])
        at = range(len(self))[index]
        start = self._ends[at - 1] if at else 0
        return self._bytes[start : self._ends[at]].decode("utf-8", "surrogatepass")
