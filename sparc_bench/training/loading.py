"""Batches of a recipe, a pure function of (seed, step), so that a resumed run sees what an uninterrupted one saw."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.examples import DataSplit, Example
from sparc_bench.objective import Batch, Objective, Tokens
from sparc_bench.training.pixels import Pixels


@dataclass(frozen=True)
class Loaded:
    """One batch as the loop takes it: pixels_BHWC uint8, the objective's batch, ids that could not be read."""

    pixels_BHWC: Tensor
    batch: Batch
    unreadable: tuple[str, ...] = ()


class Batches(torch.utils.data.Dataset[Loaded]):
    """Batch number `step` of a run: every epoch is a permutation of the images, its last part-batch left out."""

    def __init__(
        self,
        pixels: Pixels,
        objective: Objective,
        tokenize: Callable[[Sequence[Sequence[str]]], Tokens],
        batch_size: int,
        seed: int,
        mask_known_true: bool,
    ) -> None:
        self.pixels, self.objective, self.tokenize = pixels, objective, tokenize
        self.batch_size, self.seed, self.mask_known_true = batch_size, seed, mask_known_true
        self.per_epoch = len(pixels) // batch_size

    def __len__(self) -> int:
        return self.per_epoch

    def _positions(self, step: int) -> ndarray:
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.pixels))
        return np.asarray(order[place * self.batch_size : (place + 1) * self.batch_size])

    def __getitem__(self, step: int) -> Loaded:
        positions = [int(position) for position in self._positions(step)]
        rows, unreadable = self._readable(positions)
        index = [self.pixels.index[position] for position in positions]
        examples = [self.pixels.data.examples[row] for row in index]
        batch = self.objective.collate(examples, index, self.tokenize, np.random.default_rng((self.seed, 2, step)))
        known_true = self._known_true(batch)
        if known_true is not None:
            batch.extra["known_true_share"] = known_true.float().sum() / (len(index) * (len(index) - 1))
            if self.mask_known_true:
                batch.extra["known_true"] = known_true
        return Loaded(torch.from_numpy(rows), batch, tuple(unreadable))

    def _readable(self, positions: list[int]) -> tuple[ndarray, list[str]]:
        """Pixels; where images are decoded on the fly, an unreadable one is replaced by the next in the data set."""
        if self.pixels.array_NSS3 is not None:
            return self.pixels.rows(positions), []
        rows, unreadable = [], []
        for slot in range(len(positions)):
            for _ in range(len(self.pixels)):
                try:
                    rows.append(self.pixels.rows([positions[slot]])[0])
                    break
                except UnreadableImageError:
                    unreadable.append(self.pixels.data.examples[self.pixels.index[positions[slot]]].id)
                    positions[slot] = (positions[slot] + 1) % len(self.pixels)
        return np.stack(rows), unreadable

    def _known_true(self, batch: Batch) -> Tensor | None:
        data = self.pixels.data
        if data.caption_truth is None or data.keep_captions is None or "caption_index" not in batch.extra:
            return None
        chosen = [
            data.keep_captions(data.examples[int(row)], [int(k)])
            for row, k in zip(batch.index_B, batch.extra["caption_index"], strict=True)
        ]
        truth = torch.from_numpy(np.ascontiguousarray(data.caption_truth(chosen)))
        return truth.fill_diagonal_(False)


RARE = 0.01
_SAMPLED_IMAGES = 1000


def rare_captions_only(data: DataSplit) -> DataSplit:
    """The split without captions that are true of 1 % of its images or more, judged on its first 1,000 images.

    Images that have no such caption are left out.

    Raises:
        UserError: the data set does not know which captions are true of other images.
    """
    if data.caption_truth is None or data.keep_captions is None:
        raise UserError(
            f"{data.dataset} does not know what its captions are true of: set data.false_negatives = 'keep'."
        )
    judges = list(data.examples[:_SAMPLED_IMAGES])
    bare = [data.keep_captions(example, ()) for example in judges]
    kept: list[Example] = []
    for start in range(0, len(data), _SAMPLED_IMAGES):
        chunk = data.examples[start : start + _SAMPLED_IMAGES]
        truth_NM = data.caption_truth([*bare, *chunk])[: len(judges)]
        rare_M = iter(truth_NM.mean(axis=0) < RARE)
        for example in chunk:
            rare = [k for k in range(len(example.captions)) if next(rare_M)]
            if rare:
                kept.append(data.keep_captions(example, rare))
    return dataclasses.replace(
        data,
        examples=tuple(kept),
        notes=(*data.notes, f"{len(data) - len(kept)} images have no caption that is rare enough."),
    )


def loader(batches: Batches, start: int, steps: int, workers: int) -> torch.utils.data.DataLoader[Any]:
    """Batches `start` to `steps`, in order, by `workers` processes (none where the pixels are cached)."""
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # a tokenizer with its cache is inherited, not pickled
        multiprocessing_context="fork" if workers else None,
    )
