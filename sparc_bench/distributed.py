"""Data parallelism that changes no number: gathered rows with gradients, and means over all ranks.

Data-parallel training averages the gradients of the ranks. A loss therefore is either a mean over rows (`Ctx.mean`: the
local sum times the world size over the weight of all ranks), or every rank computes it whole on gathered rows.

Shapes: B rows of this rank, N rows of all ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of processes under torchrun; 0 and 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def several() -> bool:
    """Whether there are several processes."""
    return rank_and_world()[1] > 1


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """This process's device, within torchrun's process group (gloo on CPUs, NCCL on GPUs); no group for one process."""
    _, world = rank_and_world()
    if world == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def rank_0_first(work: Callable[[], Result]) -> Result:
    """The result of `work()`, called on rank 0 first and then on the others, which find its files on disk."""
    rank, world = rank_and_world()
    if world > 1 and rank > 0:
        dist.barrier()
    result = work()
    if world > 1 and rank == 0:
        dist.barrier()
    return result


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
