"""All records of a folder as sections in which rows may be ranked.

One section holds one metric of one protocol hash, on one data hash, of models with the same kind of exposure: nothing
else is ranked together. Samples have sections of their own; records of --limit have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparc_bench import records
from sparc_bench.records import ClassesSeen, Record

CEILINGS = frozenset({"oracle", "ceiling", "human"})
"""Reference rows that stand above a model; every other one is a floor that a result has to clear."""

EXPOSURES = {
    "none": "no training data of this data set",
    "domain": "trained on another split of this data set",
    "seen": "these images were seen in training",
    "unknown": "training data unknown",
}


@dataclass(frozen=True)
class Row:
    """One model in a section; several seeds of it are one row.

    Attributes:
        model: name of the card.
        value: mean over seeds.
        low: lower end of the 95 % interval over images; of several seeds the lowest.
        high: upper end likewise.
        seeds: which.
        seed_values: value of each.
        trained_here: a model of a recipe, for which seeds mean something.
        trained_path: whether a loss trained the patch path that the metric reads.
        floor: name and value of the highest floor among its reference rows, None without one.
        classes_seen: the metric over classes that its training captions name, and over the others (first seed).
        rank: 1 + the number of rows whose interval lies wholly above this one's.
    """

    model: str
    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    seed_values: tuple[float, ...]
    trained_here: bool
    trained_path: bool
    floor: tuple[str, float] | None
    classes_seen: ClassesSeen | None = None
    rank: int = 0

    @property
    def clear(self) -> bool:
        """Whether the interval lies above every floor."""
        return self.floor is None or self.low > self.floor[1]


@dataclass(frozen=True)
class Section:
    """Rows that may be ranked together, best first, and their reference rows.

    Attributes:
        task: name of the task.
        title: its title.
        family: its family.
        metric: which metric of it.
        main: whether that is the headline itself, not its twin on another patch path.
        sample: only a part of the benchmark.
        n: images.
        protocol_hash: of all its rows.
        data_hash: of all its rows.
        exposure: kind of exposure of all its rows.
        rows: the models.
        references: (label, value), highest first.
    """

    task: str
    title: str
    family: str
    metric: str
    main: bool
    sample: bool
    n: int
    protocol_hash: str
    data_hash: str
    exposure: str
    rows: tuple[Row, ...]
    references: tuple[tuple[str, float], ...]

    @property
    def heading(self) -> str:
        """Title, what is measured, on how much, under which exposure."""
        size = f"@sample n={self.n}" if self.sample else f"n={self.n}"
        return f"{self.title}: {self.metric} ({size}; {EXPOSURES[self.exposure]})"

    def remarks(self) -> list[str]:
        """The sentences that a reader must not miss."""
        sentences = []
        unclear = [row for row in self.rows if not row.clear and row.floor]
        if unclear:
            named = "; ".join(f"{row.model} ({row.floor[0]}: {percent(row.floor[1])})" for row in unclear if row.floor)
            sentences.append(f"Not clear of its reference rows: {named}.")
        if len(self.rows) > 1:
            sentences.append(self._ahead())
        untrained = [row.model for row in self.rows if not row.trained_path]
        if untrained:
            sentences.append(f"Untrained path (no loss trained these patch vectors): {', '.join(untrained)}.")
        sentences += [sentence for row in self.rows for sentence in _unseen(row)]
        single = [row.model for row in self.rows if row.trained_here and len(row.seeds) == 1]
        if single:
            sentences.append(
                f"One seed only, so that the spread between trainings is not in the interval: {', '.join(single)}."
            )
        return sentences

    def _ahead(self) -> str:
        first, *others = self.rows
        if all(first.low > other.high for other in others):
            but = "" if first.clear else ", yet not clear of its reference rows"
            return f"{first.model} is ahead of the others (its interval lies above theirs){but}."
        near = [other.model for other in others if first.low <= other.high]
        return (
            f"No winner: the intervals of {', '.join([first.model, *near])} overlap; sparc-bench compare gives their "
            "paired difference."
        )


def _unseen(row: Row) -> list[str]:
    classes = row.classes_seen
    if classes is None or classes.unseen is None:
        return []
    unseen = f"{percent(classes.unseen)} on the {classes.unseen_classes} classes that its training captions never name"
    seen = "" if classes.seen is None else f", {percent(classes.seen)} on the other {classes.seen_classes}"
    return [f"{row.model}: {unseen}{seen}."]


def build(results: Path) -> list[Section]:
    """The sections of all records under a folder, whole benchmarks before samples, in a fixed order."""
    found = [records.read_record(path) for path in records.record_files(results)]
    keyed: dict[tuple[str, ...], list[Record]] = {}
    for record in found:
        if record.limit is not None:
            continue
        for metric in record.headline_metrics:
            key = (
                "sample" if record.sample else "",
                record.task_family,
                record.task,
                record.protocol_hash,
                record.data_hash,
                record.exposure_kind,
                metric,
            )
            keyed.setdefault(key, []).append(record)
    sections = [_section(members, key[-1]) for key, members in keyed.items()]
    return sorted(
        sections,
        key=lambda s: (s.sample, s.family, s.task, s.protocol_hash, s.data_hash, s.exposure, not s.main, s.metric),
    )


def _section(members: Sequence[Record], metric: str) -> Section:
    first = members[0]
    by_model: dict[str, list[Record]] = {}
    for record in members:
        by_model.setdefault(record.model, []).append(record)
    rows = [row for name in sorted(by_model) if (row := _row(by_model[name], metric)) is not None]
    ranked = [
        Row(**{**vars(row), "rank": 1 + sum(other.low > row.high for other in rows)})
        for row in sorted(rows, key=lambda row: (-row.value, row.model))
    ]
    return Section(
        task=first.task,
        title=first.title,
        family=first.task_family,
        metric=metric,
        main=metric == first.headline,
        sample=first.sample,
        n=first.n,
        protocol_hash=first.protocol_hash,
        data_hash=first.data_hash,
        exposure=first.exposure_kind,
        rows=tuple(ranked),
        references=_references(by_model, metric),
    )


def _row(seeds: Sequence[Record], metric: str) -> Row | None:
    """One model; None where there was nothing to average."""
    ordered = sorted(seeds, key=lambda record: record.seed)
    numbers = [
        (m.value, m.low, m.high)
        for m in (record.metrics[metric] for record in ordered)
        if m.value is not None and m.low is not None and m.high is not None
    ]
    if not numbers:
        return None
    floors = [
        (name, value)
        for record in ordered
        for name, value in reference_values(record, metric).items()
        if name not in CEILINGS
    ]
    return Row(
        model=ordered[0].model,
        value=sum(value for value, _, _ in numbers) / len(numbers),
        low=min(low for _, low, _ in numbers),
        high=max(high for _, _, high in numbers),
        seeds=tuple(record.seed for record in ordered),
        seed_values=tuple(value for value, _, _ in numbers),
        trained_here=ordered[0].model_family == "own",
        trained_path=ordered[0].paths.get(metric.rpartition("/")[0], True),
        floor=max(floors, key=lambda floor: floor[1]) if floors else None,
        classes_seen=seen if (seen := ordered[0].classes_seen) is not None and seen.metric == metric else None,
    )


def reference_values(record: Record, metric: str) -> dict[str, float]:
    """Reference row -> its value of a metric; a row that knows no patch paths gives its one value for all of them."""
    bare = metric.rpartition("/")[2]
    rows = {}
    for name, values in {**record.reference, "chance": {**record.chance, **record.reference.get("chance", {})}}.items():
        value = values.get(metric, values.get(bare) if metric.rpartition("/")[0] in record.paths else None)
        if value is not None:
            rows[name] = value
    return rows


def _references(by_model: Mapping[str, Sequence[Record]], metric: str) -> tuple[tuple[str, float], ...]:
    """Rows that are equal for all models stand once; others name the model (and seed) that they belong to."""
    named: dict[str, dict[str, float]] = {}
    for model, members in by_model.items():
        for record in members:
            owner = model if len(members) == 1 else f"{model} seed {record.seed}"
            for name, value in reference_values(record, metric).items():
                named.setdefault(name, {})[owner] = value
    everyone = sum(len(members) for members in by_model.values())
    rows: list[tuple[str, float]] = []
    for name, values in named.items():
        if len(set(values.values())) == 1 and (len(values) == everyone) and (everyone == 1 or name != "untrained"):
            rows.append((name, next(iter(values.values()))))
        else:
            rows += [(f"{name} ({owner})", value) for owner, value in values.items()]
    return tuple(sorted(rows, key=lambda row: (-row[1], row[0])))


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}"
