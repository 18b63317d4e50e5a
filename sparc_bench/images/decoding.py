"""Batches of decoded images: worker processes decode the next ones while the model computes.

Shapes: B images of a batch.
"""

from __future__ import annotations

import pickle
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box
from sparc_bench.images.view import View, in_batches, opened_once

Preprocess = Callable[[View], tuple[Tensor, Box]]
"""Function from a view to its pixels and the area of the original image that they show; picklable."""

FEW = 32
"""Most views that are decoded in this process, since starting workers would take longer."""

KILLED_WORKER = (
    "A process that decodes images was killed, most likely for want of memory: use fewer with --workers, or a smaller "
    "--batch-size."
)

_IN_WORKER = "Caught "
"""Beginning of torch's message of an exception in a worker."""

SHARED_MEMORY = Path("/dev/shm")
"""Shared memory, through which workers hand over pixels; containers often have 64 MB of it."""


def pixel_batches(
    preprocess: Preprocess, groups: Iterable[Sequence[View]], batch_size: int, workers: int, device: torch.device
) -> Generator[tuple[list[View], Tensor, Tensor], None, None]:
    """Batches of views with their pixels on the device (B first) and areas_B4 on the CPU, in order.

    Groups are taken one by one, only as far ahead as workers decode; a batch never crosses the end of a group.

    Raises:
        UserError: an image cannot be read, a worker raised a UserError, or a worker was killed.
    """
    on_gpu = device.type == "cuda"
    workers, taken = _with_workers(in_batches(groups, batch_size), workers)
    under_way: deque[list[View]] = deque()
    loader = DataLoader(
        _Opened(preprocess),
        batch_sampler=_handed_out(taken, under_way, pickled=workers > 0),  # type: ignore[arg-type]  # of any values
        num_workers=workers,
        collate_fn=_batch,
        pin_memory=on_gpu,  # copied to the GPU while it computes
    )
    batches = iter(loader)
    try:
        for handed_over, areas_B4 in _received(batches):
            pixels = torch.from_numpy(handed_over) if isinstance(handed_over, ndarray) else handed_over
            yield under_way.popleft(), pixels.to(device, non_blocking=on_gpu), areas_B4
    finally:
        _stop_workers(batches)


def _with_workers(batches: Iterator[list[View]], workers: int) -> tuple[int, Iterator[list[View]]]:
    """The number of workers that are worth starting, and the batches, of which as many are taken as is decoded ahead.

    Of the `workers` asked for: none for few views, and no more than there are batches.
    """
    if not workers:
        return 0, batches
    first: list[list[View]] = []
    for batch in batches:
        first.append(batch)
        if len(first) >= 2 * workers and sum(map(len, first)) > FEW:
            break
    few = sum(map(len, first)) <= FEW
    return 0 if few else min(workers, len(first)), chain(first, batches)


def _handed_out(
    batches: Iterable[list[View]], under_way: deque[list[View]], *, pickled: bool
) -> Iterator[list[View] | bytes]:
    """Batches as the loader takes them, each noted in `under_way`; pickled here, for torch hangs where that fails."""
    for batch in batches:
        under_way.append(batch)
        yield _pickled(batch) if pickled else batch


def _pickled(batch: list[View]) -> bytes:
    try:
        return pickle.dumps(batch)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"The opener of an image such as {batch[0].id} cannot be sent to a process that decodes ({error}): make it "
            "a module-level function or a functools.partial of one, or decode without processes (--workers 0)."
        ) from error


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
    """Preprocessed views; a UserError is returned as a value, since a worker would wrap its sentence in a traceback."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess

    def __getitem__(self, view: View) -> tuple[Tensor, Box]:
        pixels, area = self._preprocess(view)
        if not isinstance(pixels, Tensor):
            raise UserError(
                f"Preprocessing gives an object of type {type(pixels).__name__} for the image {view.id}: let it "
                "return a tensor of pixels, as torchvision's ToTensor does."
            )
        return pixels, area

    def __getitems__(self, handed_out: list[View] | bytes) -> list[tuple[Tensor, Box] | UserError]:
        """A whole batch, which torch asks for at once where a data set has this method."""
        views: list[View] = pickle.loads(handed_out) if isinstance(handed_out, bytes) else handed_out
        try:
            return [self[view] for view in opened_once(views)]
        except UserError as error:
            return [error]


def _batch(opened: list[tuple[Tensor, Box] | UserError]) -> tuple[Tensor | ndarray, Tensor] | UserError:
    """Pixels of a batch as a tensor in shared memory, or as an array (through a pipe) where that is short."""
    pixels, areas = [], []
    for each in opened:
        if isinstance(each, UserError):
            return each
        pixels.append(each[0])
        areas.append(each[1])
    shapes = list(dict.fromkeys(tuple(each.shape) for each in pixels))
    if len(shapes) > 1:
        return UserError(
            f"The preprocessing gives pixels of shape {shapes[0]} for one image and {shapes[1]} for another: let it "
            "resize and crop all images to one size."
        )
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
