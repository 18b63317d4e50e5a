"""Several processes of one evaluation under torchrun: who this one is, its device, and what it hears of the others.

    torchrun --nproc-per-node 3 -m sparc_bench eval ...

    with evaluation_ranks("cuda") as ranks:
        done = ranks.together(lambda: [predict(block) for block in blocks[ranks.rank :: ranks.world]])
        everyone = ranks.gather(len(done))

Where a process ends by an error or dies, the others end too, within seconds, and one sentence says why
(`sparc_bench.evaluation.lifeline`).
Without torchrun there is one process, and nothing of torch.distributed is used.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar, cast

import torch
from torch.distributed.rendezvous import rendezvous

from sparc_bench.blocks.ranks import Alone, Ranks
from sparc_bench.distributed import rank_and_world
from sparc_bench.errors import ElsewhereError, StoppedError, UserError
from sparc_bench.evaluation.lifeline import Farewell, Lifeline, Store, connect, death

Value = TypeVar("Value")

VERDICT_SECONDS = 0.5
"""A process that is stopped waits so long before it leaves: torchrun stops all where one dies, which is then said."""

_entries = itertools.count()
"""Of the evaluations of this process, which all processes begin in the same order."""


@dataclass(frozen=True)
class TorchrunRanks:
    """The several processes of one evaluation, seen from one of them (see `sparc_bench.blocks.ranks.Ranks`).

    Attributes:
        device: of this process.
        rank: of this process, from 0.
        world: number of processes.
        lifeline: to the others.
    """

    device: str
    rank: int
    world: int
    lifeline: Lifeline

    def gather(self, value: Value) -> list[Value]:
        """All ranks' values (small, picklable) in rank order, on every rank; it waits for the others without limit."""
        return self.lifeline.gather(value)

    def together(self, work: Callable[[], Value]) -> Value:
        """The result of `work()`, which every process calls; where it fails on one of them, it fails on all.

        Raises:
            UserError: on rank 0, with the sentence of the lowest rank whose work failed.
            ElsewhereError: on the others, which say nothing.
        """
        results, sentence = [], ""
        try:
            results.append(work())
        except ElsewhereError:  # of `heed`
            pass
        except UserError as error:
            sentence = str(error)
            self.lifeline.warn()
        said = [told for told in self.gather(sentence) if told]
        self.lifeline.turn += 1
        if said:
            raise UserError(said[0]) if self.rank == 0 else ElsewhereError
        return results[0]

    def heed(self) -> None:
        """Raise ElsewhereError where the others' part of the work has failed already: asked between blocks."""
        if self.lifeline.troubled == self.lifeline.turn:
            raise ElsewhereError


@contextmanager
def evaluation_ranks(device: str) -> Iterator[Ranks]:
    """This process among those of torchrun; for "cuda" each has the GPU of its LOCAL_RANK.

    Raises:
        UserError: there are more processes than GPUs, or a process does not come.
        ElsewhereError: an error that left the block of another process first, which says it.
    """
    rank, world = rank_and_world()
    if world == 1:
        yield Alone(device)
        return
    lifeline = connect(rank, world, os.environ["MASTER_ADDR"], _store(), f"sparc_bench/{next(_entries)}")
    try:
        yield TorchrunRanks(_own(device), rank, world, lifeline)
    except UserError as error:
        speaks = not isinstance(error, ElsewhereError) and lifeline.first()
        lifeline.leave(Farewell(2))
        if speaks:
            raise
        lifeline.outlive()
        raise ElsewhereError from None
    except (StoppedError, KeyboardInterrupt) as error:
        time.sleep(VERDICT_SECONDS)
        code = error.code if isinstance(error, StoppedError) else 130
        lifeline.leave(Farewell(code, str(error) if rank > 0 else ""))  # rank 0 says it itself
        raise
    except BaseException:
        lifeline.leave(death(rank, world))
        raise
    lifeline.leave(Farewell())


@cache
def _store() -> Store:
    return cast("Store", next(rendezvous("env://"))[0])


def _own(device: str) -> str:
    if device != "cuda":
        return device
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise UserError(f"This machine has no GPU for process {local} of its own: start {there} at most on it.")
    torch.cuda.set_device(local)
    return f"cuda:{local}"
