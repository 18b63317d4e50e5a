"""From an outcome to a record and its file of outcomes, for an encoder and for the outputs of another system alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparc_bench import __version__
from sparc_bench.cards.binding import BoundTask
from sparc_bench.cards.card import canonical_hash
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.prompts import class_words
from sparc_bench.catalogue.origins import origins
from sparc_bench.dataset import Examples
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError, nearest
from sparc_bench.evaluation.exposure import classes_seen, exposure
from sparc_bench.evaluation.reference_rows import estimated
from sparc_bench.files.atomic import write_atomic
from sparc_bench.metrics.estimate import METHOD
from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.protocol import Outcome
from sparc_bench.records import outcome_file
from sparc_bench.records.environment import git_state, library_versions
from sparc_bench.records.record import (
    SCHEMA,
    Record,
    headline_metrics,
    model_hash,
    read_record,
    recipe_hash,
    rounded_values,
    write_record,
)
from sparc_bench.records.renew_intervals import renewed


@dataclass(frozen=True)
class Provenance:
    """Origin of a record's numbers, beside the candidate's card.

    Attributes:
        weights_hash: sha256 of the weights, or of the file of outputs.
        precision: of the forward pass.
        device: where it ran.
        paths: patch path -> whether a loss trained it.
        recipe_hash: of a model that was trained here.
        encoder_hash: of what decides a vector beside the weights (options, preprocessing, code).
        patch_precision: as which patch vectors were scored.
        train_words: word -> in how many training captions it stands, where that is known.
    """

    weights_hash: str
    precision: str = "as given"
    device: str = "cpu"
    paths: Mapping[str, bool] = field(default_factory=dict)
    recipe_hash: str = ""
    encoder_hash: str = ""
    patch_precision: str = "float32"
    train_words: Mapping[str, int] | None = None

    @classmethod
    def of_encoder(cls, encoder: Encoder, patch_precision: str = "float32") -> Provenance:
        """The provenance of a model's record."""
        parts = {"identity": encoder.identity, "code_hash": encoder.code_hash}
        return cls(
            weights_hash=encoder.weights_hash,
            precision=encoder.precision,
            device=str(encoder.device),
            paths=dict(encoder.paths),
            recipe_hash=recipe_hash(encoder.recipe) if encoder.recipe else "",
            encoder_hash=canonical_hash(parts) if any(parts.values()) else "",
            patch_precision=patch_precision,
            train_words=encoder.train_words,
        )


def bare_record(
    task: BoundTask, data: Examples, card: ModelCard, seed: int, provenance: Provenance, limit: int | None
) -> Record:
    """The record as far as it is known before anything is scored."""
    task_card = task.card
    commit, dirty = git_state()
    lists = Counter(tags["split"] for tags in data.values("tags") if "split" in tags)
    return Record(
        schema_version=SCHEMA,
        model=card.name,
        model_title=card.title,
        model_family=card.family,
        model_hash=model_hash(card),
        recipe_hash=provenance.recipe_hash,
        weights_hash=provenance.weights_hash,
        encoder_hash=provenance.encoder_hash,
        paths=dict(provenance.paths),
        task=task_card.name,
        title=task_card.title,
        task_family=task_card.family,
        headline=task_card.headline,
        dataset=task_card.dataset,
        split=task_card.split,
        protocol=task_card.protocol,
        protocol_version=task.protocol.VERSION,
        protocol_hash=task.protocol_hash(limit),
        data_hash=data.fingerprint,
        interval_version=METHOD,
        outcome_hash="",
        package_version=__version__,
        commit=commit,
        dirty=dirty,
        seed=seed,
        precision=provenance.precision,
        patch_precision=provenance.patch_precision,
        device=provenance.device,
        libraries=library_versions(),
        sample=task_card.sample,
        limit=limit,
        n=len(data),
        counts={},
        ties=0,
        exposure=exposure(
            card.trained_on_here,
            task_card.dataset,
            task_card.split,
            data.image_count,
            lists,
            data.values("photo"),
            **origins(task_card, data.classes),
        ),
        chance=rounded_values(task_card.chance),
        metrics={},
        reference_rows={},
        groups={},
        notes=(),
        seconds=0.0,
    )


