"""Validation of JSON rows; errors name the number of the row."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from sparc_bench.errors import UserError

Rows = TypeVar("Rows")


def validated_rows(adapter: TypeAdapter[Rows], values: Any, where: str, first_row: int = 0) -> Rows:  # noqa: ANN401
    """The rows as the adapter's type; raises UserError that names the first row and value that do not fit."""
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        row, *rest = first["loc"] or ("",)
        place = ".".join(str(part) for part in (row + first_row if isinstance(row, int) else row, *rest))
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}, row {place}: {message[:1].lower()}{message[1:]}: mend it.") from None
