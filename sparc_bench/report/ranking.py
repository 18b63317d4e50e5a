"""All records of a folder as sections in which rows may be ranked.

One section holds one metric of one protocol hash, on one data hash, of models with the same kind of exposure: nothing
else is ranked together. Samples have sections of their own; records of --limit have none. The seeds of one recipe are
one row; what another version of a recipe trained is a row of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.metrics.unit import Unit, in_unit
from sparc_bench.records.exposure import Exposure, Kind
from sparc_bench.records.record import DIGITS, OUTPUTS, ClassesSeen, Record
from sparc_bench.records.record_file import Recorded, pooled, read_all

CEILINGS = frozenset({"oracle", "ceiling", "human"})
"""Reference rows that stand above a model; every other one is a floor that a result has to clear."""

OUTPUTS_TITLE = "outputs of other systems"
"""Title of the tables of outputs, which are never ranked among models that were run here."""

EXPOSURES: Mapping[Kind, str] = {
    "none": "no training data of this data set",
    "domain": "trained on other photos of this data set or source",
    "seen": "these images were seen in training, all or some",
    "unknown": "not known whether these images were seen in training",
}


@dataclass(frozen=True)
class Row:
    """One model in a section; several seeds of one recipe are one row.

    Attributes:
        model: name of the card; where there are rows of several versions of its recipe, with the hash of the version.
        value: mean over seeds.
        low: lower end of the 95 % interval, over seeds and images; of a single seed over images.
        high: upper end.
        seeds: which.
        seed_values: value of each.
        seed_intervals: interval of each, over images.
        recipe: hash of the recipe, or of the model card of what was not trained here.
        trained_here: a model of a recipe, for which seeds mean something.
        trained_path: whether a loss trained the patch path that the metric reads.
        floor: name and value of the highest floor among its reference rows, None without one.
        exposure: what it saw of the images.
        classes_seen: the metric over classes that its training captions name, and over the others (mean over seeds).
        rank: 1 + the number of rows whose interval lies wholly above this one's.
        outputs: another system's outputs, not a model.
        unit: of the values.
    """

    model: str
    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    seed_values: tuple[float, ...]
    seed_intervals: tuple[tuple[float, float], ...]
    recipe: str
    trained_here: bool
    trained_path: bool
    floor: tuple[str, float] | None
    exposure: Exposure
    classes_seen: ClassesSeen | None = None
    rank: int = 0
    outputs: bool = False
    unit: Unit = "percent"

    @property
    def clear(self) -> bool:
        """Whether the interval lies above every floor."""
        return self.floor is None or self.low > self.floor[1]

    @property
    def one_seed(self) -> bool:
        """Whether there could be more seeds, so that the interval lacks the spread between them."""
        return self.trained_here and len(self.seeds) == 1


@dataclass(frozen=True)
class ReferenceRow:
    """Reference row of a section.

    Attributes:
        kind: such as `constant`.
        value: of the section's metric.
        model: label of the row that it belongs to; empty where it is the same for all rows.
    """

    kind: str
    value: float
    model: str = ""

    @property
    def label(self) -> str:
        """Kind, with the model that it belongs to."""
        return f"{self.kind} ({self.model})" if self.model else self.kind


@dataclass(frozen=True)
class Section:
    """Rows that may be ranked together, best first, and their reference rows.

    Attributes:
        task: name of the task.
        title: its title.
        dataset: that it is on.
        family: its family.
        metric: which metric of it.
        main: whether that is the headline itself, not its twin on another patch path.
        sample: only a part of the benchmark.
        n: images.
        protocol_hash: of all its rows.
        data_hash: of all its rows.
        exposure: kind of exposure of all its rows.
        outputs: its rows are outputs of other systems, not models.
        rows: the models.
        reference_rows: highest first.
        unit: of the metric.
    """

    task: str
    title: str
    dataset: str
    family: str
    metric: MetricName
    main: bool
    sample: bool
    n: int
    protocol_hash: str
    data_hash: str
    exposure: Kind
    rows: tuple[Row, ...]
    reference_rows: tuple[ReferenceRow, ...]
    outputs: bool = False
    unit: Unit = "percent"

    @property
    def heading(self) -> str:
        """Title, what is measured, on how much, under which exposure."""
        size = f"@sample n={self.n}" if self.sample else f"n={self.n}"
        whose = f"; {OUTPUTS_TITLE}" if self.outputs else ""
        return f"{self.title}: {self.metric} ({size}; {EXPOSURES[self.exposure]}{whose})"

    def remarks(self) -> list[str]:
        """Sentences about exposure, reference rows, overlaps, untrained paths, unseen classes and single seeds."""
        sentences = []
        if self.exposure == "seen":
            counts = "; ".join(f"{row.model} ({row.exposure})" for row in self.rows)
            sentences.append(f"Not zero-shot, so that these rows are ranked apart: {counts}.")
        unclear = [row for row in self.rows if not row.clear and row.floor]
        if unclear:
            floors = [(row, *row.floor) for row in unclear if row.floor]
            named = "; ".join(f"{row.model} ({name}: {in_unit(value, row.unit)})" for row, name, value in floors)
            sentences.append(f"Not clear of its reference rows: {named}.")
        if len(self.rows) > 1:
            sentences.append(self.ahead())
        untrained = [row.model for row in self.rows if not row.trained_path]
        if untrained:
            sentences.append(f"Untrained path (no loss trained these patch vectors): {', '.join(untrained)}.")
        sentences += [sentence for row in self.rows for sentence in _unseen(row)]
        single = [row.model for row in self.rows if row.one_seed]
        if single:
            sentences.append(
                f"One seed only, so that the spread between trainings is not in the interval: {', '.join(single)}."
            )
        return sentences

    def ahead(self) -> str:
        """A sentence: the row that is ahead of the others, or that none is."""
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
    value = in_unit(classes.unseen, row.unit)
    unseen = f"{value} on the {classes.unseen_classes} classes that its training captions never name"
    seen = "" if classes.seen is None else f", {in_unit(classes.seen, row.unit)} on the other {classes.seen_classes}"
    return [f"{row.model}: {unseen}{seen}."]


def build(results: Path) -> list[Section]:
    """The sections of all records under a folder (see `sections_of`).

    Raises:
        UserError: a damaged record, or several seeds without the outcomes of every example.
    """
    return sections_of(read_all(results))


def sections_of(found: Sequence[Recorded]) -> list[Section]:
    """Records as sections, whole benchmarks before samples, in a fixed order."""
    keyed: dict[tuple[MetricName, tuple[str, ...]], list[Recorded]] = {}
    for each in found:
        record = each.record
        for metric in record.headline_metrics:
            key = (
                "sample" if record.sample else "",
                record.task_family,
                record.task,
                record.protocol_hash,
                record.data_hash,
                record.exposure.kind,
                "outputs" if _is_outputs(record) else "",
            )
            keyed.setdefault((metric, key), []).append(each)
    versions: dict[str, set[str]] = {}
    for each in found:
        if not _is_outputs(each.record):
            versions.setdefault(each.record.model, set()).add(each.recipe)
    several = {model for model, recipes in versions.items() if len(recipes) > 1}
    sections = [_section(members, metric, several) for (metric, _), members in keyed.items()]
    return sorted(
        sections,
        key=lambda s: (
            *(s.sample, s.family, s.task, s.outputs, s.protocol_hash, s.data_hash, s.exposure, not s.main, s.metric),
        ),
    )


def _is_outputs(record: Record) -> bool:
    return record.model_family == OUTPUTS


def ranked(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows, best first, each with its rank among them."""
    return tuple(
        replace(row, rank=1 + sum(other.low > row.high for other in rows))
        for row in sorted(rows, key=lambda row: (-row.value, row.model))
    )


