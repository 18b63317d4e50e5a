"""Comparison of records with the published numbers of model cards.

A number is compared only with a record of the whole benchmark under the task's protocol as it is now: never with one of
--limit, of a sample, or of another protocol. Everything is a fraction; differences and tolerances print in points
(hundredths).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard, Published
from sparc_bench.cards.model_names import typed_name
from sparc_bench.errors import UserError, nearest
from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.metrics.unit import Unit, in_unit
from sparc_bench.records.record import Record, read_record, record_path


@dataclass(frozen=True)
class Reproduction:
    """Published number of a model, with the value of our record.

    Attributes:
        model: name of the card.
        published: the number, its tolerance and its source.
        ours: the record's value.
        precision: of our forward pass.
        unit: of the metric.
    """

    model: str
    published: Published
    ours: float
    precision: str = "float32"
    unit: Unit = "percent"

    @property
    def difference(self) -> float:
        """Our value minus the published one."""
        return self.ours - self.published.value

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance; numbers are known to 0.01 points, and records to less."""
        return abs(self.difference) <= self.published.tolerance + 1e-9


@dataclass(frozen=True)
class Agreement:
    """All published numbers of some models.

    Attributes:
        compared: those with a record.
        waiting: model -> its numbers without one.
        other: sentences about records that cannot be compared.
    """

    compared: tuple[Reproduction, ...]
    waiting: dict[str, tuple[Published, ...]]
    other: tuple[str, ...] = ()

    @property
    def disagreeing(self) -> tuple[Reproduction, ...]:
        """Comparisons out of tolerance."""
        return tuple(each for each in self.compared if not each.agrees)


def compare(cards: Sequence[ModelCard], results: Path) -> Agreement:
    """Every published number of the cards beside the record of its model and task, where there is one."""
    compared: list[Reproduction] = []
    waiting: dict[str, tuple[Published, ...]] = {}
    other: list[str] = []
    tasks = {row.task for card in cards for row in card.published}
    current = {task: bind(discovery.task(task), discovery.declared).protocol_hash(None) for task in tasks}
    for card in cards:
        found: dict[str, Record | None] = {}
        for task in dict.fromkeys(row.task for row in card.published):
            found[task], reasons = _record(card, task, results, current[task])
            other += reasons
        values = [(row, record, _value(card, row, record)) for row in card.published if (record := found[row.task])]
        compared += [
            Reproduction(card.name, row, value, record.precision, record.metrics[MetricName(row.metric)].unit)
            for row, record, value in values
            if value is not None
        ]
        valued = {id(row) for row, _, value in values if value is not None}
        missing = tuple(row for row in card.published if id(row) not in valued)
        if missing:
            waiting[card.name] = missing
    return Agreement(tuple(compared), waiting, tuple(other))


def refuse_odd(card: ModelCard) -> None:
    """Raise UserError for a published number that no record can be compared with."""
    known = discovery.names("tasks")
    seen: set[tuple[str, str]] = set()
    for task in dict.fromkeys(row.task for row in card.published):
        if task not in known:
            raise UserError(
                f"Model {card.name}: there is no task '{task}': {nearest(task, known, 'sparc-bench list tasks')}"
            )
        if discovery.task(task).sample:
            raise UserError(
                f"Model {card.name}: {task} is a sample, whose records are not compared with published numbers: name "
                "the whole benchmark's task."
            )
    for row in card.published:
        where = f"Model {card.name}: the published {row.task} {row.metric}"
        if (row.task, row.metric) in seen:
            raise UserError(f"{where} stands there twice: keep one, and name the other source in its text.")
        if not 0 <= row.value <= 1:
            raise UserError(f"{where} is {row.value}, which is no fraction: write 0.633 for 63.3 %.")
        if not 0 < row.tolerance < 0.1:
            raise UserError(
                f"{where} has the tolerance {row.tolerance}: write a fraction, such as 0.002 for 0.2 points."
            )
        if not row.source.strip():
            raise UserError(f"{where} has no source: say where the number stands.")
        seen.add((row.task, row.metric))


