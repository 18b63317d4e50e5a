"""The result record: one JSON file per (model, task), written by the program, reviewed, never edited.

Folders under `results/`: `<model>/` (seed 0), `<model>.seed<k>/`, `samples/<model>/` for tasks on part of a benchmark,
`testing/<model>/` for runs with --limit. Beside each record lies `<task>.npz` with the outcomes of every example.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from sparc_bench.cards.card import Strict, canonical_hash
from sparc_bench.cards.model_card import ModelCard
from sparc_bench.cards.name import ModelName, Name
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError
from sparc_bench.files.atomic import write_atomic
from sparc_bench.files.json_text import json_value
from sparc_bench.metrics.estimate import Estimate
from sparc_bench.metrics.metric_name import MetricName
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.metrics.unit import Unit
from sparc_bench.records.exposure import Exposure

SCHEMA = 1
DIGITS = 6
SAMPLES, TESTING = "samples", "testing"
OUTPUTS = "outputs"
"""Model family of records of another system's outputs, which have no model card."""

SHARES = frozenset({"mean", "class_mean", "iou", "average_precision", "auroc", "object_ap"})
"""Kinds of statistics that are shares of 1 by their definition, whatever a file says."""

Real = Annotated[float, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[int, Field(strict=True, ge=1)]

SINGLE_PRECISION = 1e-5
"""Distance by which outcomes in single precision may give another value or interval."""


class Finite(Strict):
    """A table whose numbers are finite: NaN would be above and below every other number."""

    model_config = ConfigDict(allow_inf_nan=False)


class Metric(Finite):
    """One number with its uncertainty; all fractions in 0..1; None where there was nothing to average."""

    value: Real | None
    se: Real | None = Field(ge=0)
    low: Real | None = Field(description="lower end of the 95 % interval")
    high: Real | None
    kind: str = Field(description="kind of statistic: mean, class_mean, iou, ...")
    n_clusters: Count = Field(description="images that hold anything that was scored")
    method: str = Field(
        description="wilson: of means; jackknife: of other statistics; equal: no image differs from another; in older "
        "records bootstrap over images, or wilson where no image differs"
    )
    bias: Real = Field(default=0.0, description="estimated excess of the value over its expectation on more images")
    unit: Unit = Field(default="percent", description="percent: a fraction of 1; number: printed as it is")
    less_is_better: bool = Field(strict=True, default=False, description="an error: never a headline")
    least: Real = Field(default=0.0, description="smallest possible value")
    most: Real | None = Field(
        default=None, description="largest possible value; without one a fraction is at most 1, others have no end"
    )

    @classmethod
    def of(cls, estimate: Estimate, statistic: Statistic) -> Metric:
        """Metric of a statistic and its estimate, rounded to six decimals.

        Raises:
            UserError: the value is outside the range that the statistic states.
        """
        ends = {name: _rounded(getattr(estimate, name)) for name in ("value", "se", "low", "high")}
        unit, less_is_better = statistic.unit, statistic.less_is_better
        try:
            return cls(
                **ends,
                kind=statistic.kind,
                n_clusters=estimate.clusters,
                method=estimate.method,
                bias=_rounded(estimate.bias) or 0.0,
                unit=unit,
                less_is_better=less_is_better,
                least=round(statistic.least, DIGITS),
                most=None if statistic.most == _usual_most(unit, less_is_better) else _rounded(statistic.most),
            )
        except ValidationError as error:
            raise UserError(
                f"A statistic of kind '{statistic.kind}' gives a record a number that it says is impossible "
                f"({_message(error)}): mend its `least` and `most`, or its values."
            ) from None

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest possible value."""
        return self.least, _usual_most(self.unit, self.less_is_better) if self.most is None else self.most

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        _refuse_misstated(self)
        for name in ("value", "low", "high"):
            _refuse_outside(name, getattr(self, name), self.range)
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        _refuse_apart(self)
        return self

    @model_validator(mode="before")
    @classmethod
    def _older_errors(cls, values: Any) -> Any:  # noqa: ANN401 - whatever a record holds
        """Records of mCE from before `less_is_better` lack it."""
        if isinstance(values, dict) and values.get("kind") == "corruption_error":
            return {"less_is_better": True, **values}
        return values

    @model_serializer(mode="wrap")
    def _as_in_older_records(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        usual = {"unit": "percent", "less_is_better": False, "bias": 0.0, "least": 0.0, "most": None}
        return {key: value for key, value in values.items() if key not in usual or value != usual[key]}


class ClassesSeen(Finite):
    """Headline over the classes whose words stand in the training captions, and over the other classes."""

    training_captions: dict[str, Count] = Field(description="class -> training captions that hold all of its words")
    metric: str
    seen: Real | None = Field(description="mean over classes with a count above 0")
    seen_classes: Count
    unseen: Real | None
    unseen_classes: Count


class Record(Finite):
    """Scores of one model on one task, with all that decides them."""

    schema_version: Whole
    model: ModelName
    model_title: str
    model_family: str
    model_hash: str = Field(description="of the model card, without title, source and published numbers")
    recipe_hash: str = Field(default="", description="of the recipe behind the weights; empty: not trained here")
    weights_hash: str
    encoder_hash: str = Field(
        default="",
        description="of all beside the weights that decides a vector: preprocessing, tokenizer, options, a plug-in's "
        "code; empty: not known",
    )
    paths: dict[str, bool] = Field(description="patch path -> whether a loss trained it")
    task: Name
    title: str
    task_family: str
    headline: MetricName
    dataset: str
    split: str
    protocol: str
    protocol_version: Whole
    protocol_hash: str
    data_hash: str
    interval_version: Whole = Field(
        default=1, description="version of the methods of intervals: 2; 1 is the bootstrap of older records"
    )
    outcome_hash: str = Field(description="sha256 of the .npz beside the record")
    package_version: str
    commit: str
    dirty: bool | None
    seed: Count
    precision: str
    patch_precision: str = Field(
        default="float32", description="what patch vectors were rounded to before they were scored: --cache half"
    )
    device: str
    libraries: dict[str, str]
    sample: bool = Field(strict=True)
    limit: Number | None = Field(description="a number: testing only, on so many of the images")
    n: Number = Field(description="images")
    counts: dict[str, Count]
    ties: Count
    exposure: Exposure = Field(description="none, domain, 'N images seen' or unknown")
    chance: dict[str, Real]
    metrics: dict[MetricName, Metric]
    reference_rows: dict[str, dict[str, Real]] = Field(description="reference row -> metric -> value")
    groups: dict[str, dict[str, Metric]]
    classes_seen: ClassesSeen | None = None
    notes: tuple[str, ...]
    seconds: Real = Field(ge=0)

    @model_validator(mode="after")
    def _rows_in_range(self) -> Self:
        """Chance, reference rows and the means over classes lie in the ranges of their metrics."""
        rows: dict[str, Mapping[str, float | None]] = {"chance": self.chance, **self.reference_rows}
        if self.classes_seen is not None:
            of = self.classes_seen.metric
            rows |= {f"classes_seen.{end}": {of: getattr(self.classes_seen, end)} for end in ("seen", "unseen")}
        for row, values in rows.items():
            for name, value in values.items():
                metric = self.metrics.get(MetricName(name))
                if metric is not None:
                    _refuse_outside(f"{row}.{name}", value, metric.range)
        return self

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, values: Any) -> Any:  # noqa: ANN401 - whatever a record holds
        """Older records have `reference` for `reference_rows`."""
        if isinstance(values, dict) and "reference" in values:
            return {("reference_rows" if key == "reference" else key): value for key, value in values.items()}
        return values

    @property
    def headline_metrics(self) -> list[MetricName]:
        """The headline, and the same metric of every other patch path: none is chosen for a model."""
        return headline_metrics(self.headline, self.metrics, self.paths)

    def trained_for(self, metric: str) -> bool:
        """Whether a loss trained the patch path that a metric reads; true of a metric without a path."""
        return self.paths.get(MetricName(metric).path, True)

    def same_inputs(self, other: Record) -> bool:
        """Whether the other record would hold the same numbers: all hashes, the seed and the precision are equal."""
        hashes = ("model_hash", "weights_hash", "protocol_hash", "data_hash")
        keys = ("schema_version", *hashes, "seed", "precision", "patch_precision")
        same_encoder = self.encoder_hash in ("", other.encoder_hash)  # older records lack it
        return same_encoder and all(getattr(self, key) == getattr(other, key) for key in keys)


def headline_metrics(headline: str, metrics: Collection[str], paths: Mapping[str, bool]) -> list[MetricName]:
    """The headline, first, and its twins on the other patch paths; empty where no metric has that name.

    Where a model lacks the path that a card names, all its own paths are meant; outputs have no path and one metric.

    >>> headline_metrics("local/miou", {"global/miou": 1, "local/miou": 1, "acc": 1}, {"local": True, "global": True})
    ['local/miou', 'global/miou']
    >>> headline_metrics("local/miou", {"last/miou": 1}, {"last": False}), headline_metrics("local/ap", {"ap": 1}, {})
    (['last/miou'], ['ap'])
    """
    named = MetricName(headline)
    ordered = [named, *(named.at(path) for path in paths or ("",))]
    return [name for name in dict.fromkeys(ordered) if name in metrics]


def _usual_most(unit: Unit, less_is_better: bool) -> float:
    return 1.0 if unit == "percent" and not less_is_better else math.inf


def _message(error: ValidationError) -> str:
    return error.errors()[0]["msg"].removeprefix("Value error, ")


def _refuse_outside(name: str, value: float | None, bounds: tuple[float, float]) -> None:
    """Raise ValueError for a number outside its range."""
    least, most = bounds
    if value is not None and not least <= value <= most:
        raise ValueError(f"{name} {value:g} is outside {least:g} to {most:g}")


def _refuse_misstated(metric: Metric) -> None:
    """Raise ValueError for a unit, direction or range that a statistic of this kind cannot have."""
    if metric.kind in SHARES and (metric.unit, metric.less_is_better, *metric.range) != ("percent", False, 0.0, 1.0):
        raise ValueError(f"kind '{metric.kind}' is a share of 1 of which more is better, and its file says otherwise")
    least, most = metric.range
    if metric.unit == "percent" and not metric.less_is_better and not 0 <= least < most <= 1:
        raise ValueError(f'a range of {least:g} to {most:g} is none of a share: it has the unit "number"')


def _refuse_apart(metric: Metric) -> None:
    """Raise ValueError for a value that its interval cannot be about: that holds the value without its bias.

    The correction goes at most half of the way to an end of the range (`sparc_bench.metrics.estimate.ends`). A
    bootstrap of older records may leave its value out.
    """
    if metric.value is None or metric.low is None or metric.high is None or metric.method == "bootstrap":
        return
    least, most = metric.range
    centre = min(max(metric.value - metric.bias, (metric.value + least) / 2), (metric.value + most) / 2)
    if not metric.low - SINGLE_PRECISION <= centre <= metric.high + SINGLE_PRECISION:
        raise ValueError(
            f"value {metric.value:g} less its bias is outside its interval {metric.low:g} to {metric.high:g}"
        )


def _rounded(value: float) -> float | None:
    return round(value, DIGITS) if math.isfinite(value) else None


def rounded_values(values: Mapping[str, float]) -> dict[str, float]:
    """Finite values, rounded as records hold them."""
    return {name: round(float(value), DIGITS) for name, value in values.items() if math.isfinite(value)}


def model_hash(card: ModelCard) -> str:
    """Hash of the fields of a model card that decide a number: not its title, source or published numbers."""
    return canonical_hash(card.model_dump(mode="json", exclude={"title", "source", "published"}))


def recipe_hash(recipe: Recipe) -> str:
    """Hash of the fields of a recipe that decide its weights, without the seed and without keys at their default."""
    others = {"name", "title", "source", "notes", "cost", "reaches", "attempts", "weights", "sees"}
    others |= {"checkpoint_every", "validate"}
    return canonical_hash(recipe.model_dump(mode="json", exclude=others, exclude_defaults=True))


def record_path(results: Path, model: str, seed: int, task: str, *, sample: bool, limit: int | None) -> Path:
    """Path of the record of a model on a task."""
    folder = results / TESTING if limit is not None else results / SAMPLES if sample else results
    return folder / (model if seed == 0 else f"{model}.seed{seed}") / f"{task}.json"


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically, one metric a line."""
    write_atomic(path, (pretty_json(record.model_dump(mode="json")) + "\n").encode())


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises:
        UserError: the file is missing, damaged or of another schema; the sentence says which command makes it anew.
    """
    again = "run sparc-bench eval on this model and task again, with --force."
    try:
        values = json_value(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"The record {path} cannot be read ({error}): {again}") from None
    if not isinstance(values, dict) or values.get("schema_version") != SCHEMA:
        raise UserError(f"The record {path} is not of schema {SCHEMA}: {again}")
    try:
        return Record.model_validate(values)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        what = f"'{where}': {_message(error)}" if where else _message(error)
        raise UserError(f"The record {path} is damaged ({what}): {again}") from None


def record_files(results: Path) -> list[Path]:
    """All record files under a results folder, without those of --limit, in a fixed order."""
    return sorted({*results.glob("*/*.json"), *(results / SAMPLES).glob("*/*.json")})


def pretty_json(value: Any, depth: int = 0) -> str:  # noqa: ANN401 - anything JSON can hold
    """JSON with two spaces a level, in which a short table of plain values takes one line."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value:
        return line
    members = value.values() if isinstance(value, dict) else value
    if depth > 0 and len(line) <= 200 and not any(isinstance(member, dict | list) for member in members):
        return line
    inner, outer = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        rows = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {pretty_json(v, depth + 1)}" for key, v in value.items()
        ]
        return "{\n" + ",\n".join(rows) + f"\n{outer}}}"
    return "[\n" + ",\n".join(inner + pretty_json(member, depth + 1) for member in value) + f"\n{outer}]"
