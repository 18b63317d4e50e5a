"""The speed of image encoding against a plain open_clip loop, and the time of a second evaluation from the cache.

    python -m sparc_bench.cost.encoding --data-root DATA

The model is open_clip's ViT-B/32 with random weights. (a) A plain loop (torch's DataLoader with open_clip's transform,
`model.encode_image`) and our evaluation take turns over the same photos, with the same batch size and worker processes;
their vectors are compared. As in an evaluation, features are written to a new cache. (b) All photos of Flickr8k are
classified with 100 prompts, then with 100 others, each in a new process; the time runs from the loaded model to the
written record.

Shapes: N images, B images of a batch, D joint width.
"""

from __future__ import annotations

import csv
import io
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sparc_bench.cards import discovery
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.cost import flickr8k_photos
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder, Runtime
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate_encoder
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.files.atomic import write_atomic
from sparc_bench.images.view import View
from sparc_bench.models.resolve import ResolvedModel, load_encoder
from sparc_bench.records.environment import code_rows
from sparc_bench.terminal import console, table
from sparc_bench.training.precision import device_name

FILE = Path("cost") / "encoding.csv"
ARCHITECTURE = "ViT-B-32"
PROMPTS = ("bare", "a_photo_of_a")
"""Prompt sets with one template each, of the first and the second evaluation."""

CACHE = "SPARC_BENCH_CACHE"


@dataclass(frozen=True)
class Speed:
    """Seconds of each turn of both loops over the same images, and the largest difference of their unit vectors."""

    images: int
    bare: tuple[float, ...]
    harness: tuple[float, ...]
    difference: float

    @property
    def ratio(self) -> float:
        """Speed of our evaluation over that of the plain loop, median over pairs of turns."""
        return statistics.median(bare / ours for bare, ours in zip(self.bare, self.harness, strict=True))


class _Transformed(Dataset[Tensor]):
    """Images after open_clip's transform."""

    def __init__(self, views: Sequence[View], transform: Any) -> None:  # noqa: ANN401 - torchvision's
        self._views, self._transform = views, transform

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: int) -> Tensor:
        pixels: Tensor = self._transform(self._views[index].open())
        return pixels


def bare_loop(model: Any, transform: Any, views: Sequence[View], runtime: Runtime) -> Tensor:  # noqa: ANN401
    """Image vectors ND from a plain open_clip loop."""
    device = torch.device(runtime.device)
    loader = DataLoader(
        _Transformed(views, transform),
        batch_size=runtime.batch_size,
        num_workers=runtime.workers,
        pin_memory=device.type == "cuda",
    )
    found = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=runtime.precision == "bf16"):
        for pixels_B3HW in loader:
            found.append(model.encode_image(pixels_B3HW.to(device, non_blocking=True)).float().cpu())
    return torch.cat(found)


def harness(encoder: Encoder, data: Examples) -> Tensor:
    """Image vectors ND from our encoder, written to the feature cache."""
    cache = FeatureCache("full")
    watched = WatchedEncoder(cache.around(encoder, data), lambda _: None)
    runs = [run.global_ND for run in watched.stream([data.views], frozenset({"global"}))]
    cache.flush()
    return torch.cat([run.cpu() for run in runs if run is not None])


def measure_speed(weights: Path, data: Examples, runtime: Runtime, repeats: int, folder: Path) -> Speed:
    """The speed of both loops, measured in turns after one warm-up turn of each."""
    encoder = load_encoder(resolved(weights), runtime)
    model, _, transform = open_clip.create_model_and_transforms(ARCHITECTURE, pretrained=str(weights))
    model = model.to(runtime.device).eval()
    bare_seconds, our_seconds, difference = [], [], 0.0
    for turn in range(repeats + 1):
        start = time.perf_counter()
        plain_ND = bare_loop(model, transform, data.views, runtime)
        between = time.perf_counter()
        os.environ[CACHE] = str(folder / f"cache{turn}")
        ours_ND = harness(encoder, data)
        end = time.perf_counter()
        if turn > 0:
            bare_seconds.append(between - start)
            our_seconds.append(end - between)
        unit = torch.nn.functional.normalize
        difference = max(difference, float((unit(plain_ND, dim=-1) - unit(ours_ND, dim=-1)).abs().max()))
    return Speed(len(data), tuple(bare_seconds), tuple(our_seconds), difference)


def resolved(weights: Path) -> ResolvedModel:
    """The resolved model of a file with ViT-B/32 weights."""
    options = {"model": ARCHITECTURE, "pretrained": str(weights), "activation": "gelu"}
    card = ModelCard(
        name="random_vit_b_32", title="ViT-B/32, random weights", family="open_clip", source="", options=options
    )
    return ResolvedModel(card, None)


