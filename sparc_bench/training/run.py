"""One training run: a recipe and a seed in, a run folder out.

The folder holds recipe.json, environment.json, log.jsonl, checkpoint.safetensors (to resume from), model.safetensors
(the result) and summary.json. A finished run is not trained again; an interrupted one goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from sparc_bench import discover
from sparc_bench.atomic import write_atomic
from sparc_bench.cards import Recipe, parse
from sparc_bench.encoders.own import WEIGHTS_FILE, OwnEncoder
from sparc_bench.errors import UserError
from sparc_bench.examples import DataSplit
from sparc_bench.training import checkpoint, precision
from sparc_bench.training.checkpoint import Meta
from sparc_bench.training.loading import Batches, loader, rare_captions_only
from sparc_bench.training.log import RunLog
from sparc_bench.training.loop import NotFiniteError, StepReport, fit, forward_backward, make_optimizer
from sparc_bench.training.model import TrainStep, build, objective_of
from sparc_bench.training.pixels import Pixels, load_pixels, refuse_too_many
from sparc_bench.training.tokenizer import make_tokenizer
from sparc_bench.training.validate import held_out, validation_scores

CHECKPOINT_FILE = "checkpoint.safetensors"


def train(
    recipe: Recipe, run_folder: Path, data_root: Path | None, seed: int, device: str, tensorboard: bool = False
) -> dict[str, Any]:
    """Train `recipe` into `run_folder`, or go on with what is there, and return the summary.

    Raises:
        UserError: a test split, missing data, another recipe in the folder, a loss that is not finite, a full disk.
    """
    objective_of(recipe)  # a misspelt option is refused before anything is read
    finished = _finished(recipe, run_folder, seed)
    if finished is not None:
        return finished
    # cuBLAS is repeatable with a fixed workspace only; a few CUDA kernels have no repeatable form and warn
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    train_data, val_data = read_split(recipe, data_root, val=False), read_split(recipe, data_root, val=True)
    if recipe.data.false_negatives == "rare":
        train_data = rare_captions_only(train_data)
    pixels = _pixels(train_data, recipe)
    val_pixels = _pixels(val_data, recipe)
    if len(pixels) < recipe.batch_size:
        raise UserError(f"{len(pixels)} images make no batch of {recipe.batch_size}: lower batch_size in the recipe.")
    tokenizer = make_tokenizer(recipe.text, train_data.captions)
    words = caption_counts(train_data.captions)
    model = build(recipe, tokenizer, seed).to(device)
    optimizer = make_optimizer(model, recipe.optim)
    file = run_folder / CHECKPOINT_FILE
    start = 0
    if file.is_file():
        _refuse_other(file, recipe, seed)
        start = checkpoint.load_training(file, model, optimizer)
    batches = Batches(
        pixels,
        model.objective,
        lambda captions: tokenizer(captions, model.objective.tower_options().get("full_context", False)),
        recipe.batch_size,
        seed,
        recipe.data.false_negatives == "mask",
    )
    where = torch.device(device)
    autocast, probe = precision.choose(recipe, where, lambda on: _probe_step(model, batches, where, on))
    run_folder.mkdir(parents=True, exist_ok=True)
    _write_json(run_folder / "recipe.json", recipe.model_dump())
    _write_json(run_folder / "environment.json", _environment(seed, where, autocast, probe))

    def encoder() -> OwnEncoder:
        return OwnEncoder(
            recipe.model_card(), model, recipe, tokenizer, seed, "in training", words, where, "float32", 256
        )

    def meta(step: int) -> Meta:
        return Meta(recipe, seed, step, tokenizer.state, words)

    began = time.perf_counter()
    scores: dict[str, float] = {}
    with RunLog(run_folder, recipe.name, start, recipe.steps, tensorboard) as log:
        log.event({"precision": "bf16" if autocast else "float32", **probe})
        for note in (*train_data.notes, *val_data.notes):
            log.event({"note": note})
        for item in (*pixels.unreadable, *val_pixels.unreadable):
            log.event({"unreadable": item})
        unreadable = set(pixels.unreadable)

        def on_step(report: StepReport) -> None:
            log.step(report)
            unreadable.update(report.unreadable)
            refuse_too_many(unreadable, train_data, recipe.data.max_unreadable)

        def every(step: int) -> None:
            scores.update(validation_scores(encoder(), val_data, val_pixels))
            log.event({"step": step, "val": dict(scores)})
            checkpoint.save_training(file, model, optimizer, meta(step))

        workers = 0 if pixels.array_NSS3 is not None else (os.cpu_count() or 1)
        try:
            fit(
                model=model,
                optimizer=optimizer,
                recipe=recipe,
                batches=loader(batches, start, recipe.steps, workers),
                start=start,
                device=where,
                autocast=autocast,
                on_step=on_step,
                every=every,
            )
        except NotFiniteError as error:
            raise NotFiniteError(
                f"{error}: {_last_good(file)}; lower optim.lr or set optim.clip in the recipe."
            ) from None
    summary = {
        "recipe": recipe.name,
        "seed": seed,
        "steps": recipe.steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
        "resumed_from": start,
        "precision": "bf16" if autocast else "float32",
        "unreadable": len(unreadable),
        "val": scores or validation_scores(encoder(), val_data, val_pixels),
        "held_out": held_out(model, tokenizer, val_data, val_pixels, where),
    }
    checkpoint.write_atomically(checkpoint.model_tensors(model), meta(recipe.steps), run_folder / WEIGHTS_FILE)
    _write_json(run_folder / "summary.json", summary)
    return summary


def read_split(recipe: Recipe, data_root: Path | None, val: bool) -> DataSplit:
    """The recipe's training or validation data; test splits are refused."""
    split = recipe.data.val_split if val else recipe.data.split
    if "test" in split:
        raise UserError(
            f"{recipe.name} trains on the split '{split}': name another; test splits are for sparc-bench eval."
        )
    module = discover.load("datasets", recipe.data.dataset)
    values = {**recipe.data.options, **(recipe.data.val_options if val else {})}
    options = parse(module.Options, values, f"{recipe.name}: [data.{'val_' if val else ''}options]")
    data: DataSplit = module.read(data_root, split, options)
    without = [example.id for example in data if not example.captions]
    if without:
        raise UserError(f"{recipe.data.dataset}:{split} has an image without captions ({without[0]}): leave it out.")
    return data


