"""From (model, task) to a record: read the data, check it, score it, resample it, put its reference rows beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import Progress

from sparc_bench.cards.binding import BoundTask, bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue import counting
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder, Runtime, image_need
from sparc_bench.errors import UserError
from sparc_bench.evaluation import new_record
from sparc_bench.evaluation.counted_encoder import WatchedEncoder
from sparc_bench.evaluation.reference_rows import reference_rows
from sparc_bench.feature_cache import Keep
from sparc_bench.feature_cache.cache import FeatureCache
from sparc_bench.models import resolve
from sparc_bench.protocol import Outcome
from sparc_bench.records.record import Record, record_path


@dataclass(frozen=True)
class Settings:
    """How to evaluate.

    Attributes:
        results: folder of the records.
        data_root: folder with one folder per data set, or None.
        seed: which run of a recipe, where the model does not say.
        runtime: device, precision, images at once, processes that decode.
        limit: only so many images, for testing; such a record never enters a leaderboard.
        force: replace a record whose inputs are all the same.
        runs: folder of the training runs.
        cache: what of the features is kept for later tasks and commands (`sparc_bench.feature_cache`).
    """

    results: Path = Path("results")
    data_root: Path | None = None
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    limit: int | None = None
    force: bool = False
    runs: Path = Path("runs")
    cache: Keep = "off"


@dataclass(frozen=True)
class Result:
    """What became of one task.

    Attributes:
        model: name of the model's card.
        task: name of the task.
        record: the record, None where the task failed.
        path: where it lies.
        kept: it was there already, with the same inputs.
        error: the sentence of the error, None where there was none.
    """

    model: str
    task: str
    record: Record | None = None
    path: Path | None = None
    kept: bool = False
    error: str | None = None


def evaluate(
    model: str, tasks: Sequence[TaskCard], settings: Settings, run: Path | None = None, progress: Progress | None = None
) -> list[Result]:
    """Evaluate a model on tasks; a task that fails does not stop the others (`Result.error`).

    Args:
        model: a card's name, the path of a card or run folder, or family:weights.
        tasks: in this order.
        settings: how.
        run: the run folder whose weights to use (`--run`), where the model is a recipe.
        progress: a rich progress display, already started, or None.

    Raises:
        UserError: the model cannot be found or loaded.
    """
    resolved = resolve.resolve(model, run, settings.seed, settings.runs)
    encoder = resolve.load_encoder(resolved, settings.runtime)
    return evaluate_encoder(encoder, resolved.card, resolved.seed, tasks, settings, progress)


def evaluate_encoder(
    encoder: Encoder,
    card: ModelCard,
    seed: int,
    tasks: Sequence[TaskCard],
    settings: Settings,
    progress: Progress | None = None,
) -> list[Result]:
    """As `evaluate`, with a model that is loaded already; `seed` is the one that it was trained with."""
    suite = _Suite(encoder, card, seed, settings, progress, FeatureCache(settings.cache))
    return [suite.result(task) for task in tasks]


@dataclass
class _Suite:
    """One loaded model and the data splits read so far."""

    encoder: Encoder
    card: ModelCard
    seed: int
    settings: Settings
    progress: Progress | None
    cache: FeatureCache
    splits: dict[str, DataSplit] = field(default_factory=dict)

    def result(self, card: TaskCard) -> Result:
        try:
            return self._evaluated(card)
        except UserError as error:
            return Result(self.card.name, card.name, error=str(error))
        finally:
            self.cache.flush()

    def _evaluated(self, card: TaskCard) -> Result:
        task = bind(card)
        missing = task.protocol.NEEDS - self.encoder.gives
        if missing:
            raise UserError(
                f"{card.name} needs {', '.join(sorted(missing))} of a model, which {self.card.name} does not give: "
                "leave this task out."
            )
        data = self._data(task)
        path = record_path(
            self.settings.results, self.card.name, self.seed, card.name, sample=card.sample, limit=self.settings.limit
        )
        bare = new_record.bare_record(task, data, self.encoder, self.card, self.seed, self.settings.limit)
        if self.cache.rounds(self.encoder, data) and "patches" in task.protocol.NEEDS | image_need(self.encoder):
            bare = bare.model_copy(update={"patch_precision": "float16"})
        kept = None if self.settings.force else new_record.kept(path, bare)
        if kept is not None:
            return Result(self.card.name, card.name, kept, path, kept=True)
        record, outcomes = self._scored(task, data, bare)
        new_record.write(path, record, outcomes)
        return Result(self.card.name, card.name, record, path)

    def _data(self, task: BoundTask) -> DataSplit:
        key = f"{task.card.dataset}:{task.card.split}:{task.data_options.model_dump_json()}"
        if key not in self.splits:
            self.splits[key] = task.dataset.read(self.settings.data_root, task.card.split, task.data_options)
        data = self.splits[key]
        check_counts(task.card, data)
        return limited(data, self.settings.limit, spread="splits" in task.protocol.DATA)

    def _scored(self, task: BoundTask, data: DataSplit, bare: Record) -> tuple[Record, bytes]:
        with self._watched(task.card, data) as watched:
            start = time.perf_counter()
            outcome: Outcome = task.protocol.run(watched, data, task.options)
            seconds = time.perf_counter() - start
            new_record.headline(bare, outcome)
            reference, notes = reference_rows(task, data, watched, outcome)
        if bare.patch_precision != "float32":
            notes.append(f"Patch vectors were rounded to {bare.patch_precision}, as the feature cache kept them.")
        train_words = getattr(self.encoder, "train_words", None)
        return new_record.finished(bare, task, data, outcome, reference, notes, seconds, train_words)

    @contextmanager
    def _watched(self, card: TaskCard, data: DataSplit) -> Iterator[WatchedEncoder]:
        encoder = self.cache.around(self.encoder, data)
        if self.progress is None:
            yield WatchedEncoder(encoder, lambda _: None)
            return
        passes = 2 if "untrained" in card.references else 1
        images = len({(item.id, item.crop) for item in data.items})
        bar = self.progress.add_task(f"{self.card.name} on {card.name}", total=passes * images)
        try:
            yield WatchedEncoder(encoder, _advance(self.progress, bar))
        finally:
            self.progress.remove_task(bar)


def _advance(progress: Progress, bar: object) -> Callable[[int], None]:
    return lambda images: progress.advance(bar, images)  # type: ignore[arg-type]  # rich's TaskID is an int by another name


def check_counts(card: TaskCard, data: DataSplit) -> None:
    """Raise UserError where the data on disk is not the split that the card describes."""
    counting.check_counts(card, data.counts())


def limited(data: DataSplit, limit: int | None, spread: bool = False) -> DataSplit:
    """The first `limit` examples, without groups that the cut would split.

    With `spread` they are taken evenly from all: the first ones would all be of a probe's train part.
    """
    if limit is None or limit >= len(data):
        return data
    first = data.examples[:limit]
    if spread:
        first = tuple(data.examples[index * len(data) // limit] for index in range(limit))
    whole = Counter(example.group for example in data)
    here = Counter(example.group for example in first)
    chosen = tuple(e for e in first if e.group is None or here[e.group] == whole[e.group])
    if not chosen:
        raise UserError(f"--limit {limit} leaves no whole group of {data.dataset}: give a larger number.")
    return replace(data, examples=chosen)