def cards() -> list[ModelCard]:
    """The model cards with published numbers, by name."""
    found = (discovery.model(name) for name in discovery.names("models"))
    return [card for card in found if isinstance(card, ModelCard) and card.published]


def _record(card: ModelCard, task: str, results: Path, protocol_hash: str) -> tuple[Record | None, list[str]]:
    """Record that numbers may be compared with, and the reasons against others."""
    reasons = []
    for name in dict.fromkeys((card.name, typed_name(card))):
        path = record_path(results, name, 0, task, sample=False, limit=None)
        if not path.is_file():
            continue
        record = read_record(path)
        if record.limit is not None or record.sample:
            reasons.append(f"{path} is of a part of the benchmark and is not compared.")
        elif record.protocol_hash != protocol_hash:
            again = f"sparc-bench eval {name} --task {task}"
            reasons.append(f"{path} is of another protocol than {task} has now and is not compared: run {again}.")
        else:
            return record, reasons
    return None, reasons


def _value(card: ModelCard, row: Published, record: Record) -> float | None:
    if row.metric not in record.metrics:
        known = nearest(row.metric, record.metrics)
        raise UserError(f"Model {card.name}: {row.task} has no metric '{row.metric}': {known}")
    return record.metrics[MetricName(row.metric)].value


def table(rows: Sequence[Reproduction]) -> Table:
    """One line for each comparison."""
    drawn = _drawn(("model", "task", "metric"), ("published", "ours", "difference", "tolerance"), ("agrees",))
    for row in rows:
        precision = "" if row.precision == "float32" else f" ({row.precision})"
        drawn.add_row(
            row.model,
            row.published.task,
            row.published.metric,
            in_unit(row.published.value, row.unit, further=1),
            in_unit(row.ours, row.unit, further=1) + precision,
            in_unit(row.difference, row.unit, signed=True, further=1),
            in_unit(row.published.tolerance, row.unit, further=1),
            "yes" if row.agrees else "NO",
            row.published.source,
        )
    return drawn


def numbers_of(card: ModelCard) -> Table:
    """The published numbers of a card, in percent."""
    drawn = _drawn(("task", "metric"), ("published", "tolerance"))
    for row in card.published:
        value, tolerance = (in_unit(number, further=1) for number in (row.value, row.tolerance))
        drawn.add_row(row.task, row.metric, value, tolerance, row.source)
    return drawn


def _drawn(names: Sequence[str], numbers: Sequence[str], marks: Sequence[str] = ()) -> Table:
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for column in names:
        drawn.add_column(column, overflow="fold")
    for column in numbers:
        drawn.add_column(column, justify="right", no_wrap=True)
    for column in marks:
        drawn.add_column(column, no_wrap=True)
    drawn.add_column("source", overflow="fold", style="dim")
    return drawn


def render(agreement: Agreement) -> RenderableType:
    """Tables of the comparisons, the verdict, and the numbers that wait for a record."""
    parts: list[RenderableType] = []
    if agreement.compared:
        off = len(agreement.disagreeing)
        verdict = f"{off} of {len(agreement.compared)} numbers disagree" if off else "All numbers agree"
        parts += [table(agreement.compared), Text(f"{verdict} (percent; differences in points).")]
    parts += [Text(sentence) for sentence in agreement.other]
    if agreement.waiting:
        model, numbers = next(iter(agreement.waiting.items()))
        count = sum(len(rows) for rows in agreement.waiting.values())
        parts.append(
            Text(
                f"{count} published numbers of {len(agreement.waiting)} models have no record to compare: run "
                f"sparc-bench eval {model} --task {numbers[0].task} --data-root PATH, and so on (the numbers of each: "
                "sparc-bench show MODEL)."
            )
        )
    if not parts:
        parts.append(Text("No model card has published numbers."))
    return Group(*parts)
