"""A file of outputs on a task: the way of `sparc-bench score`, for systems that fit no encoder.

Detectors, segmenters, rerankers and captioners are scored by the rules that encoders are scored by, and their records
have the same schema; `model_family` is "outputs", and `weights_hash` that of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import BoundTask, bind
from sparc_bench.cards.model_card import ModelCard, refuse_without_split
from sparc_bench.cards.name import LONGEST_NAME, fault_of_model
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.evaluation.new_record import Provenance
from sparc_bench.evaluation.pipeline import Pipeline, Result
from sparc_bench.evaluation.scorer import Scorer
from sparc_bench.evaluation.watched_encoder import WatchedEncoder
from sparc_bench.files.json_text import json_value
from sparc_bench.outputs import reader
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Predictions
from sparc_bench.records.record import OUTPUTS, SAMPLES


@dataclass
class _System:
    """Candidate that is another system's outputs (see `sparc_bench.evaluation.pipeline.Candidate`).

    Attributes:
        card: of the system.
        outputs: what its file holds.
        weights_hash: sha256 of the file.
        predictions: reads the outputs as predictions, as the task's protocol has it.
        seed: always the first.
        opens_images: never.
    """

    card: ModelCard
    outputs: Any
    weights_hash: str
    predictions: Callable[[Any, DataSplit, Any], Predictions | Encoder]
    seed: int = 0
    opens_images: bool = False

    def provenance(self, task: BoundTask, data: DataSplit) -> Provenance:  # noqa: ARG002 - the same for every task
        """Provenance of the outputs: the sha256 of their file."""
        return Provenance(self.weights_hash)

    @contextmanager
    def scorer(self, task: BoundTask, data: DataSplit) -> Iterator[Scorer]:
        """The protocol's rule for such a file; guessing encoders can stand beside a similarity matrix alone."""
        beside = None
        if isinstance(self.outputs, Similarity):
            beside = WatchedEncoder(ScoresEncoder(self.outputs, data.views), lambda _: None)
        yield Scorer(
            lambda _store, _ranks: self.predictions(self.outputs, data, task.options), beside, has_towers=False
        )


def score(
    card: TaskCard,
    file: Path,
    name: str | None = None,
    title: str = "",
    trained_on: tuple[str, ...] = (),
    *,
    results: Path = Path("results"),
    data_root: Path | None = None,
    force: bool = False,
) -> Result:
    """Score a file of outputs on a task and write the record.

    Args:
        card: the task.
        file: or folder, of a kind that the task's protocol takes.
        name: of the system; the file's name without its suffix by default.
        title: one line about it.
        trained_on: data sets, as DATASET:SPLIT, that it was trained on; none: not known.
        results: folder of the records.
        data_root: folder with one folder per data set, or None.
        force: replace a record of the same file, task and data.

    Raises:
        UserError: a task that takes no outputs, a file that does not fit, a name that something else has.
    """
    task = bind(card)
    name = file.resolve().stem if name is None else name
    refuse_name(name, results)
    for entry in trained_on:
        refuse_without_split(entry, "--trained-on")
    wanted: Mapping[str, Any] = getattr(task.protocol, "OUTPUTS", {})
    if not wanted:
        raise UserError(
            f"{card.name} takes no outputs, for {card.protocol} asks a model itself: run sparc-bench eval MODEL --task "
            f"{card.name}."
        )
    kind, outputs, sha256 = reader.read(file, wanted)
    model = ModelCard(
        name=name,
        title=title or f"outputs of {name}",
        family=OUTPUTS,
        source="another system",
        trained_on=trained_on,
    )
    system = _System(model, outputs, sha256, wanted[kind])
    return Pipeline(system, results, data_root, force=force).result(task)


def refuse_name(name: str, results: Path) -> None:
    """Raise UserError for a name that cannot be a folder of records, or that a model has."""
    if reason := fault_of_model(name):
        raise UserError(f"--name {name[:LONGEST_NAME]!r} {reason}.")
    if name in discovery.names("models"):
        raise UserError(f"'{name}' is the name of a model card: choose another --name.")
    folder = results / name
    files = sorted([*folder.glob("*"), *(results / SAMPLES / name).glob("*")])
    others = [file for file in files if file.suffix != ".npz" and _family(file) not in (OUTPUTS, None)]
    if others or (folder.is_dir() and files and not any(file.suffix == ".json" for file in files)):
        raise UserError(f"{(others or files)[0]} is not about outputs of '{name}': choose another --name.")


def _family(file: Path) -> str | None:
    """The family that a record says; None where it says none, so that a damaged one can be replaced."""
    try:
        values = json_value(file.read_bytes())
    except (OSError, ValueError):
        return None
    return values.get("model_family") if isinstance(values, dict) else None
