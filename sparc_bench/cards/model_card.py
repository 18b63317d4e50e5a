"""Model cards: models that can be evaluated, `reference_models/NAME.toml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr, model_validator

from sparc_bench.cards.bounds import Count, Real, Share
from sparc_bench.cards.card import Extended, Strict
from sparc_bench.cards.name import ModelName
from sparc_bench.errors import UserError

UNKNOWN = "unknown"
"""Entry of `trained_on` for further training data that is not public."""


def is_photo_list(entry: str) -> bool:
    """Whether an entry of `trained_on` is the path of a photo list, not DATASET:SPLIT."""
    return entry.endswith(".toml")


def dataset_and_split(entry: str) -> tuple[str, str]:
    """Data set and split of an entry DATASET:SPLIT of `trained_on`; one that is missing is empty."""
    dataset, _, split = entry.partition(":")
    return dataset, split


def refuse_without_split(entry: str, where: str) -> None:
    """Raise UserError for an entry of `trained_on` that is neither DATASET:SPLIT nor a photo list."""
    if not is_photo_list(entry) and not all(dataset_and_split(entry)):
        raise UserError(f"{where} '{entry}' names no split: write DATASET:SPLIT.")


class Published(Strict):
    """A published number of a model, to compare evaluations with."""

    task: str
    metric: str
    value: Real
    tolerance: Share
    source: str


class Weights(Extended):
    """Pinned weights of a card: a file on this machine or on the Hugging Face hub."""

    file: str = Field(description="path relative to the card, absolute or with ~; with `hub`: path in that repository")
    sha256: str | None = Field(default=None, description="sha256 of the file; needed without `revision`")
    steps: Count | None = Field(default=None, description="number of training steps")
    hub: str | None = Field(default=None, description="repository on huggingface.co, OWNER/NAME")
    revision: str | None = Field(default=None, description="commit of the repository, 40 hexadecimal digits")
    FORMER: ClassVar[Mapping[str, Any]] = {"hub": None, "revision": None}

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 has 64 digits of 0-9 and a-f, '{self.sha256}' has not: copy it whole")
        if self.hub is None and self.revision is not None:
            raise ValueError("revision is a commit of the hub: name its repository with hub = 'OWNER/NAME'")
        if self.hub is None and self.sha256 is None:
            raise ValueError(f"nothing pins {self.file}: add its sha256 (sha256sum {self.file})")
        if self.hub is not None and self.revision is None and self.sha256 is None:
            raise ValueError(f"nothing pins {self.file}: add its sha256, or the revision (a commit of {self.hub})")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"revision '{self.revision}' can move: give the 40 digits of its commit")
        return self


class ProbeValues(Strict):
    """The table [probe]: values of a correct set-up on the probe of `sparc-bench verify`, which prints the table."""

    version: Count = Field(description="version of the probe")
    image_image: tuple[Real, ...] = Field(default=(), description="cosines of all pairs of the probe's images")
    text_text: tuple[Real, ...] = Field(default=(), description="cosines of all pairs of the probe's texts")
    image_text: tuple[Real, ...] = Field(description="scores of the probe's images with its texts, image by image")
    tolerance: Share = Field(description="largest allowed difference")
    source: str = Field(description="versions, precision and device of the measurement")


def refuse_reference_table(values: Any) -> Any:  # noqa: ANN401 - what pydantic hands over
    """The keys of a card unchanged; raises ValueError for the table [reference], the former name of [probe]."""
    if isinstance(values, Mapping) and "reference" in values:
        raise ValueError("unknown key 'reference': name the table [probe], and its key probe version")
    return values


class ModelCard(Strict):
    """One model that can be evaluated: a third-party checkpoint, or the model that a recipe trained."""

    name: ModelName
    title: str
    family: str = Field(description="checkpoint family, a module of sparc_bench/encoders")
    source: str = Field(description="paper, repository")
    weights: Weights | None = None
    options: dict[str, Any] = Field(default={}, description="options of the encoder family")
    trained_on: tuple[str, ...] = Field(
        default=(),
        description="training data: dataset:split, the path of a photo list (.toml) relative to the card, or `unknown` "
        "for further data that is not public",
    )
    published: tuple[Published, ...] = ()
    probe: ProbeValues | None = Field(
        default=None, exclude=True, description="probe values of sparc-bench verify; decides no number, in no hash"
    )
    _folder: Path = PrivateAttr(default=Path())
    _probe_table = model_validator(mode="before")(refuse_reference_table)

    @property
    def trained_on_here(self) -> tuple[str, ...]:
        """Entries of `trained_on`, with absolute paths of photo lists."""
        return tuple(str(self._folder / each) if is_photo_list(each) else each for each in self.trained_on)
