"""From (model, task) to a record: read the data, check it, score it, resample it, put its reference rows beside it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.progress import Progress

from sparc_bench import __version__, models, records, stored_outcome
from sparc_bench.atomic import write_atomic
from sparc_bench.binding import BoundTask, bind
from sparc_bench.cards import ModelCard, TaskCard
from sparc_bench.environment import git_state, library_versions
from sparc_bench.errors import UserError, nearest
from sparc_bench.examples import DataSplit
from sparc_bench.exposure import classes_seen, exposure
from sparc_bench.features import Encoder, Runtime
from sparc_bench.outcome import Outcome
from sparc_bench.prompts import class_words
from sparc_bench.records import Record
from sparc_bench.scoring import estimated, reference_rows
from sparc_bench.watched_encoder import WatchedEncoder


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
    """

    results: Path = Path("results")
    data_root: Path | None = None
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    limit: int | None = None
    force: bool = False
    runs: Path = Path("runs")


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
    resolved = models.resolve(model, run, settings.seed, settings.runs)
    encoder = models.load_encoder(resolved, settings.runtime)
    suite = _Suite(encoder, resolved.card, resolved.seed, settings, progress)
    return [suite.result(card) for card in tasks]


@dataclass
class _Suite:
    """One loaded model and the data splits read so far."""

    encoder: Encoder
    card: ModelCard
    seed: int
    settings: Settings
    progress: Progress | None
    splits: dict[str, DataSplit] = field(default_factory=dict)

    def result(self, card: TaskCard) -> Result:
        try:
            return self._evaluated(card)
        except UserError as error:
            return Result(self.card.name, card.name, error=str(error))

    def _evaluated(self, card: TaskCard) -> Result:
        task = bind(card)
        missing = task.protocol.NEEDS - self.encoder.gives
        if missing:
            raise UserError(
                f"{card.name} needs {', '.join(sorted(missing))} of a model, which {self.card.name} does not give: "
                "leave this task out."
            )
        data = self._data(task)
        path = records.record_path(
            self.settings.results, self.card.name, self.seed, card.name, sample=card.sample, limit=self.settings.limit
        )
        bare = self._bare_record(task, data)
        kept = None if self.settings.force else _kept(path, bare)
        if kept is not None:
            return Result(self.card.name, card.name, kept, path, kept=True)
        record, outcomes = self._scored(task, data, bare)
        write_atomic(path.with_suffix(".npz"), outcomes)
        records.write_record(path, record)
        return Result(self.card.name, card.name, record, path)

    def _data(self, task: BoundTask) -> DataSplit:
        key = f"{task.card.dataset}:{task.card.split}:{task.data_options.model_dump_json()}"
        if key not in self.splits:
            self.splits[key] = task.dataset.read(self.settings.data_root, task.card.split, task.data_options)
        data = self.splits[key]
        check_counts(task.card, data)
        return limited(data, self.settings.limit)

    def _bare_record(self, task: BoundTask, data: DataSplit) -> Record:
        """The record as far as it is known before anything is scored."""
        card, settings = task.card, self.settings
        commit, dirty = git_state()
        recipe = getattr(self.encoder, "recipe", None)
        return Record(
            schema_version=records.SCHEMA,
            model=self.card.name,
            model_title=self.card.title,
            model_family=self.card.family,
            model_hash=records.model_hash(self.card),
            recipe_hash=records.recipe_hash(recipe) if recipe else "",
            weights_hash=self.encoder.weights_hash,
            paths=dict(self.encoder.paths),
            task=card.name,
            title=card.title,
            task_family=card.family,
            headline=card.headline,
            dataset=card.dataset,
            split=card.split,
            protocol=card.protocol,
            protocol_version=task.protocol.VERSION,
            protocol_hash=task.protocol_hash(settings.limit),
            data_hash=data.fingerprint,
            outcome_hash="",
            package_version=__version__,
            commit=commit,
            dirty=dirty,
            seed=self.seed,
            precision=self.encoder.precision,
            device=str(self.encoder.device),
            libraries=library_versions(),
            sample=card.sample,
            limit=settings.limit,
            n=len(data),
            counts={},
            ties=0,
            exposure=exposure(self.card.trained_on, card.dataset, card.split, len(data)),
            chance=records.rounded_values(card.chance),
            metrics={},
            reference={},
            groups={},
            notes=(),
            seconds=0.0,
        )

    def _scored(self, task: BoundTask, data: DataSplit, bare: Record) -> tuple[Record, bytes]:
        with self._watched(task.card, len(data)) as watched:
            start = time.perf_counter()
            outcome: Outcome = task.protocol.run(watched, data, task.options)
            seconds = time.perf_counter() - start
            headline = records.headline_metrics(bare.headline, outcome.metrics, bare.paths)
            if not headline:
                hint = nearest(bare.headline, outcome.metrics)
                raise UserError(f"Task {task.card.name} has no metric '{bare.headline}' for its headline: {hint}")
            reference, notes = reference_rows(task, data, watched, outcome)
        metrics, groups = estimated(outcome)
        outcomes, dropped = stored_outcome.pack(
            [example.id for example in data], outcome.metrics, outcome.groups, outcome.examples, outcome.rows, headline
        )
        if dropped:
            notes.append(f"The file of outcomes leaves out {', '.join(dropped)} to stay under 200 KB.")
        if self.settings.limit is not None:
            notes.append(f"Testing only: --limit {self.settings.limit}.")
        train_words = getattr(self.encoder, "train_words", None)
        words = _class_words(task, data)
        values = {group: statistic.value for group, statistic in outcome.groups.get("class", {}).items()}
        record = bare.model_copy(
            update={
                "outcome_hash": stored_outcome.sha256(outcomes),
                "counts": dict(outcome.counts),
                "ties": outcome.ties,
                "metrics": metrics,
                "reference": reference,
                "groups": groups,
                "classes_seen": classes_seen(headline[0], words, train_words, values) if train_words else None,
                "notes": (*data.notes, *outcome.notes, *notes),
                "seconds": round(seconds, 1),
            }
        )
        return record, outcomes

    @contextmanager
    def _watched(self, card: TaskCard, images: int) -> Iterator[WatchedEncoder]:
        if self.progress is None:
            yield WatchedEncoder(self.encoder, lambda _: None)
            return
        passes = 2 if "untrained" in card.references else 1
        bar = self.progress.add_task(f"{self.card.name} on {card.name}", total=passes * images)
        try:
            yield WatchedEncoder(self.encoder, _advance(self.progress, bar))
        finally:
            self.progress.remove_task(bar)


