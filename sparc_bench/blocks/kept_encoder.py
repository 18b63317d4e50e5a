"""Image features kept in a store, for protocols that need all images at once.

Shapes: N images, D joint width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from sparc_bench.blocks.block_store import BlockStore, surely
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.features import ImageFeatures
from sparc_bench.images.view import View, in_batches
from sparc_bench.models.encoder_wrapper import EncoderWrapper
from sparc_bench.protocol import Block, Work

_GLOBAL, _BRANCHES, _PATCHES, _GRID, _AREA = "global", "branches", "patches:", "grid", "area"
_BLOCKS_IN_MEMORY = 2


def feature_blocks(encoder: Encoder, work: Work, need: frozenset[str]) -> Iterator[Block]:
    """Blocks with the image features `need` of the examples."""
    for part, images in work.images(encoder, need):
        columns = {
            _GLOBAL: images.global_ND,
            _BRANCHES: images.branches_NKD,
            _AREA: images.area_N4,
            **{f"{_PATCHES}{path}": patches for path, patches in images.patches.items()},
        }
        arrays = {name: tensor.cpu().numpy() for name, tensor in columns.items() if tensor is not None}
        grid = {} if images.grid is None else {_GRID: np.array(images.grid)}
        yield part.block(**arrays, **grid)


class KeptEncoder(EncoderWrapper):
    """An encoder whose image features come from a store; texts and scores are the model's own.

    In memory are the place of every view and two blocks; global vectors of all images lie in one array of the store.

    Args:
        inner: the model.
        store: blocks as `feature_blocks` makes them.
        data: the images, one view for each example.
        parts: indices of the examples of each block.
    """

    def __init__(self, inner: Encoder, store: BlockStore, data: Examples, parts: Sequence[Int[ndarray, "N"]]) -> None:
        super().__init__(inner)
        self._store, self._parts = store, parts
        self._at_once = max(map(len, parts), default=1)
        self._place = {example.view.key: row for row, example in enumerate(data)}
        self._start = np.cumsum([0, *map(len, parts)])
        self._block = lru_cache(_BLOCKS_IN_MEMORY)(self._read)
        self._global_ND: ndarray | None = None

    def images(self, views: Sequence[View], need: frozenset[str]) -> ImageFeatures:
        """Features of the views."""
        return ImageFeatures.concat(list(self.stream([views], need)))

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        """Features of the views, in batches of as many as a block holds; none is computed."""
        for views in in_batches(groups, self._at_once):
            yield self._features(views, need)

    def _features(self, views: Sequence[View], need: frozenset[str]) -> ImageFeatures:
        row_N = np.array([self._place[view.key] for view in views])
        ids = tuple(view.id for view in views)
        global_ND = self._tensor(self._globals()[row_N]) if "global" in need and self._has(_GLOBAL) else None
        rest = need - {"global"}
        if not rest:
            return ImageFeatures(ids, global_ND)
        number_N = np.searchsorted(self._start, row_N, side="right") - 1
        first = self._block(int(number_N[0])).arrays
        found = {
            name: self._tensor(self._gathered(name, row_N, number_N)) for name in first if name not in (_GLOBAL, _GRID)
        }
        return ImageFeatures(
            ids,
            global_ND,
            found.get(_BRANCHES) if "branches" in need else None,
            {name.removeprefix(_PATCHES): patches for name, patches in found.items() if name.startswith(_PATCHES)}
            if "patches" in need
            else {},
            tuple(first[_GRID].tolist()) if _GRID in first else None,
            found[_AREA].cpu() if _AREA in found else None,
        )

    def _gathered(self, name: str, row_N: Int[ndarray, "N"], number_N: Int[ndarray, "N"]) -> ndarray:
        gathered: ndarray | None = None
        for number in np.unique(number_N).tolist():
            here_N = np.flatnonzero(number_N == number)
            rows: ndarray = self._block(number).arrays[name][row_N[here_N] - self._start[number]]
            if len(here_N) == len(row_N):
                return rows
            if gathered is None:
                gathered = np.empty((len(row_N), *rows.shape[1:]), dtype=rows.dtype)
            gathered[here_N] = rows
        assert gathered is not None
        return gathered

    def _globals(self) -> ndarray:
        """Global vectors of all images, in the order of the blocks."""
        if self._global_ND is None:
            first = self._block(0).arrays[_GLOBAL]
            found_ND = self._store.scratch(_GLOBAL, (int(self._start[-1]), first.shape[1]), first.dtype)
            for number in range(len(self._parts)):
                found_ND[self._start[number] : self._start[number + 1]] = self._block(number).arrays[_GLOBAL]
            self._global_ND = found_ND
        return self._global_ND

    def _has(self, name: str) -> bool:
        return name in self._block(0).arrays

    def _read(self, number: int) -> Block:
        return surely(self._store, number, len(self._parts))

    def _tensor(self, array: ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
