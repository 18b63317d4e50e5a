"""Training batches as a pure function of (seed, step): a resumed run sees the same batches as an uninterrupted one."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from sparc_bench import stop_signals
from sparc_bench.dataset import Example, Examples
from sparc_bench.distributed import rows_per_rank
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.objective import Batch, Objective, Tokens
from sparc_bench.training.frozen_features import FrozenFeatures
from sparc_bench.training.pixels import Pixels

Prepared = Pixels | FrozenFeatures
"""What a training reads of the images of a split."""


@dataclass(frozen=True)
class LoadedBatch:
    """One rank's rows of a training batch.

    Attributes:
        inputs: uint8 pixels BHWC of the images, or their stored features BSV.
        batch: tokens and further data that the objective's `collate` made.
        counts: number of rows of each rank.
        draw_seed: seed of the step's random draws, the same on every rank.
        unreadable: ids of images that could not be read.
    """

    inputs: Tensor
    batch: Batch
    counts: tuple[int, ...]
    draw_seed: int
    unreadable: tuple[str, ...] = ()


class Batches(torch.utils.data.Dataset[LoadedBatch]):
    """Batches of a run by step: every epoch is a permutation of the images without its last, incomplete batch.

    A rank takes consecutive rows of the batch. Random draws are keyed by the row, so that the number of ranks changes
    neither images nor captions.
    """

    def __init__(
        self,
        images: Prepared,
        objective: Objective,
        tokenize: Callable[[Sequence[Sequence[str]]], Tokens],
        batch_size: int,
        seed: int,
        mask_known_true: bool,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.images, self.objective, self.tokenize = images, objective, tokenize
        self.batch_size, self.seed, self.mask_known_true = batch_size, seed, mask_known_true
        self.per_epoch = len(images) // batch_size
        self.counts = rows_per_rank(batch_size, world)
        self.own = slice(sum(self.counts[:rank]), sum(self.counts[: rank + 1]))

    def __len__(self) -> int:
        return self.per_epoch

    def _positions(self, step: int) -> ndarray:
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.images))
        return np.asarray(order[place * self.batch_size : (place + 1) * self.batch_size])

    def __getitem__(self, step: int) -> LoadedBatch:
        everyone = [int(position) for position in self._positions(step)]
        positions = everyone[self.own]
        rows, unreadable = self._readable(positions)
        everyone[self.own] = positions
        index = [self.images.index[position] for position in everyone]
        batch = self._collate(index, step, self.own, self.tokenize)
        known_true = self._known_true(index, step, batch)
        if known_true is not None:
            off_diagonal = known_true.numel() - len(index) * known_true.shape[2]
            batch.extra["known_true_share"] = known_true.float().sum() / off_diagonal
            if self.mask_known_true:
                batch.extra["known_true"] = known_true
        draw_seed = int(np.random.SeedSequence((self.seed, 3, step)).generate_state(1)[0])
        return LoadedBatch(torch.from_numpy(rows), batch, self.counts, draw_seed, tuple(unreadable))

    def _collate(
        self, index: Sequence[int], step: int, rows: slice, tokenize: Callable[[Sequence[Sequence[str]]], Tokens]
    ) -> Batch:
        rngs = [np.random.default_rng((self.seed, 2, step, row)) for row in range(len(index))[rows]]
        examples = [self.images.data.examples[at] for at in index[rows]]
        return self.objective.collate(examples, index[rows], tokenize, rngs)

    def _readable(self, positions: list[int]) -> tuple[ndarray, list[str]]:
        """Pixels or features, and ids of unreadable images, each replaced by the next (where decoded on the fly)."""
        if self.images.in_file:
            return self.images.rows(positions), []
        rows, unreadable = [], []
        for slot in range(len(positions)):
            for _ in range(len(self.images)):
                try:
                    rows.append(self.images.rows([positions[slot]])[0])
                    break
                except UnreadableImageError:
                    unreadable.append(self.images.data.examples[self.images.index[positions[slot]]].id)
                    positions[slot] = (positions[slot] + 1) % len(self.images)
        return np.stack(rows), unreadable

    def _known_true(self, index: Sequence[int], step: int, batch: Batch) -> Tensor | None:
        """Mask NNK of true (image, image of the caption, caption) pairs over all ranks' rows, off the diagonal."""
        data = self.images.data
        if data.caption_truth is None or data.keep_captions is None or "caption_index" not in batch.extra:
            return None
        whole = batch if len(batch.index_B) == len(index) else self._collate(index, step, slice(None), _no_tokens)
        chosen = [
            data.keep_captions(data.examples[row], numbers)
            for row, numbers in zip(index, whole.extra["caption_index"].tolist(), strict=True)
        ]
        truth_NM = torch.from_numpy(np.ascontiguousarray(data.caption_truth(chosen)))
        truth_NNK = truth_NM.reshape(len(index), len(index), -1)
        return truth_NNK & ~torch.eye(len(index), dtype=torch.bool).unsqueeze(-1)


def _no_tokens(captions: Sequence[Sequence[str]]) -> Tokens:
    nothing = torch.zeros(len(captions), len(captions[0]) if captions else 0, 0, dtype=torch.long)
    return Tokens(nothing, nothing.bool(), nothing.bool())


RARE = 0.01
"""Share of images of which a rare caption is true, at most."""

_SAMPLED_IMAGES = 1000


def rare_captions_only(data: Examples) -> Examples:
    """The split with only those captions that are true of under 1 % of its first 1,000 images.

    Images without such a caption are left out.

    Raises:
        UserError: the data set has no truth of captions for other images (`caption_truth`).
    """
    if data.caption_truth is None or data.keep_captions is None:
        raise UserError(
            f"{data.dataset} does not know of which other images a caption is true: set data.false_negatives = 'keep'."
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


def _leave_signals(_worker: int) -> None:
    stop_signals.ignore()


def loader(batches: Batches, start: int, steps: int, workers: int) -> torch.utils.data.DataLoader[Any]:
    """Loader of the batches `start` to `steps`, in order, with `workers` processes (0 where pixels are cached).

    Where processes cannot be forked (Windows) this process loads them.
    """
    try:
        forked = multiprocessing.get_context("fork") if workers else None
    except ValueError:
        forked, workers = None, 0
    return torch.utils.data.DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        # workers inherit the tokenizer with its cache instead of pickling it
        multiprocessing_context=forked,
        worker_init_fn=_leave_signals if workers else None,
    )