def caption_counts(captions: Iterable[str]) -> dict[str, int]:
    """Word -> in how many captions it stands (lower case, letters only)."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(set(re.findall(r"[a-z]+", caption.lower())))
    return dict(counts)


def _write_json(file: Path, values: dict[str, Any]) -> None:
    write_atomic(file, (json.dumps(values, indent=2) + "\n").encode())


def _pixels(data: DataSplit, recipe: Recipe) -> Pixels:
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"decoding {data.dataset} {data.split}", total=len(data), visible=False)
        return load_pixels(
            data,
            recipe.image,
            recipe.data.max_unreadable,
            lambda done, total: progress.update(bar, completed=done, total=total, visible=True),
        )


def _probe_step(model: TrainStep, batches: Batches, device: torch.device, autocast: bool) -> None:
    forward_backward(model, batches[0], 0, device, autocast)
    model.zero_grad(set_to_none=True)


def _finished(recipe: Recipe, run_folder: Path, seed: int) -> dict[str, Any] | None:
    weights, summary = run_folder / WEIGHTS_FILE, run_folder / "summary.json"
    if not (weights.is_file() and summary.is_file()):
        return None
    _refuse_other(weights, recipe, seed)
    try:
        values: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{summary} is damaged: delete {weights} and run the command again.") from None
    return values


def _refuse_other(file: Path, recipe: Recipe, seed: int) -> None:
    meta, _ = checkpoint.read(file)
    if training_part(meta.recipe) != training_part(recipe) or meta.seed != seed:
        raise UserError(
            f"{file.parent} holds a run of another recipe or seed: delete that folder, or name another with --runs."
        )


def training_part(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the weights (no titles, notes or figures)."""
    return recipe.model_dump(exclude={"name", "title", "source", "notes", "cost", "reaches", "attempts", "weights"})


def _last_good(file: Path) -> str:
    if not file.is_file():
        return "no checkpoint was written yet"
    return f"the last good checkpoint is {file} (step {checkpoint.read(file)[0].step})"


def _environment(seed: int, device: torch.device, autocast: bool, probe: dict[str, float | None]) -> dict[str, Any]:
    libraries = ("torch", "torchvision", "timm", "open_clip_torch", "tokenizers", "numpy", "pillow", "sparc-bench")
    return {
        "seed": seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": "bf16" if autocast else "float32",
        "probe_seconds_per_step": probe,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: version(name) for name in libraries},
    }