def headline(bare: Record, outcome: Outcome) -> list[MetricName]:
    """The metrics that the task's headline means in this outcome.

    Raises:
        UserError: there is none.
    """
    found = headline_metrics(bare.headline, outcome.metrics, bare.paths)
    if not found:
        hint = nearest(bare.headline, outcome.metrics)
        raise UserError(f"Task {bare.task} has no metric '{bare.headline}' for its headline: {hint}")
    if any(outcome.metrics[name].less_is_better for name in found):
        raise UserError(f"Task {bare.task}: '{bare.headline}' is an error, and tables rank by more: headline another.")
    return found


def finished(
    bare: Record,
    task: BoundTask,
    data: Examples,
    outcome: Outcome,
    reference: Mapping[str, Mapping[str, float]],
    notes: Sequence[str],
    seconds: float,
    train_words: Mapping[str, int] | None = None,
) -> tuple[Record, bytes]:
    """The record with its numbers, and the file of outcomes that belongs beside it."""
    main = headline(bare, outcome)
    metrics, groups = estimated(outcome)
    ids = list((data if outcome.scored is None else data.take(outcome.scored)).values("id"))
    outcomes, dropped = outcome_file.pack(ids, outcome.metrics, outcome.groups, outcome.examples, outcome.rows, main)
    said = [*data.notes, *outcome.notes, *notes]
    if dropped:
        said.append(f"The file of outcomes leaves out {', '.join(dropped)} to stay under 200 KB.")
    if bare.limit is not None:
        said.append(f"Testing only: --limit {bare.limit}.")
    words = _class_words(task, data)
    values = {group: statistic.value for group, statistic in outcome.groups.get("class", {}).items()}
    record = bare.model_copy(
        update={
            "outcome_hash": outcome_file.sha256(outcomes),
            "n": len(ids),
            "counts": dict(outcome.counts),
            "ties": outcome.ties,
            "metrics": metrics,
            "reference_rows": {name: dict(row) for name, row in reference.items()},
            "groups": groups,
            "classes_seen": classes_seen(main[0], words, train_words, values) if train_words else None,
            "notes": tuple(said),
            "seconds": round(seconds, 1),
        }
    )
    return record, outcomes


def write(path: Path, record: Record, outcomes: bytes) -> None:
    """Write the record and, first, its outcomes: a record whose outcomes are another one's counts as damaged."""
    write_atomic(path.with_suffix(".npz"), outcomes)
    write_record(path, record)


def kept(path: Path, bare: Record) -> Record | None:
    """The record that is there, if inputs are the same and outcomes lie beside it.

    Words, exposure and intervals of older methods are renewed.
    """
    if not (path.is_file() and path.with_suffix(".npz").is_file()):
        return None
    there = read_record(path)
    if not there.same_inputs(bare) or not headline_metrics(bare.headline, there.metrics, there.paths):
        return None
    if outcome_file.sha256(path.with_suffix(".npz").read_bytes()) != there.outcome_hash:
        return None
    if there.interval_version != METHOD:
        newer = renewed(path, there)
        if newer is None:
            return None
        there = newer
    keys = ("title", "model_title", "task_family", "headline", "chance", "recipe_hash", "exposure")
    fresh = there.model_copy(update={key: getattr(bare, key) for key in keys})
    if fresh != read_record(path):
        write_record(path, fresh)
    return fresh


def _class_words(task: BoundTask, data: Examples) -> dict[str, str]:
    named = getattr(task.options, "classes", "own")
    words = class_words(named, data.classes) if isinstance(named, str) else data.classes
    return dict(zip(data.classes, words, strict=True))
