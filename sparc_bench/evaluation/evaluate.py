"""A model on tasks: the way of `sparc-bench eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.progress import Progress, TaskID

from sparc_bench.blocks.block_store import BlockStore
from sparc_bench.blocks.predicted import predicted
from sparc_bench.blocks.ranks import Alone, Ranks
from sparc_bench.cards.binding import BoundTask, bind
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.encoder import Encoder, Runtime, image_need
from sparc_bench.errors import UserError
from sparc_bench.evaluation.new_record import Provenance
from sparc_bench.evaluation.pipeline import Pipeline, Result, read_data, split_key
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.feature_cache import CacheMode
from sparc_bench.feature_cache.cache import FeatureCache, to_stderr
from sparc_bench.models import resolve
from sparc_bench.models.finite_encoder import FiniteEncoder
from sparc_bench.protocol import Predictions


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        results: folder of the records.
        data_root: folder with one folder per data set, or None.
        seed: which run of a recipe, where the model does not say.
        runtime: device, precision, images at once, processes that decode.
        limit: only so many images, for testing; such a record never enters a leaderboard.
        force: replace a record whose inputs are all the same.
        runs: folder of the training runs.
        cache: what of the features is kept for later tasks and commands (`sparc_bench.feature_cache`).
        ranks: the processes that share the work.
        say: function that shows the user a sentence.
    """

    results: Path = Path("results")
    data_root: Path | None = None
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    limit: int | None = None
    force: bool = False
    runs: Path = Path("runs")
    cache: CacheMode = "off"
    ranks: Ranks = field(default_factory=Alone)
    say: Callable[[str], None] = to_stderr

    def shared(self, ranks: Ranks) -> Settings:
        """These settings for one of several processes, of which the first one alone says something."""
        runtime = replace(self.runtime, device=ranks.device)
        return replace(self, runtime=runtime, ranks=ranks, say=_in_silence if ranks.rank else self.say)


def _in_silence(sentence: str) -> None:
    """Say nothing."""


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
    read, errors = _read_ahead(tasks, settings)
    if tasks and len(errors) == len(tasks):
        return [Result(resolved.card.name, task.name, error=error) for task, error in zip(tasks, errors, strict=True)]
    encoder = resolve.load_encoder(resolved, settings.runtime)
    return evaluate_encoder(
        encoder, resolved.card, resolved.seed, tasks, settings, progress, read if encoder.opens_images else {}
    )


def _read_ahead(tasks: Sequence[TaskCard], settings: Settings) -> tuple[dict[str, Examples], list[str]]:
    """The data of the first task that has them, read before a model is loaded; the sentences of those before it.

    Data whose photos alone are not there are left to the evaluation: some models open none.
    """
    errors: list[str] = []
    for card in tasks:
        for opens_images in (True, False):
            try:
                task = bind(card)
                data = settings.ranks.together(partial(_read_whole, task, settings.data_root, opens_images))
            except UserError as error:
                sentence = str(error)
            else:
                return {split_key(task): data} if opens_images else {}, errors
        errors.append(sentence)
    return {}, errors


def _read_whole(task: BoundTask, data_root: Path | None, opens_images: bool) -> Examples:
    data = read_data(task, data_root, opens_images=opens_images)
    check_counts(task.card, data.counts())
    return data


def evaluate_encoder(
    encoder: Encoder,
    card: ModelCard,
    seed: int,
    tasks: Sequence[TaskCard],
    settings: Settings,
    progress: Progress | None = None,
    read: Mapping[str, Examples] | None = None,
) -> list[Result]:
    """Results of a loaded model, as `evaluate` gives them; `seed` is its training seed, `read` data that were read."""
    model = _Model(
        encoder,
        card,
        seed,
        progress,
        FeatureCache(settings.cache, settings.say),
        settings.runtime.batch_size,
        settings.ranks,
    )
    pipeline = Pipeline(
        model,
        settings.results,
        settings.data_root,
        settings.limit,
        settings.force,
        settings.ranks,
        settings.say,
        dict(read or {}),
    )
    return [model.result(pipeline, task) for task in tasks]


@dataclass
class _Model:
    """Candidate that is one loaded model (see `sparc_bench.evaluation.pipeline.Candidate`)."""

    encoder: Encoder
    card: ModelCard
    seed: int
    progress: Progress | None
    cache: FeatureCache
    at_once: int
    ranks: Ranks
    _bar: TaskID = field(init=False)

    @property
    def opens_images(self) -> bool:
        """Whether the encoder looks at photos; stored vectors do not."""
        return self.encoder.opens_images

    def result(self, pipeline: Pipeline, card: TaskCard) -> Result:
        """The result of one task, or the sentence of its error."""
        if self.progress is not None:
            self._bar = self.progress.add_task(f"{self.card.name} on {card.name}", total=None)
        try:
            task = bind(card)
            self._refuse_lacking(task)
            return pipeline.result(task)
        except UserError as error:
            return Result(self.card.name, card.name, error=str(error))
        finally:
            self.cache.flush()
            if self.progress is not None:
                self.progress.remove_task(self._bar)

    def provenance(self, task: BoundTask, data: Examples) -> Provenance:
        """The provenance of the encoder's record, with the rounding of its cached patches."""
        rounded = self.cache.rounds(self.encoder, data) and "patches" in task.protocol.NEEDS | image_need(self.encoder)
        return Provenance.of_encoder(self.encoder, "float16" if rounded else "float32")

    @contextmanager
    def scorer(self, task: BoundTask, data: Examples) -> Iterator[Scorer]:
        """The protocol, run on the encoder behind the feature cache; images are counted in the progress bar."""
        encoder = FiniteEncoder(self.cache.around(self.encoder, data))
        watched = WatchedEncoder(encoder, self._counted(task.card, data))

        def found(store: BlockStore, ranks: Ranks) -> Predictions | Encoder:
            return predicted(task.protocol, watched, data, task.options, store, self.at_once, ranks)

        hashed = self.encoder.identity is not None or self.encoder.code_hash is not None
        yield Scorer(found, watched, has_towers=True, at_once=self.at_once, goes_on=hashed)

    def _refuse_lacking(self, task: BoundTask) -> None:
        missing = task.protocol.NEEDS - self.encoder.gives
        if missing:
            raise UserError(
                f"{task.card.name} needs {', '.join(sorted(missing))} of a model, which {self.card.name} does not "
                "give: leave this task out."
            )

    def _counted(self, card: TaskCard, data: Examples) -> Callable[[int], None]:
        """Function that counts images in the progress bar of the task."""
        if self.progress is None:
            return lambda _: None
        passes = 2 if "untrained" in card.reference_rows else 1
        lazy = isinstance(data.examples, LazyExamples)
        images = len(data) if lazy else len({example.view.key for example in data})
        self.progress.reset(self._bar, total=passes * images // self.ranks.world)
        return partial(self.progress.advance, self._bar)
