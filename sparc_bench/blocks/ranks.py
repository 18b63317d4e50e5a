"""The processes that share an evaluation, and what they do together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

Value = TypeVar("Value")


class Ranks(Protocol):
    """The processes that share an evaluation, as one of them sees them (see `sparc_bench.evaluation.ranks`)."""

    @property
    def device(self) -> str:
        """Of this process."""
        ...

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def world(self) -> int:
        """How many there are."""
        ...

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of their numbers; every process calls it."""
        ...

    def together(self, work: Callable[[], Value]) -> Value:
        """The result of `work()`, which every process calls; where it fails on one, it fails on all."""
        ...

    def heed(self) -> None:
        """Raise an error where the others' part of the work has failed already."""
        ...


@dataclass(frozen=True)
class Alone:
    """One process (see `Ranks`)."""

    device: str = "cpu"
    rank: int = 0
    world: int = 1

    def gather(self, value: Value) -> list[Value]:
        """The value."""
        return [value]

    def together(self, work: Callable[[], Value]) -> Value:
        """The result of `work()`."""
        return work()

    def heed(self) -> None:
        """Nothing: there are no others."""


def by_first(ranks: Ranks, work: Callable[[], Value]) -> Value | None:
    """The result of `work()`, called by the first process; None in the others, which wait for it.

    Raises:
        UserError: the work failed.
    """
    return ranks.together(lambda: work() if ranks.rank == 0 else None)


def from_first(ranks: Ranks, work: Callable[[], Value]) -> Value:
    """The result of `work()`, called by the first process and told to all; something small.

    Raises:
        UserError: the work failed.
    """
    found: Value = ranks.gather(by_first(ranks, work))[0]  # type: ignore[assignment]  # that of rank 0 is there
    return found
