"""A training run, from a recipe and a seed to a run folder.

The folder holds recipe.json, environment.json, log.jsonl, checkpoint.safetensors (for resuming), model.safetensors (the
result) and summary.json. A finished run is not trained again; an interrupted run resumes from its checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from sparc_bench import distributed
from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.encoder import Runtime
from sparc_bench.encoders.own import IN_TRAINING, WEIGHTS_FILE, OwnEncoder
from sparc_bench.errors import ElsewhereError, StoppedError, UserError
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.files.atomic import remove_drafts
from sparc_bench.files.lock import locked
from sparc_bench.stop_signals import StopRequest, name_of
from sparc_bench.terminal import task_bar
from sparc_bench.training import precision
from sparc_bench.training.cpu_clock import CpuClock
from sparc_bench.training.data_needs import refuse_missing
from sparc_bench.training.frozen_inputs import projected
from sparc_bench.training.initial_model import InitialModel, load_initial_weights
from sparc_bench.training.loading import Batches, loader
from sparc_bench.training.log import RunLog, SilentLog
from sparc_bench.training.loop import (
    NotFiniteError,
    StepReport,
    fit,
    forward_backward,
    is_evaluated,
    make_optimizer,
    refuse_not_finite,
)
from sparc_bench.training.pixels import refuse_too_many
from sparc_bench.training.run_folder import (
    CHECKPOINT_FILE,
    SUMMARY_FILE,
    environment,
    finished,
    last_good,
    refuse_other,
    refuse_other_data,
    refuse_other_start,
    write_environment,
    write_json,
)
from sparc_bench.training.run_inputs import RunInputs, read_run_inputs
from sparc_bench.training.validate import Scores, held_out, validation_scores
from sparc_bench.training.validation_tasks import ValidationTask, read_tasks, refuse_lacking, task_scores
from sparc_bench.two_towers import checkpoint
from sparc_bench.two_towers.checkpoint import Meta
from sparc_bench.two_towers.model import TwoTowerModel, build_model


def train(
    recipe: Recipe,
    run_folder: Path,
    data_root: Path | None,
    seed: int,
    device: str,
    tensorboard: bool = False,
    data: RunInputs | None = None,
    on_step: Callable[[int], None] = lambda _: None,
    scores_start: bool = True,
) -> dict[str, Any]:
    """Train `recipe` into `run_folder`, or resume the run there, and return its summary.

    Under torchrun every rank calls this function and takes its rows of each batch; rank 0 writes, the others return {}.
    `data`: inputs that several runs share, else they are read here. `on_step` gets the number of each step when it is
    done. Without `scores_start` the tasks of [validate] are not scored before the first step.

    The summary's `cpu_seconds` are those of the steps alone (loading, forward, backward and optimiser, all threads and
    processes), without validation and checkpoints.

    Raises:
        StoppedError: a signal came; during a step, that step ends first and its checkpoint is written.
        UserError: an option is misspelt, the data lack captions or negatives for the loss, a split is kept for
            evaluation, the initial model is missing, another process trains there, the folder holds a run of another
            recipe, seed or data or a damaged checkpoint, a task of [validate] cannot be scored, the loss, a gradient or
            a weight is not finite, or the disk is full.
        ElsewhereError: another of several processes raised one of these.
    """
    file = run_folder / CHECKPOINT_FILE
    rank = distributed.rank_and_world()[0]
    stop = StopRequest()
    try:
        summary = distributed.together(lambda: _finished(recipe, run_folder, data_root, seed))
        if summary is not None:
            return summary if rank == 0 else {}
        with ExitStack() as stack:
            run = distributed.together(lambda: _prepared(recipe, run_folder, data_root, seed, device, data, stack))
            return _train(run, tensorboard, on_step, stop, scores_start)
    except (StoppedError, KeyboardInterrupt) as error:
        number = error.code - 128 if isinstance(error, StoppedError) else int(signal.SIGINT)
        raise StoppedError(f"Stopped by {name_of(number)}: {last_good(file)}.", number) from None
    except ElsewhereError:
        if stop.number:
            raise StoppedError(f"Stopped by {name_of(stop.number)}: {last_good(file)}.", stop.number) from None
        raise
    except NotFiniteError as error:
        if rank > 0:  # the same in every process
            raise ElsewhereError from None
        raise NotFiniteError(
            f"{error}: {last_good(file)}; where it stops there again, lower optim.lr or set optim.clip in the "
            f"recipe and delete {run_folder}."
        ) from None
    except RuntimeError as error:
        if not (distributed.several() and distributed.is_lost(error)):
            raise
        if stop.number:
            raise StoppedError(f"Stopped by {name_of(stop.number)}: {last_good(file)}.", stop.number) from None
        if rank > 1:  # two of the others say it
            raise ElsewhereError from None
        raise UserError(
            f"Another process ended, or did not answer for {distributed.timeout()} s ({distributed.TIMEOUT}): "
            f"{last_good(file)}."
        ) from None


@dataclass(frozen=True)
class _Run:
    """Model, data and settings of a run, in this process.

    `alone` are batches as large as its part of one; `tasks` are those of [validate], on rank 0 alone.
    """

    recipe: Recipe
    folder: Path
    seed: int
    data: RunInputs
    tasks: tuple[ValidationTask, ...]
    model: TwoTowerModel
    optimizer: torch.optim.AdamW
    batches: Batches
    alone: Batches
    device: torch.device
    start: int
    begins: dict[str, Any]
    autocast: bool
    probe: Mapping[str, float | None]


def _finished(recipe: Recipe, run_folder: Path, data_root: Path | None, seed: int) -> dict[str, Any] | None:
    refuse_missing(recipe)
    world = distributed.rank_and_world()[1]
    if recipe.batch_size < world:
        raise UserError(
            f"{world} processes cannot share a batch of {recipe.batch_size}: start {recipe.batch_size} at most, or "
            "raise batch_size in the recipe."
        )
    return finished(recipe, run_folder, data_root, seed)


def _prepared(
    recipe: Recipe,
    run_folder: Path,
    data_root: Path | None,
    seed: int,
    device: str,
    data: RunInputs | None,
    stack: ExitStack,
) -> _Run:
    rank, world = distributed.rank_and_world()
    if rank == 0:
        nobody_else = stack.enter_context(locked(run_folder, "--runs"))
        remove_drafts(run_folder, whoever=nobody_else)
    # cuBLAS is deterministic only with a fixed workspace; a few CUDA kernels have no deterministic form and warn
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    file = run_folder / CHECKPOINT_FILE
    begun = checkpoint.read_meta(file) if file.is_file() else None
    if begun is not None:
        refuse_other(begun, run_folder, recipe, seed)
    tasks = read_tasks(recipe, data_root) if rank == 0 else ()
    data = data or read_run_inputs(recipe, data_root, device)
    if begun is not None:
        data = _as_begun(begun, run_folder, data)
    model = build_model(recipe, data.tokenizer, seed, data.init_record)
    refuse_lacking(recipe, tasks, model.objective.gives)
    begins = _load_initial(model, data.initial, recipe) if data.initial else {}
    if data.fitted:
        model.towers.image.fit(data.fitted)
    model.to(device)
    optimizer = make_optimizer(model, recipe.optim)
    start = 0
    if begun is not None:
        start = checkpoint.load_training(file, model, optimizer)
        data = _by_its_projection(model, data)
    batches_of = partial(
        Batches,
        images=data.images,
        objective=model.objective,
        tokenize=partial(data.tokenizer, full_context=model.full_context),
        seed=seed,
        mask_known_true=recipe.data.false_negatives == "mask",
    )
    batches = batches_of(batch_size=recipe.batch_size, rank=rank, world=world)
    alone = batches_of(batch_size=recipe.batch_size // world)
    where = torch.device(device)
    with task_bar() as progress:
        progress.add_task(f"{recipe.name}: trying float32 and bf16", total=None, visible=rank == 0)
        autocast, probe = precision.choose(
            recipe, data.init_record, where, lambda on: _probe_step(model, alone, where, on)
        )
    return _Run(
        recipe, run_folder, seed, data, tasks, model, optimizer, batches, alone, where, start, begins, autocast, probe
    )


def _train(
    run: _Run, tensorboard: bool, on_step: Callable[[int], None], stop: StopRequest, scores_start: bool
) -> dict[str, Any]:
    rank, world = distributed.rank_and_world()
    recipe, run_folder, seed, data, model, start = run.recipe, run.folder, run.seed, run.data, run.model, run.start
    file = run_folder / CHECKPOINT_FILE
    autocast = distributed.flag_of_rank_0(run.autocast, run.device)
    others: dict[str, Any] | None = None
    if rank == 0:
        write_json(run_folder / "recipe.json", recipe.model_dump())
        now = environment(seed, run.device, autocast, run.probe, world) | run.begins
        others = write_environment(run_folder, now, start)

    workers = 0 if data.images.in_file else (os.cpu_count() or 1)

    cache = FeatureCache("trunk")

    def encoder() -> OwnEncoder:
        runtime = Runtime(str(run.device), workers=workers)
        return OwnEncoder(recipe.model_card(), model, meta(0), data.tokenizer, IN_TRAINING, runtime)

    def meta(step: int) -> Meta:
        state, trunk = data.tokenizer.state, model.trunk_record
        return Meta(recipe, seed, step, state, data.words, data.init_record, data.hashes, trunk)

    began = time.perf_counter()
    last: Scores | None = None
    with RunLog(run_folder, recipe.name, start, recipe.steps, tensorboard) if rank == 0 else SilentLog() as log:
        log.event({"precision": "bf16" if autocast else "float32", **run.probe})
        if run.begins:
            log.event(run.begins)
        if others is not None:
            log.event(others)
        for note in (*data.train.notes, *data.val.notes):
            log.event({"note": note})
        for item in (*data.images.unreadable, *data.val_images.unreadable):
            log.event({"unreadable": item})
        unreadable = set(data.images.unreadable)

        def after_step(report: StepReport) -> None:
            log.step(replace(report, figures={**report.figures, "cpu_seconds": round(clock.lap(), 4)}))
            on_step(report.step)
            unreadable.update(report.unreadable)
            refuse_too_many(unreadable, data.train, recipe.data.max_unreadable)

        def write(step: int) -> None:
            refuse_not_finite(model, run.optimizer, step)
            if rank == 0:
                checkpoint.save_training(file, model, run.optimizer, meta(step))

        def scored() -> Scores:
            if run.tasks:
                return task_scores(encoder(), run.tasks, log.images, cache)
            found = validation_scores(encoder(), data.val, data.val_images)
            return Scores(found, tuple(found))

        def validate(step: int) -> None:
            nonlocal last
            if rank == 0:
                with stop.at_once():  # the checkpoint is written: what is left out is done when the run goes on
                    last = scored()
                log.validation(step, last)

        # what would stop a task, such as a photo that cannot be read, stops it before the first step
        due = is_evaluated(start, recipe) or (start == 0 and recipe.validate is not None and scores_start)
        if due and not distributed.flag_of_rank_0(log.validated, run.device):
            distributed.together(lambda: validate(start))
        clock = CpuClock()

        def untimed(step: Callable[[int], None], at: int) -> None:
            with clock.paused():
                distributed.together(lambda: step(at))

        with stop.noted():
            fit(
                model=model if world == 1 else _shared(run),
                optimizer=run.optimizer,
                recipe=recipe,
                batches=loader(run.batches, start, recipe.steps, workers),
                start=start,
                device=run.device,
                autocast=autocast,
                on_step=after_step,
                on_checkpoint=partial(untimed, write),
                on_evaluation=partial(untimed, validate),
                stop=stop,
            )
        used = {"cpu_seconds": torch.tensor(clock.seconds, device=run.device)}
        cpu_seconds = float(distributed.mean_over_ranks(used)["cpu_seconds"]) * world
        if rank > 0:
            return {}
        last = last or scored()
        summary = {
            "recipe": recipe.name,
            "seed": seed,
            "steps": recipe.steps,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_seconds": round(log.cpu_seconds + cpu_seconds, 4),
            "resumed_from": start,
            "precision": "bf16" if autocast else "float32",
            "unreadable": len(unreadable),
            "data": dict(data.hashes),
            "val": dict(last.values),
            **({"val_headlines": list(last.headlines)} if run.tasks else {}),
            "held_out": held_out(model, data.tokenizer, data.val, data.val_images, run.device),
        }
    checkpoint.write_checkpoint(checkpoint.model_tensors(model), meta(recipe.steps), run_folder / WEIGHTS_FILE)
    write_json(run_folder / SUMMARY_FILE, summary)
    return summary


def _shared(run: _Run) -> DistributedDataParallel:
    """The model with gradients shared by all processes.

    torch warns and loses time where it is told to look for unused parameters in vain, so that one step looks first; the
    loss of a plug-in may leave some out in a later step alone.
    """
    forward_backward(run.model, run.alone[0], run.device, run.autocast)
    unused = any(each.grad is None for each in run.model.parameters() if each.requires_grad)
    run.model.zero_grad(set_to_none=True)
    plugin = discovery.plugin_code(run.recipe.objective) is not None
    return DistributedDataParallel(run.model, find_unused_parameters=unused or plugin)


def _probe_step(model: TwoTowerModel, batches: Batches, device: torch.device, autocast: bool) -> None:
    forward_backward(model, batches[0], device, autocast)
    model.zero_grad(set_to_none=True)


def _as_begun(begun: Meta, run_folder: Path, data: RunInputs) -> RunInputs:
    """The inputs with the tokenizer and the words of the run that began in the folder, from the same data and model."""
    refuse_other_data(begun, run_folder, data.hashes)
    refuse_other_start(begun, run_folder, data.init_record)
    return replace(data, tokenizer=begun.architecture.tokenizer(begun.tokenizer), words=begun.train_words)


def _by_its_projection(model: TwoTowerModel, data: RunInputs) -> RunInputs:
    """The inputs behind the projection of a checkpoint, which may have been fitted on another machine."""
    its = {name: buffer.cpu().clone() for name, buffer in model.towers.image.fixed().items()}
    if all(torch.equal(its[name], fitted) for name, fitted in data.fitted.items()):
        return data
    return replace(data, images=projected(data.images, its), val_images=projected(data.val_images, its), fitted=its)


def _load_initial(model: TwoTowerModel, initial: InitialModel, recipe: Recipe) -> dict[str, Any]:
    """Load the initial weights into the model; returns their entry for the log and environment.json."""
    loaded, new = load_initial_weights(model, initial, recipe)
    about = {"init": recipe.init, "sha256": initial.init_record.weights_hash, "frozen": recipe.freeze}
    return {"start": {**about, "heads_taken": loaded, "heads_new": new}}
