"""Exposure of a model to a task's images in training, as records state it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

Kind = Literal["none", "domain", "seen", "unknown"]


@dataclass(frozen=True)
class Exposure:
    """Share of a task's images that a model saw in training; a record holds its text.

    >>> str(Exposure("seen", 12)), Exposure.parse("12 images seen"), Exposure.parse("domain").kind
    ('12 images seen', Exposure(kind='seen', images=12), 'domain')

    Attributes:
        kind: `none` of this data; `domain`: other images of the same data set or source; `seen`: some of the task's
            own images; `unknown`. Only rows of one kind are ranked together.
        images: how many of the task's images were seen.
    """

    kind: Kind
    images: int = 0

    def __post_init__(self) -> None:
        if self.images and self.kind != "seen":
            raise ValueError(f"{self.images} images seen is not an exposure of the kind {self.kind}")

    def __str__(self) -> str:
        return f"{self.images} images seen" if self.kind == "seen" else self.kind

    @classmethod
    def parse(cls, text: str) -> Self:
        """Exposure from its text in a record.

        Raises:
            ValueError: it is of none.
        """
        if text in ("none", "domain", "unknown"):
            return cls(text)  # type: ignore[arg-type]  # mypy does not narrow a str to these three
        found = re.fullmatch(r"(\d+) images seen", text)
        if found is None:
            raise ValueError(f"'{text}' is no exposure: none, domain, unknown or N images seen")
        return cls("seen", int(found[1]))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401
        def parsed(value: Any) -> Any:  # noqa: ANN401 - whatever a file holds
            return cls.parse(value) if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(
            parsed, core_schema.is_instance_schema(cls), serialization=core_schema.to_string_ser_schema()
        )