def _section(members: Sequence[Recorded], metric: MetricName, several: Collection[str]) -> Section:
    first = members[0].record
    recipes: dict[str, list[Recorded]] = {}
    for each in members:
        version = f" (recipe {each.recipe[:8]})" if each.record.model in several else ""
        recipes.setdefault(each.record.model + version, []).append(each)
    rows = [row for label in sorted(recipes) if (row := _row(label, recipes[label], metric)) is not None]
    return Section(
        task=first.task,
        title=first.title,
        dataset=first.dataset,
        family=first.task_family,
        metric=metric,
        main=metric == first.headline_metrics[0],
        sample=first.sample,
        n=first.n,
        protocol_hash=first.protocol_hash,
        data_hash=first.data_hash,
        unit=first.metrics[metric].unit,
        exposure=first.exposure.kind,
        rows=ranked(rows),
        reference_rows=_reference_rows({label: [each.record for each in of] for label, of in recipes.items()}, metric),
        outputs=_is_outputs(first),
    )


def _row(label: str, seeds: Sequence[Recorded], metric: MetricName) -> Row | None:
    """The seeds of one recipe; None where there was nothing to average."""
    ordered, numbers = [], []
    for each in sorted(seeds, key=lambda each: each.record.seed):
        found = each.record.metrics[metric]
        if found.value is not None and found.low is not None and found.high is not None:
            ordered.append(each)
            numbers.append((found.value, found.low, found.high))
    if not numbers:
        return None
    value, low, high = numbers[0]
    if len(ordered) > 1:
        estimate = pooled(ordered, metric)
        value, low, high = (round(number, DIGITS) for number in (estimate.value, estimate.low, estimate.high))
    of_seeds = [each.record for each in ordered]
    floors = [(name, v) for name, v in mean_references(of_seeds, metric).items() if name not in CEILINGS]
    return Row(
        model=label,
        value=value,
        low=low,
        high=high,
        seeds=tuple(record.seed for record in of_seeds),
        seed_values=tuple(value for value, _, _ in numbers),
        seed_intervals=tuple((low, high) for _, low, high in numbers),
        recipe=ordered[0].recipe,
        trained_here=of_seeds[0].model_family == "own",
        outputs=_is_outputs(of_seeds[0]),
        exposure=of_seeds[0].exposure,
        trained_path=of_seeds[0].trained_for(metric),
        unit=of_seeds[0].metrics[metric].unit,
        floor=max(floors, key=lambda floor: floor[1]) if floors else None,
        classes_seen=_mean_classes([s for record in of_seeds if (s := record.classes_seen) and s.metric == metric]),
    )