def task(prompts: str, images: int | None) -> TaskCard:
    """A classification task with all photos, 100 class names and a prompt set; its scores have no meaning."""
    return TaskCard(
        name=f"photos_{prompts}",
        title="time alone",
        family="classification",
        dataset="flickr8k_photos",
        split="all",
        data={"n": images},
        protocol="classification",
        options={"prompts": prompts, "classes": "own", "top_k": [1, 5], "ties": "expected"},
        headline="top1",
        source="none",
    )


def evaluation_seconds(
    weights: Path, data_root: Path, folder: Path, runtime: Runtime, prompts: str, images: int | None
) -> float:
    """Seconds of one evaluation, from the loaded model to the written record; to be called in a new process."""
    os.environ[CACHE] = str(folder / "cache")
    _plug_in()
    model = resolved(weights)
    encoder = load_encoder(model, runtime)
    settings = Settings(folder / "results", data_root, runtime=runtime, cache="full")
    start = time.perf_counter()
    [result] = evaluate_encoder(encoder, model.card, 0, [task(prompts, images)], settings)
    seconds = time.perf_counter() - start
    if result.error is not None or result.kept:
        raise UserError(result.error or "The record was there already.")
    return seconds


def measure_second(
    weights: Path, data_root: Path, folder: Path, runtime: Runtime, images: int | None
) -> tuple[float, float]:
    """Seconds of a first evaluation and of a second one with other prompts, each in a new process."""
    seconds = []
    for prompts in PROMPTS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            seconds.append(
                pool.submit(evaluation_seconds, weights, data_root, folder, runtime, prompts, images).result()
            )
    return seconds[0], seconds[1]


def main(
    data_root: Annotated[Path, typer.Option(help="Folder that holds flickr8k.")],
    device: Annotated[str, typer.Option()] = "cpu",
    precision: Annotated[Literal["float32", "bf16"], typer.Option()] = "float32",
    batch_size: Annotated[int, typer.Option()] = 256,
    workers: Annotated[int, typer.Option()] = min(os.cpu_count() or 1, 8),
    speed_images: Annotated[int, typer.Option(help="Photos of each turn of the two loops.")] = 512,
    repeats: Annotated[int, typer.Option(help="Turns of each loop.")] = 3,
    images: Annotated[int | None, typer.Option(help="Photos of the two evaluations.  [default: all]")] = None,
    results: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("results"),
) -> None:
    """Measure, print and write the table."""
    runtime = Runtime(device, precision, batch_size, workers)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = folder / "weights.safetensors"
        torch.manual_seed(0)
        logging.disable(logging.WARNING)  # open_clip's warning about random weights
        save_file(open_clip.create_model(ARCHITECTURE, load_weights=False).state_dict(), weights)
        logging.disable(logging.NOTSET)
        options = flickr8k_photos.Options
        some = flickr8k_photos.read(data_root, "all", options(n=speed_images))
        speed = measure_speed(weights, some, runtime, repeats, folder)
        first, second = measure_second(weights, data_root, folder, runtime, images)
    photos = len(flickr8k_photos.read(data_root, "all", options(n=images)))
    rows = [
        ("machine", f"{device_name(torch.device(device))}, {os.cpu_count()} cores", ""),
        ("load before", f"{load:.1f}", "processes"),
        ("model", f"open_clip {ARCHITECTURE}, random weights, {precision} on {device}", ""),
        ("batch, workers", f"{batch_size}, {workers}", ""),
        *code_rows(),
        ("bare loop", f"{speed.images / statistics.median(speed.bare):.2f}", f"images/s, median of {repeats}"),
        ("harness", f"{speed.images / statistics.median(speed.harness):.2f}", f"images/s, median of {repeats}"),
        ("harness / bare loop", f"{100 * speed.ratio:.1f}", "%, median over pairs of turns"),
        ("largest difference", f"{speed.difference:.1e}", "between unit vectors"),
        (f"first evaluation, {photos} photos", f"{first:.2f}", "s"),
        ("second, 100 other prompts", f"{second:.2f}", "s"),
        ("second / first", f"{100 * second / first:.2f}", "%"),
    ]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([("measure", "value", "unit"), *rows])
    write_atomic(results / FILE, text.getvalue().encode())
    console().print(table(("measure", "value", "unit"), rows))


def _plug_in() -> None:
    discovery.add_plugin(Path(flickr8k_photos.__file__))


if __name__ == "__main__":
    typer.run(main)
