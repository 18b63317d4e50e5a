"""Batches of decoded images: worker processes decode the next ones while the model computes.

Shapes: B images of a batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box, ImageItem

Preprocess = Callable[[ImageItem, int | None], tuple[Tensor, Box]]
"""Function from an item and an input size to its pixels and the area of the original that they show; picklable."""

FEW = 32
"""Most images that are decoded in this process, since starting workers would take longer."""

KILLED_WORKER = (
    "A process that decodes images was killed, most likely for want of memory: use fewer with --workers, or a smaller "
    "--batch-size."
)

_IN_WORKER = "Caught "
"""Beginning of torch's message of an exception in a worker."""

SHARED_MEMORY = Path("/dev/shm")
"""Shared memory, through which workers hand over pixels; containers often have 64 MB of it."""


def pixel_batches(
    preprocess: Preprocess,
    items: Sequence[ImageItem],
    size: int | None,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Generator[tuple[Sequence[ImageItem], Tensor, Tensor], None, None]:
    """Batches of items with their pixels on the device (B first) and areas_B4 on the CPU, in order.

    Raises:
        UserError: an image cannot be read, a worker raised a UserError, or a worker was killed.
    """
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        _Opened(preprocess, items, size),
        batch_size=batch_size,
        num_workers=0 if len(items) <= FEW else min(workers, -(-len(items) // batch_size)),
        collate_fn=_batch,
        pin_memory=on_gpu,  # copied to the GPU while it computes
    )
    start, batches = 0, iter(loader)
    try:
        for handed_over, areas_B4 in _received(batches):
            pixels = torch.from_numpy(handed_over) if isinstance(handed_over, ndarray) else handed_over
            yield items[start : start + len(areas_B4)], pixels.to(device, non_blocking=on_gpu), areas_B4
            start += len(areas_B4)
    finally:
        _stop_workers(batches)


def _received(
    batches: Iterator[tuple[Tensor | ndarray, Tensor] | UserError],
) -> Iterator[tuple[Tensor | ndarray, Tensor]]:
    while True:
        try:
            batch = next(batches, None)
        except (ConnectionError, EOFError) as error:
            if str(error).startswith(_IN_WORKER):
                raise
            raise UserError(KILLED_WORKER) from error  # its last batch was not handed over
        if batch is None:
            return
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _stop_workers(batches: object) -> None:
    """End the workers now, since an error can keep them alive; torch has no public function for it."""
    stop: Callable[[], None] | None = getattr(batches, "_shutdown_workers", None)
    if stop is None:
        return
    try:
        stop()
    except RuntimeError as error:  # torch reports a killed worker again for each worker that ends
        if not is_killed_worker(error):
            raise


def is_killed_worker(error: RuntimeError) -> bool:
    """Whether an error is torch's report of a killed worker, which it raises from a signal handler in any code."""
    return "DataLoader worker" in str(error) and not str(error).startswith(_IN_WORKER)


class _Opened(Dataset[tuple[Tensor, Box] | UserError]):
    """Preprocessed items; a UserError is returned as a value, since a worker would wrap its sentence in a traceback."""

    def __init__(self, preprocess: Preprocess, items: Sequence[ImageItem], size: int | None) -> None:
        self._preprocess, self._items, self._size = preprocess, items, size

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Tensor, Box] | UserError:
        try:
            return self._preprocess(self._items[index], self._size)
        except UserError as error:
            return error


def _batch(opened: list[tuple[Tensor, Box] | UserError]) -> tuple[Tensor | ndarray, Tensor] | UserError:
    """Pixels of a batch as a tensor in shared memory, or as an array (through a pipe) where that is short."""
    pixels, areas = [], []
    for each in opened:
        if isinstance(each, UserError):
            return each
        pixels.append(each[0])
        areas.append(each[1])
    worker = get_worker_info()
    if worker is not None:
        bytes_of_batch = len(pixels) * pixels[0].numel() * pixels[0].element_size()
        # every worker may take as much at once, and writing more than is free kills a process (bus error)
        if (worker.num_workers + 1) * bytes_of_batch > _shared_memory():
            return np.stack([each.numpy() for each in pixels]), torch.tensor(areas)
    return default_collate(pixels), torch.tensor(areas)


def _shared_memory() -> float:
    """Free bytes of shared memory."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else float("inf")
