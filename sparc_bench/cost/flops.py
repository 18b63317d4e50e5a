"""Counted FLOPs of a training step, without computing it.

The towers run on meta tensors. The objective runs its real code on fake tensors (meta tensors that pose as CPU tensors)
with real masks, so that lengths are real. Matrix products and convolutions count, forward and backward, 2 for each
multiply-add. Operations that are computed again in the backward pass (chunked scores) count again; element-wise
operations, norms, softmax and the optimiser's step do not count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from sparc_bench.cost.cell import (
    VOCABULARY,
    Cell,
    FixedTowers,
    FullContext,
    objective_alone,
    random_batch,
    recipe_of,
    towers_of,
)
from sparc_bench.objective import Objective
from sparc_bench.training.loop import forward_backward
from sparc_bench.two_towers.model import TwoTowerModel
from sparc_bench.two_towers.towers import RecipeTowers


@dataclass(frozen=True)
class Flops:
    """FLOPs of one training step, forward and backward: both towers, and the objective on detached tower outputs."""

    towers: int
    own: int

    @property
    def step(self) -> int:
        """FLOPs of the whole step."""
        return self.towers + self.own


@functools.cache
def count(cell: Cell) -> Flops:
    """FLOPs of a cell's step, forward and backward, in one process and float32."""
    objective = objective_alone(cell, torch.device("meta"))
    texts = objective.captions_per_image + objective.negatives_per_image
    of_one = towers_flops(cell.model, objective.tower_options(objective.options).get("branches", 0), texts)
    return Flops(cell.batch * of_one, own_flops(cell, objective))


def own_flops(cell: Cell, objective: Objective) -> int:
    """FLOPs of an objective (on the meta device), forward and backward, on detached outputs of the towers."""
    loaded, cpu = random_batch(objective, recipe_of(cell), size=1), torch.device("cpu")
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective.to_empty(device="cpu")
        stand_in = FixedTowers(cell, objective, loaded.batch.tokens, cpu)
    alone = TwoTowerModel(stand_in, objective)  # type: ignore[arg-type] # called as the towers are
    return _counted(lambda: forward_backward(alone, loaded, cpu, autocast=False))


@functools.cache
def towers_flops(model: str, branches: int, texts: int) -> int:
    """FLOPs of both towers, forward and backward, for one image and its texts; FLOPs of a batch are a multiple."""
    cards, meta = towers_of(model), torch.device("meta")
    with meta:
        towers = RecipeTowers(cards.image, cards.text, VOCABULARY, 0, branches)
        edge = cards.image.size or 0
        pixels_BCHW = torch.empty(1, 3, edge, edge)
    tokens = FullContext(cards.text.context)([["text"] * texts]).to(meta)

    def both_ways() -> None:
        image, text = towers(pixels_BCHW, tokens)
        (image.patches_BPW.sum() + image.pooled_BMW.sum() + text.tokens_BKLW.sum()).backward()

    return _counted(both_ways)


def _counted(run: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    # plain attention, so that every machine counts the same: fused kernels count recomputation too
    with sdpa_kernel(SDPBackend.MATH), _RealMasks(), counter:  # type: ignore[no-untyped-call] # torch's
        run()
    return int(counter.get_total_flops())


class _RealMasks(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's
    """Indexing of fake tensors with real masks, which selects as many rows as the mask has True values."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's seam
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if "index" in func.__name__ and len(args) > 1 and isinstance(args[1], list | tuple):
            args = (args[0], [place for index in args[1] for place in _places(index)], *args[2:])
        return func(*args, **(kwargs or {}))


def _places(index: Tensor | None) -> Sequence[Tensor | None]:
    masked = isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor)
    return index.nonzero().unbind(1) if masked and index is not None else (index,)
