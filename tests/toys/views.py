"""Views of images at other input sizes."""

from collections.abc import Sequence
from dataclasses import replace

from sparc_bench.images.view import View


def sized(views: Sequence[View], rows: int, columns: int | None = None) -> list[View]:
    """The same views as inputs of `rows` x `columns` pixels; square without `columns`."""
    return [replace(view, rows=rows, columns=rows if columns is None else columns) for view in views]
