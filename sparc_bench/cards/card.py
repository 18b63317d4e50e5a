"""Base of all cards (task, model, recipe ...): a frozen, strict table, read from one TOML file.

An unknown key is an error that names the nearest valid one. A card's name is its file's name, so it has no name key.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from sparc_bench.errors import UserError, nearest

AnyCard = TypeVar("AnyCard", bound="Strict")


class Strict(BaseModel):
    """Base of every card and option table: frozen, unknown keys and numbers that are not finite refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True, allow_inf_nan=False
    )


class Extended(Strict):
    """Base of a table to which keys were added after hashes of it had been recorded.

    At the value that held before a key came, the key is left out of every dump: it enters a hash only where it changes
    something.

    Class attributes:
        FORMER: key -> the value that held before the key came.
    """

    FORMER: ClassVar[Mapping[str, Any]] = {}

    @model_serializer(mode="wrap")
    def _without_former_values(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        former = {key for key, value in self.FORMER.items() if getattr(self, key) == value}
        return {key: value for key, value in values.items() if key not in former}


def parse(cls: type[AnyCard], values: Mapping[str, Any], where: str) -> AnyCard:
    """Card of class `cls` with these `values`; `where` names the file or table in an error.

    Raises:
        UserError: a key is unknown, missing or of another type; the sentence names the nearest valid key.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_sentence(cls, error)}") from None


def _sentence(cls: type[BaseModel], error: ValidationError) -> str:
    # a misspelt key causes two errors, unknown and missing; the unknown key is the more helpful one
    first = next((each for each in error.errors() if each["type"] == "extra_forbidden"), error.errors()[0])
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known: type[BaseModel] = cls
        for part in first["loc"][:-1]:
            annotation = known.model_fields[str(part)].annotation if str(part) in known.model_fields else None
            tables = [each for each in (annotation, *get_args(annotation)) if _is_table(each)]
            if not tables:
                break
            known = tables[0]
        return f"unknown key '{key}': {nearest(str(first['loc'][-1]), known.model_fields)}"
    if not key and first["type"] != "value_error":
        return "it holds no table of keys: mend it."
    if first["type"] == "missing":
        return f"the key '{key}' is missing: add it."
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict) and first["type"] == "value_error":  # an error about a whole table
        return f"[{key}] {message}." if key else f"{message}."
    return f"'{key}' {message[:1].lower()}{message[1:]}, but is {first['input']!r}: change it."


def _is_table(annotation: Any) -> TypeGuard[type[BaseModel]]:  # noqa: ANN401 - any field's annotation
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def is_card_path(name: object) -> bool:
    """Whether the name of a card is the path of its file."""
    return isinstance(name, str) and name.endswith(".toml")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary; raises UserError with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the path.") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is no valid TOML ({error}): mend that line.") from None


def canonical_hash(value: Any) -> str:  # noqa: ANN401 - anything JSON can hold
    """Sha256 of canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
