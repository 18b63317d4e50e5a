"""Data parallelism that changes no number: gathered rows with gradients, and means over all ranks.

Data-parallel training averages the gradients of the ranks. A loss therefore is either a mean over rows (`Ctx.mean`: the
local sum times the world size over the weight of all ranks), or every rank computes it whole on gathered rows.

Shapes: B rows of this rank, N rows of all ranks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sparc_bench.errors import ElsewhereError, UserError

Result = TypeVar("Result")


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes under torchrun; 0 and 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    """Whether there are several processes."""
    return rank_and_world()[1] > 1


TIMEOUT = "SPARC_BENCH_TIMEOUT"
"""Environment variable: seconds after which a process that does not answer in a training step is given up."""
SECONDS = 90
"""Its default."""
ALONE = 12
"""So many times as long may rank 0 work alone: decode, validate, write."""

_control: Any = None
"""Group in which the processes tell each other whether all is well."""


def timeout() -> int:
    """Seconds after which a process that does not answer in a training step is given up."""
    value = os.environ.get(TIMEOUT, str(SECONDS))
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= 86_400):
        raise UserError(f"{TIMEOUT} is '{value}': set it to a number of seconds from 1 to 86400, or unset it.")
    return int(value)


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """This process's device, within torchrun's process group (gloo on CPUs, NCCL on GPUs); no group for one process."""
    global _control
    if not several():
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    seconds = timeout()
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=timedelta(seconds=seconds))
    _control = dist.new_group(backend="gloo", timeout=timedelta(seconds=ALONE * seconds))
    try:
        yield device
    finally:
        _control = None
        dist.destroy_process_group()


def together(work: Callable[[], Result]) -> Result:
    """The result of `work()`, called by every process; where one of them fails, all do.

    Raises:
        ElsewhereError: the work failed in a process of lower rank, or in another one alone.
    """
    if not several():
        return work()
    try:
        result = work()
    except ElsewhereError:
        raise
    except BaseException as error:
        if _first_failure(failed=True) < rank_and_world()[0] and isinstance(error, UserError):
            raise ElsewhereError from None
        raise
    if _first_failure(failed=False) < rank_and_world()[1]:
        raise ElsewhereError
    return result


def rank_0_first(work: Callable[[], Result]) -> Result:
    """The result of `work()`, called on rank 0 first and then on the others, which find its files on disk.

    Within `together`, where rank 0's failure reaches those that wait.
    """
    rank, world = rank_and_world()
    if world > 1 and rank > 0 and _first_failure(failed=False) < world:
        raise ElsewhereError
    result = work()
    if world > 1 and rank == 0 and _first_failure(failed=False) < world:
        raise ElsewhereError
    return result


def _first_failure(failed: bool) -> int:
    """The lowest rank that failed; the number of processes where none did."""
    rank, world = rank_and_world()
    answer = torch.tensor(rank if failed else world)
    dist.all_reduce(answer, dist.ReduceOp.MIN, group=_control)
    return int(answer)


def is_lost(error: RuntimeError) -> bool:
    """Whether an error says that another process ended or does not answer."""
    return (
        isinstance(error, dist.DistError) or re.search("gloo|[Cc]onnection|NCCL|[Tt]imed out", str(error)) is not None
    )


def flag_of_rank_0(flag: bool, device: torch.device) -> bool:
    """Rank 0's value of a flag, on every rank."""
    if rank_and_world()[1] == 1:
        return flag
    answer = torch.tensor(int(flag), device=device)
    dist.broadcast(answer, 0)
    return bool(answer)


def largest_of_ranks(number: int, device: torch.device) -> int:
    """The largest of the ranks' numbers, on every rank."""
    if not several():
        return number
    answer = torch.tensor(number, device=device)
    dist.all_reduce(answer, dist.ReduceOp.MAX)
    return int(answer)


def mean_over_ranks(figures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean of each figure over the ranks; for losses made with `Ctx.mean` the value of the whole batch."""
    _, world = rank_and_world()
    if world == 1:
        return dict(figures)
    values = torch.stack([value.detach().double() for value in figures.values()])
    dist.all_reduce(values)
    return dict(zip(figures, values / world, strict=True))


def rows_per_rank(total: int, world: int) -> tuple[int, ...]:
    """Number of rows of each rank: consecutive shares of `total` rows that differ by at most one, larger ones first.

    >>> rows_per_rank(8, 3)
    (3, 3, 2)
    """
    return tuple(total // world + (rank < total % world) for rank in range(world))


class _Gather(torch.autograd.Function):
    """Rows of all ranks; the backward pass sums the gradients of all ranks for this rank's rows."""

    @staticmethod
    def forward(ctx: Any, rows_BX: Tensor, counts: Sequence[int], rank: int) -> Tensor:  # noqa: ANN401 - torch's seam
        ctx.start, ctx.stop = sum(counts[:rank]), sum(counts[: rank + 1])
        padded = rows_BX.new_zeros((max(counts), *rows_BX.shape[1:]))
        padded[: len(rows_BX)] = rows_BX
        everyone = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(everyone, padded)
        return torch.cat([rows[:count] for rows, count in zip(everyone, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's seam
        grad_NX = grads[0].contiguous()
        dist.all_reduce(grad_NX)
        return grad_NX[ctx.start : ctx.stop], None, None


def gather(rows_BX: Tensor, counts: Sequence[int], rank: int, ragged: bool) -> Tensor:
    """Rows of all ranks in rank order, with gradients where the dtype has them.

    Args:
        rows_BX: this rank's rows.
        counts: number of rows of each rank.
        rank: rank of this process.
        ragged: True where ranks may differ in the second dimension (caption length), which zeros then pad.
    """
    if ragged:
        longest = torch.tensor(rows_BX.shape[1], device=rows_BX.device)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        missing = int(longest) - rows_BX.shape[1]
        rows_BX = torch.cat([rows_BX, rows_BX.new_zeros((len(rows_BX), missing, *rows_BX.shape[2:]))], 1)
    if rows_BX.dtype == torch.bool:
        return gather(rows_BX.to(torch.uint8), counts, rank, ragged=False).bool()
    gathered: Tensor = _Gather.apply(rows_BX.contiguous(), tuple(counts), rank)
    return gathered


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, without gradient."""
    summed = value.detach().clone()
    dist.all_reduce(summed)
    return summed
