"""JSON of strangers: a value, or one kind of error for whatever is none."""

from __future__ import annotations

import json
from typing import Any


def json_value(text: str | bytes) -> Any:  # noqa: ANN401 - anything JSON can hold
    """The value of a JSON text.

    Raises:
        ValueError: the text is no JSON, its values are nested too deep, or a number has thousands of digits.

    >>> json_value('[1, {"a": null}]')
    [1, {'a': None}]
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None