def _mean_classes(seeds: Sequence[ClassesSeen]) -> ClassesSeen | None:
    if not seeds:
        return None
    means = {}
    for key in ("seen", "unseen"):
        values = [value for each in seeds if (value := getattr(each, key)) is not None]
        means[key] = sum(values) / len(values) if values else None
    return seeds[0].model_copy(update=means)


def reference_values(record: Record, metric: str) -> dict[str, float]:
    """Reference row -> its value of a metric; a row that knows no patch paths gives its one value for all of them."""
    named = MetricName(metric)
    rows = {}
    known = record.reference_rows
    for name, values in {**known, "chance": {**record.chance, **known.get("chance", {})}}.items():
        value = values.get(named, values.get(named.metric) if named.path in record.paths else None)
        if value is not None:
            rows[name] = value
    return rows


def mean_references(seeds: Sequence[Record], metric: MetricName) -> dict[str, float]:
    """Reference row -> mean over the seeds of a recipe that have it."""
    values: dict[str, list[float]] = {}
    for record in seeds:
        for name, value in reference_values(record, metric).items():
            values.setdefault(name, []).append(value)
    return {name: of[0] if len(set(of)) == 1 else sum(of) / len(of) for name, of in values.items()}


def _reference_rows(by_row: Mapping[str, Sequence[Record]], metric: MetricName) -> tuple[ReferenceRow, ...]:
    """Rows that are equal for all models stand once; others name the model that they belong to."""
    by_kind: dict[str, dict[str, float]] = {}
    for label, seeds in by_row.items():
        for kind, value in mean_references(seeds, metric).items():
            by_kind.setdefault(kind, {})[label] = value
    rows: list[ReferenceRow] = []
    for kind, values in by_kind.items():
        alike = len(set(values.values())) == 1 and len(values) == len(by_row)
        if alike and (len(by_row) == 1 or kind != "untrained"):
            rows.append(ReferenceRow(kind, next(iter(values.values()))))
        else:
            rows += [ReferenceRow(kind, value, label) for label, value in values.items()]
    return tuple(sorted(rows, key=lambda row: (-row.value, row.label)))
