"""A file of outputs on a task: the way of `sparc-bench score`, for systems that fit no encoder.

Detectors, segmenters, rerankers and captioners are scored by the rules that encoders are scored by, and their records
have the same schema; `model_family` is "outputs", and `weights_hash` that of the file. Torch is imported after the
name and the file were read.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.model_card import ModelCard, refuse_without_split
from sparc_bench.cards.name import LONGEST_NAME, fault_of_model
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError
from sparc_bench.files.json_text import json_value
from sparc_bench.outputs import reader
from sparc_bench.records.record import OUTPUTS, SAMPLES

if TYPE_CHECKING:
    from sparc_bench.evaluation.pipeline import Result


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
    name = file.resolve().stem if name is None else name
    refuse_name(name, results)
    for entry in trained_on:
        refuse_without_split(entry, "--trained-on")
    wanted: Collection[str] = getattr(bind(card, discovery.declared).protocol, "OUTPUTS", ())
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
    from sparc_bench.evaluation.outputs_system import OutputsSystem
    from sparc_bench.evaluation.pipeline import Pipeline

    task = bind(card)
    system = OutputsSystem(model, outputs, sha256, task.protocol.OUTPUTS[kind])
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
