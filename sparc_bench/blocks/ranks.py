"""The processes that share an evaluation, and what they do together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sparc_bench.errors import UserError

Result = TypeVar("Result")


class Ranks(Protocol):
    """The processes that share an evaluation.

    Attributes:
        rank: number of this process, from 0.
        world: how many there are.
    """

    rank: int
    world: int

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - whatever can be pickled
        """The values of all processes, in the order of their numbers; every process calls it."""
        ...


class Alone:
    """One process."""

    rank, world = 0, 1

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - as in Ranks
        """The value."""
        return [value]


def agreed(ranks: Ranks, work: Callable[[], Result]) -> Result:
    """The result of `work()`, called by every process.

    Raises:
        UserError: that of the first process where the work failed, in every process.
    """
    if ranks.world == 1:
        return work()
    sentence, result = None, None
    try:
        result = work()
    except UserError as error:
        sentence = str(error)
    failed = [found for found in ranks.gather(sentence) if found is not None]
    if failed:
        raise UserError(failed[0])
    return result  # type: ignore[return-value]  # there was no error


def by_first(ranks: Ranks, work: Callable[[], Result]) -> Result | None:
    """The result of `work()`, called by the first process; None in the others, which wait for it.

    Raises:
        UserError: the work failed, in every process.
    """
    return agreed(ranks, lambda: work() if ranks.rank == 0 else None)


def from_first(ranks: Ranks, work: Callable[[], Result]) -> Result:
    """The result of `work()`, called by the first process and told to all.

    Raises:
        UserError: the work failed, in every process.
    """
    found: Result = ranks.gather(by_first(ranks, work))[0]
    return found
