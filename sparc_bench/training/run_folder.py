"""Run folder: summary of a finished run, checks of its checkpoint against recipe and data, and its environment."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe, training_settings
from sparc_bench.encoders.own import WEIGHTS_FILE
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.json_text import json_value
from sparc_bench.training.run_inputs import data_hashes, read_splits
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.architecture import InitRecord
from sparc_bench.two_towers.checkpoint import Meta

CHECKPOINT_FILE = "checkpoint.safetensors"
SUMMARY_FILE = "summary.json"
ENVIRONMENT_FILE = "environment.json"
"""Of the beginning; a run that goes on elsewhere after step N has `environment.stepN.json` too."""
SHOWN_DIGITS = 12
"""Digits of a hash in a sentence."""


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write a table of a run folder."""
    write_atomic(file, (json.dumps(values, indent=2) + "\n").encode())


def finished(recipe: Recipe, folder: Path, data_root: Path | None, seed: int) -> dict[str, Any] | None:
    """The summary of a finished run of this recipe, seed and data; None where there is none.

    The data are read again where they lie on disk and the run knows their hashes.

    Raises:
        UserError: the folder holds a run of another recipe, seed or data, or its summary is damaged.
    """
    weights, summary = folder / WEIGHTS_FILE, folder / SUMMARY_FILE
    if not (weights.is_file() and summary.is_file()):
        return None
    meta = checkpoint.read_meta(weights)
    refuse_other(meta, folder, recipe, seed)
    on_disk = getattr(discovery.load("datasets", recipe.data.dataset), "NEEDS_ON_DISK", "unknown")
    if meta.data and on_disk:
        refuse_other_data(meta, folder, data_hashes(*read_splits(recipe, data_root)))
    try:
        values: dict[str, Any] = json_value(summary.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{summary} is damaged: delete {weights} and run the command again.") from None
    return values


def refuse_other(meta: Meta, folder: Path, recipe: Recipe, seed: int) -> None:
    """Raise UserError where a folder's run is of another recipe or seed."""
    if training_settings(meta.recipe) != training_settings(recipe) or meta.seed != seed:
        raise UserError(
            f"{folder} holds a run of another recipe or seed: delete that folder, or name another with --runs."
        )


def refuse_other_data(meta: Meta, folder: Path, hashes: Mapping[str, str]) -> None:
    """Raise UserError where a folder's run saw other images or captions; a run without hashes passes."""
    for part, run, now in ((part, meta.data[part], now) for part, now in hashes.items() if part in meta.data):
        if run != now:
            split = {"train": meta.recipe.data.split, "val": meta.recipe.data.val_split}[part]
            raise UserError(
                f"{folder} holds a run of other data: its {meta.recipe.data.dataset}:{split} has the sha256 "
                f"{run[:SHOWN_DIGITS]}..., what is read now {now[:SHOWN_DIGITS]}...: name the data that it began with, "
                "or another folder with --runs."
            )


def refuse_other_start(meta: Meta, folder: Path, init_record: InitRecord | None) -> None:
    """Raise UserError where a folder's run began from other weights of its initial model."""
    begun = meta.init_record
    if init_record is not None and begun is not None and begun.weights_hash != init_record.weights_hash:
        raise UserError(
            f"{folder} was begun from other weights of {init_record.model} (sha256 {begun.weights_hash[:12]}..., "
            f"now {init_record.weights_hash[:12]}...): restore them, or delete that folder to train anew."
        )


def last_good(file: Path) -> str:
    """Checkpoint that a stopped run left, in words."""
    if not file.is_file():
        return "no checkpoint was written yet, and the same command begins anew"
    step = checkpoint.read_meta(file).step
    return f"the last good checkpoint is {file} (step {step}), and the same command goes on from it"


def environment(
    seed: int, device: torch.device, autocast: bool, probe: Mapping[str, float | None], world: int
) -> dict[str, Any]:
    """Environment of a training: device, processes, precision, libraries."""
    libraries = ("torch", "torchvision", "timm", "open_clip_torch", "tokenizers", "numpy", "pillow", "sparc-bench")
    return {
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "processes": world,
        "threads": torch.get_num_threads(),
        "precision": "bf16" if autocast else "float32",
        "probe_seconds_per_step": probe,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version(name) for name in libraries},
    }


def write_environment(folder: Path, now: Mapping[str, Any], start: int) -> dict[str, Any] | None:
    """Write a training's environment, a resumed one's beside the first; returns a changed number of processes."""
    file = folder / ENVIRONMENT_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8")) if start else {}
    except (OSError, ValueError):
        before = {}
    if not before:
        write_json(file, now)
        return None
    if {**before, "probe_seconds_per_step": None} != {**now, "probe_seconds_per_step": None}:
        write_json(file.with_suffix(f".step{start}.json"), now)
    if before.get("processes") == now["processes"]:
        return None
    return {"resumed": start, "processes": now["processes"], "begun_with": before.get("processes")}
