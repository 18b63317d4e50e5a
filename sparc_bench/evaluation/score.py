"""From a task and a file of outputs to a record: for systems that fit no encoder.

Detectors, segmenters, rerankers and captioners are scored by the rules that encoders are scored by, and their records
have the same schema; `model_family` is "outputs", and `weights_hash` that of the file.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import BoundTask, bind
from sparc_bench.cards.model_card import ModelCard, is_photo_list
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.dataset import DataSplit
from sparc_bench.encoder import Encoder
from sparc_bench.errors import UserError
from sparc_bench.evaluation import new_record
from sparc_bench.evaluation.counted_encoder import WatchedEncoder
from sparc_bench.evaluation.evaluate import Result, check_counts
from sparc_bench.evaluation.guessing_encoders import ConstantEncoder, RandomEncoder
from sparc_bench.outputs import kinds
from sparc_bench.outputs.scores_encoder import ScoresEncoder
from sparc_bench.outputs.similarity import Similarity
from sparc_bench.protocol import Outcome
from sparc_bench.records.record import OUTPUTS, SAMPLES, record_path, rounded_values


@dataclass
class System:
    """What put the outputs out, as far as a record has room for it (see `new_record.Subject`)."""

    card: ModelCard
    weights_hash: str
    paths: Mapping[str, bool]
    precision: str = "as given"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


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
    odd = [entry for entry in trained_on if not all(entry.partition(":")) and not is_photo_list(entry)]
    if odd:
        raise UserError(f"--trained-on '{odd[0]}' names no split: write DATASET:SPLIT.")
    wanted: Mapping[str, Any] = getattr(task.protocol, "OUTPUTS", {})
    if not wanted:
        raise UserError(
            f"{card.name} takes no outputs, for {card.protocol} asks a model itself: run sparc-bench eval MODEL --task "
            f"{card.name}."
        )
    kind, outputs, sha256 = kinds.read(file, wanted)
    data = task.dataset.read(data_root, card.split, task.data_options)
    check_counts(card, data)
    model = ModelCard(
        name=name,
        title=title or f"outputs of {name}",
        family=OUTPUTS,
        source="another system",
        trained_on=trained_on,
    )
    path = record_path(results, name, 0, card.name, sample=card.sample, limit=None)
    bare = new_record.bare_record(task, data, System(model, sha256, {}), model, 0, None)
    kept = None if force else new_record.kept(path, bare)
    if kept is not None:
        return Result(name, card.name, kept, path, kept=True)
    start = time.perf_counter()
    outcome: Outcome = wanted[kind](outputs, data, task.options)
    seconds = time.perf_counter() - start
    new_record.headline(bare, outcome)
    reference = {row: rounded_values(values) for row, values in outcome.reference.items()}
    if isinstance(outputs, Similarity):
        reference |= _reference_rows(task, data, ScoresEncoder(outputs, data.items), outcome)
    record, outcomes = new_record.finished(bare, task, data, outcome, reference, (), seconds)
    new_record.write(path, record, outcomes)
    return Result(name, card.name, record, path)


def refuse_name(name: str, results: Path) -> None:
    """Raise UserError for a name that cannot be a folder of records, or that a model has."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or ".seed" in name:
        raise UserError(f"'{name}' cannot name a folder of records: give --name letters, digits, '_' and '-'.")
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
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values.get("model_family") if isinstance(values, dict) else None


def _reference_rows(
    task: BoundTask, data: DataSplit, encoder: Encoder, outcome: Outcome
) -> dict[str, dict[str, float]]:
    """What encoders that know nothing score; no towers stand behind a file, so that there is no untrained row."""
    beside = WatchedEncoder(encoder, lambda _: None)
    others: dict[str, Encoder] = {}
    if "constant" in task.card.references and "constant" not in outcome.reference:
        others["constant"] = ConstantEncoder(beside)
    if "random" in task.card.references:
        others["random"] = RandomEncoder(beside)
    rows = {}
    for name, other in others.items():
        scored: Outcome = task.protocol.run(other, data, task.options)
        rows[name] = rounded_values({metric: stat.value for metric, stat in scored.metrics.items()})
    return rows