def _advance(progress: Progress, bar: object) -> Callable[[int], None]:
    return lambda images: progress.advance(bar, images)  # type: ignore[arg-type]  # rich's TaskID is an int by another name


def _kept(path: Path, bare: Record) -> Record | None:
    """The record that is there, if its inputs are the same and its outcomes lie beside it; card prose is brought up."""
    if not (path.is_file() and path.with_suffix(".npz").is_file()):
        return None
    there = records.read_record(path)
    if not there.same_inputs(bare) or not records.headline_metrics(bare.headline, there.metrics, there.paths):
        return None
    if stored_outcome.sha256(path.with_suffix(".npz").read_bytes()) != there.outcome_hash:
        return None
    keys = ("title", "model_title", "task_family", "headline", "chance", "recipe_hash")
    fresh = there.model_copy(update={key: getattr(bare, key) for key in keys})
    if fresh != there:
        records.write_record(path, fresh)
    return fresh


def _class_words(task: BoundTask, data: DataSplit) -> dict[str, str]:
    named = getattr(task.options, "classes", "own")
    words = class_words(named, data.classes) if isinstance(named, str) else data.classes
    return dict(zip(data.classes, words, strict=True))


def check_counts(card: TaskCard, data: DataSplit) -> None:
    """Raise UserError where the data on disk is not the split that the card describes."""
    counts = data.counts()
    for key, expected in card.expect.items():
        if key not in counts:
            raise UserError(f"Task {card.name}: [expect] knows no '{key}': {nearest(key, counts)}")
        if counts[key] != expected:
            raise UserError(
                f"Task {card.name} expects {expected} {key}, but {card.dataset}:{card.split} has {counts[key]}: "
                "complete the data set, or write a task card of your own with these counts."
            )


def limited(data: DataSplit, limit: int | None) -> DataSplit:
    """The first `limit` examples, without groups that the cut would split."""
    if limit is None or limit >= len(data):
        return data
    first = data.examples[:limit]
    whole = Counter(example.group for example in data)
    here = Counter(example.group for example in first)
    chosen = tuple(e for e in first if e.group is None or here[e.group] == whole[e.group])
    if not chosen:
        raise UserError(f"--limit {limit} leaves no whole group of {data.dataset}: give a larger number.")
    return replace(data, examples=chosen)
