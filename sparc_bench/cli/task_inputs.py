"""Inputs of a task: the images and the exact texts, prompts filled in, that it asks a model about.

For models that cannot run here (`sparc_bench.encoders.precomputed`): embed these, store the vectors, come back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor

from sparc_bench.blocks.predicted import outcome_of
from sparc_bench.cards.binding import bind
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.expected_counts import check_counts
from sparc_bench.encoder import GIVES
from sparc_bench.encoders.precomputed import stored_id
from sparc_bench.errors import UserError
from sparc_bench.evaluation.guessing_encoders import HasGeometry, RandomEncoder
from sparc_bench.evaluation.pipeline import read_data
from sparc_bench.features import ImageFeatures, TextFeatures
from sparc_bench.files.atomic import write_atomic
from sparc_bench.images.view import View

NOT_STORED = frozenset({"branches", "detect", "propose", "generate"})
"""Abilities that stored embeddings cannot have."""


@dataclass(frozen=True)
class TaskInputs:
    """Images and texts in the order in which they are first asked for, each once.

    Attributes:
        views: by the id that stored vectors have; `view.open()` gives the RGB image, cropped where the task crops.
        texts: exact strings.
    """

    views: Mapping[str, View]
    texts: tuple[str, ...]


def task_inputs(card: TaskCard, data_root: Path | None) -> TaskInputs:
    """Ids and texts that a task asks for, noted while it runs on random vectors.

    Raises:
        UserError: the data are not on disk, or the task reads more of a model than vectors of images and texts.
    """
    task = bind(card)
    odd = sorted(task.protocol.NEEDS & NOT_STORED)
    if odd:
        raise UserError(
            f"{card.name} needs {', '.join(odd)} of a model, which embeddings do not give: leave --out out."
        )
    data = read_data(task, data_root, opens_images=False)
    check_counts(card, data.counts())
    listener = _Listener()
    outcome_of(task.protocol, listener, data, task.options)
    return TaskInputs(listener.views, tuple(listener.strings))


def write_task_inputs(card: TaskCard, data_root: Path | None, out: Path) -> str:
    """Write the ids and texts to a JSON file as a folder of embeddings takes them; returns what it holds, in words.

    Raises:
        UserError: see `task_inputs`; another kind of file, no such folder.
    """
    if out.suffix.lower() != ".json":
        raise UserError(f"What a task needs is a JSON file, which '{out.name}' does not say: end --out in .json.")
    if not out.parent.is_dir():
        raise UserError(f"The folder {out.parent} does not exist: make it, or choose another --out.")
    inputs = task_inputs(card, data_root)
    content = {"task": card.name, "image_ids": list(inputs.views), "texts": list(inputs.texts)}
    write_atomic(out, json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n")
    return f"{len(inputs.views)} images and {len(inputs.texts)} texts"


class _WholeImages:
    """Geometry for random vectors: a grid of two by two patches over the whole of every image."""

    gives = GIVES - NOT_STORED
    paths: ClassVar[Mapping[str, bool]] = {"any": False}
    prompt_ensemble = "embeddings"

    def geometry(self, views: Sequence[View]) -> tuple[tuple[int, int], Tensor]:
        sizes = [view.open().size for view in views]
        areas = [view.in_original((0.0, 0.0, *size)) for view, size in zip(views, sizes, strict=True)]
        return (2, 2), torch.tensor(areas, dtype=torch.float32)


class _Listener(RandomEncoder):
    """Encoder of random vectors that notes the ids and texts it is asked for."""

    def __init__(self) -> None:
        super().__init__(cast("HasGeometry", _WholeImages()))
        self.views: dict[str, View] = {}
        self.strings: dict[str, None] = {}

    def stream(self, groups: Iterable[Sequence[View]], need: frozenset[str]) -> Iterator[ImageFeatures]:
        for views in groups:
            self.views |= {stored_id(view): view for view in views}
            yield from super().stream([views], need)

    def texts(self, texts: Sequence[str], need: frozenset[str]) -> TextFeatures:
        self.strings |= dict.fromkeys(texts)
        return super().texts(texts, need)
