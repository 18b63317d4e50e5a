"""Choice of float32 or bf16 autocast by the speed of a training step on this machine, measured once and kept."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.recipe import Recipe
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.files.json_text import json_value
from sparc_bench.two_towers.architecture import InitRecord

STEPS = 10
"""Training steps timed in each precision."""

MARGIN = 1.05
"""Smallest speed-up for which bf16 is chosen."""


def device_name(device: torch.device) -> str:
    """Name of the GPU or processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.is_file() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def choose(
    recipe: Recipe, init_record: InitRecord | None, device: torch.device, step: Callable[[bool], None]
) -> tuple[bool, dict[str, float | None]]:
    """Whether to use bf16 autocast, and the median seconds of a step in each precision.

    The seconds are empty where the recipe sets the precision, and None for bf16 where a single matrix product is
    already slower. The cache folder keeps them by recipe, processor, threads and torch version, so that every run of a
    recipe on the same machine uses the same precision and gives the same losses.
    """
    if recipe.precision != "auto":
        return recipe.precision == "bf16", {}
    parts: list[Any] = [recipe.objective, recipe.objective_options, recipe.batch_size]
    if init_record is None:
        parts += [tower.model_dump() for tower in recipe.own_towers]
    else:
        parts += [init_record.towers.model_dump(), recipe.freeze]
    key = canonical_hash([*parts, device_name(device), torch.get_num_threads(), torch.__version__])[:24]
    file = cache_folder() / "precision" / f"{key}.json"
    seconds = _kept(file)
    if seconds is None:
        # emulated bf16 can take 25 times as long for a step, so one matrix product is timed first
        slow = _product_seconds(torch.bfloat16, device) > 2 * _product_seconds(torch.float32, device)
        seconds = {
            "float32": _median_seconds(partial(step, False), device),
            "bf16": None if slow else _median_seconds(partial(step, True), device),
        }
        write_atomic(file, json.dumps(seconds).encode())
    float32, bf16 = seconds["float32"], seconds["bf16"]
    return bf16 is not None and float32 is not None and float32 > MARGIN * bf16, seconds


def _kept(file: Path) -> dict[str, float | None] | None:
    """The seconds in a file; None where it is missing or damaged, the latter with a line about it."""
    if not file.is_file():
        return None
    try:
        seconds = json_value(file.read_bytes())
        if all(seconds[name] is None or seconds[name] > 0 for name in ("float32", "bf16")):
            return {name: seconds[name] for name in ("float32", "bf16")}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    sys.stderr.write(f"The times of a step in {file} are damaged: they are measured again.\n")
    return None


def _product_seconds(dtype: torch.dtype, device: torch.device) -> float:
    square = torch.ones(512, 512, dtype=dtype, device=device)
    return _median_seconds(lambda: torch.mm(square, square), device)


def _median_seconds(step: Callable[[], object], device: torch.device) -> float:
    times: list[float] = []
    for _ in range(STEPS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
