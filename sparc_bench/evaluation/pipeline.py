"""Pipeline from a candidate and a task to a record: read the data, check them, score, add reference rows, write.

A model (`evaluate`) and a file of another system's outputs (`score`) go the same way; each is a `Candidate`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sparc_bench.blocks.block_store import SUFFIX, BlockFolder, BlocksInMemory, BlockStore
from sparc_bench.blocks.predicted import outcome_from
from sparc_bench.blocks.ranks import Alone, Ranks, by_first, from_first
from sparc_bench.cards.binding import BoundTask
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.evaluation import new_record
from sparc_bench.evaluation.new_record import Provenance
from sparc_bench.evaluation.reference_rows import reference_rows
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.evaluation.token_marks import token_mark_notes
from sparc_bench.feature_cache.cache import to_stderr
from sparc_bench.protocol import Outcome, Predictions
from sparc_bench.records.record import Record, record_path


@dataclass(frozen=True)
class Result:
    """Result of one task.

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


class Candidate(Protocol):
    """Subject of an evaluation: a model, or another system by its file of outputs.

    Attributes:
        card: its name and title, and what it was trained on.
        seed: that it was trained with.
    """

    card: ModelCard
    seed: int

    @property
    def opens_images(self) -> bool:
        """Whether it looks at photos."""
        ...

    def provenance(self, task: BoundTask, data: Examples) -> Provenance:
        """Provenance of its numbers on this task."""
        ...

    def scorer(self, task: BoundTask, data: Examples) -> AbstractContextManager[Scorer]:
        """The candidate made ready for this task; what that takes is released at the end."""
        ...


@dataclass
class Pipeline:
    """One candidate, the options of its evaluation, and the data splits read so far.

    Attributes:
        candidate: what is evaluated.
        results: folder of the records.
        data_root: folder with one folder per data set, or None.
        limit: only so many examples, for testing.
        force: replace a record whose inputs are all the same.
        ranks: the processes that share the work; the first one scores and writes.
        say: function that shows the user a sentence.
        splits: those read so far, by `split_key`.
    """

    candidate: Candidate
    results: Path
    data_root: Path | None = None
    limit: int | None = None
    force: bool = False
    ranks: Ranks = field(default_factory=Alone)
    say: Callable[[str], None] = to_stderr
    splits: dict[str, Examples] = field(default_factory=dict)

    def result(self, task: BoundTask) -> Result:
        """The record of one task: the one that lies there, if its inputs are the same, or a new one.

        Raises:
            UserError: the data are not on disk or not those of the card, or the task's options do not fit.
        """
        card, model = task.card, self.candidate.card
        data = self.ranks.together(lambda: self._data(task))
        provenance = self.candidate.provenance(task, data)
        bare = new_record.bare_record(task, data, model, self.candidate.seed, provenance, self.limit)
        path = record_path(
            self.results, model.name, self.candidate.seed, card.name, sample=card.sample, limit=self.limit
        )
        kept = None if self.force else from_first(self.ranks, lambda: self._kept(path, bare))
        if kept is not None:
            return Result(model.name, card.name, kept, path, kept=True)
        with ExitStack() as stack:
            scorer = stack.enter_context(self.candidate.scorer(task, data))
            store = self._store(path, bare, scorer, stack)
            record = self._scored(task, data, bare, provenance, scorer, store)
            if record is not None:
                new_record.write(path, *record)
                if isinstance(store, BlockFolder):
                    store.remove()
        return Result(model.name, card.name, None if record is None else record[0], path)

    def _kept(self, path: Path, bare: Record) -> Record | None:
        """The record that lies there with the same inputs; a kill may have left its blocks beside it, which go."""
        kept = new_record.kept(path, bare)
        left = BlockFolder(path.with_suffix(SUFFIX), "", self.say)
        if kept is not None and left.folder.exists():
            with suppress(UserError), left.held():  # they may also be those of a process that makes the record anew
                left.remove()
        return kept

    def _store(self, path: Path, bare: Record, scorer: Scorer, stack: ExitStack) -> BlockStore:
        """Where the blocks lie until the record is there; `stack` holds the lock of a folder."""
        if not scorer.goes_on and self.ranks.world == 1:
            return BlocksInMemory()
        inputs = json.dumps({"block": scorer.at_once, "record": bare.model_dump(mode="json")}, indent=1)
        folder = BlockFolder(path.with_suffix(SUFFIX), inputs, self.say)

        def claim() -> None:
            stack.enter_context(folder.held())
            if scorer.goes_on:
                folder.claim()
            else:  # code without a hash may have changed
                folder.remove()

        by_first(self.ranks, claim)
        return folder

    def _data(self, task: BoundTask) -> Examples:
        key = split_key(task)
        if key not in self.splits:
            self.splits[key] = read_data(task, self.data_root, opens_images=self.candidate.opens_images)
        data = self.splits[key]
        check_counts(task.card, data.counts())
        return limited(data, self.limit, spread="splits" in task.protocol.DATA)

    def _scored(
        self,
        task: BoundTask,
        data: Examples,
        bare: Record,
        provenance: Provenance,
        scorer: Scorer,
        store: BlockStore,
    ) -> tuple[Record, bytes] | None:
        """Record and outcomes; None in all processes but the first."""
        start = time.perf_counter()
        predictions = scorer.predicted(store, self.ranks)
        outcome = by_first(self.ranks, lambda: self._outcome(task, data, bare, predictions))
        seconds = time.perf_counter() - start
        reference, notes = reference_rows(task, data, outcome, scorer, store, self.ranks)
        if outcome is None:
            return None
        if bare.patch_precision != "float32":
            notes.append(f"Patch vectors were rounded to {bare.patch_precision}, as the feature cache kept them.")
        if scorer.has_towers:
            notes += token_mark_notes(data)
        return new_record.finished(bare, task, data, outcome, reference, notes, seconds, provenance.train_words)

    def _outcome(self, task: BoundTask, data: Examples, bare: Record, predictions: Predictions | Encoder) -> Outcome:
        outcome = outcome_from(task.protocol, predictions, data, task.options)
        new_record.headline(bare, outcome)
        return outcome


def split_key(task: BoundTask) -> str:
    """Name of a task's data: its data set, split and reader's options."""
    return f"{task.card.dataset}:{task.card.split}:{task.data_options.model_dump_json()}"


def read_data(task: BoundTask, data_root: Path | None, *, opens_images: bool) -> Examples:
    """The data split of a task; where no image is opened, photos that are not on disk are kept, with a note.

    Raises:
        UserError: the data are not on disk, or malformed.
    """
    options = task.data_options
    if not opens_images and getattr(options, "absent", None) == "refuse":
        options = options.model_copy(update={"absent": "keep"})
    data: Examples = task.dataset.read(data_root, task.card.split, options)
    return data


def limited(data: Examples, limit: int | None, spread: bool = False) -> Examples:
    """The first `limit` examples, without groups that the cut would split.

    With `spread` they are taken evenly from all: the first ones would all be of a probe's train part.
    """
    if limit is None or limit >= len(data):
        return data
    first = [index * len(data) // limit for index in range(limit)] if spread else list(range(limit))
    group_of = list(data.take(first).values("group"))
    whole, here = Counter(data.values("group")), Counter(group_of)
    chosen = [index for index, of in zip(first, group_of, strict=True) if of is None or here[of] == whole[of]]
    if not chosen:
        raise UserError(f"--limit {limit} leaves no whole group of {data.dataset}: give a larger number.")
    return data.take(chosen)
