"""A view: which rectangle of which image a model looks at, at which input size.

Whole images, crops, sliding windows and proposals are all views.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from PIL import Image

from sparc_bench.errors import UserError
from sparc_bench.images.item import Box, ImageItem


@dataclass(frozen=True)
class View:
    """A rectangle of an image at an input size, not yet opened; picklable.

    Attributes:
        item: the image.
        window: the rectangle, in pixels of the original image, rounded to whole ones; None for the whole image. What
            lies outside of the image is black.
        rows: of the model's input, in pixels; None for the model's own size.
        columns: of the model's input, as `rows`.
    """

    item: ImageItem
    window: Box | None = None
    rows: int | None = None
    columns: int | None = None

    def __post_init__(self) -> None:
        if (self.rows is None) != (self.columns is None):
            raise RuntimeError(f"a view has rows and columns or neither, not {self.rows} and {self.columns}")

    @property
    def id(self) -> str:
        """Name of the image."""
        return self.item.id

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of the model's input; None for the model's own."""
        return None if self.rows is None or self.columns is None else (self.rows, self.columns)

    @property
    def key(self) -> tuple[str, Box | None, tuple[int, int] | None]:
        """Name of the image, rectangle and input size: what tells views of one data set apart."""
        return self.id, self.window, self.size

    def open(self) -> Image.Image:
        """The RGB rectangle.

        Raises:
            UnreadableImageError: the image cannot be decoded.
            UserError: the window has no pixel, or shows nothing of the image.
        """
        image = self.item.open()
        if self.window is None:
            return image
        edges = (left, top, right, bottom) = _rounded(self.window)
        if right <= left or bottom <= top:
            raise UserError(
                f"The window {list(edges)} (left, top, right, bottom) of the image {self.id} has no pixel: give one of "
                "at least 1 x 1."
            )
        if left >= image.width or top >= image.height or right <= 0 or bottom <= 0:
            raise UserError(
                f"The box {list(edges)} (left, top, right, bottom) lies outside of the image {self.id}, which has "
                f"{image.width} x {image.height} pixels: put the photo there that was annotated."
            )
        return image.crop(edges)

    def in_original(self, area: Box) -> Box:
        """A rectangle in pixels of the original image, from one in pixels of what `open` gives."""
        if self.window is None:
            return area
        x, y = _rounded(self.window)[:2]
        return area[0] + x, area[1] + y, area[2] + x, area[3] + y


def _rounded(window: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = window
    return round(left), round(top), round(right), round(bottom)


def in_batches(groups: Iterable[Sequence[View]], most: int) -> Iterator[list[View]]:
    """Batches of at most `most` views, none of which crosses the end of a group; groups are taken one by one."""
    for group in groups:
        for start in range(0, len(group), most):
            yield list(group[start : start + most])


def opened_once(views: Sequence[View]) -> Iterator[View]:
    """The views, where those of one image that follow each other share its decoded pixels."""
    kept: tuple[ImageItem, Image.Image] | None = None
    for place, view in enumerate(views):
        if kept is not None and not _same_image(kept[0], view.item):
            kept = None
        if kept is None and place + 1 < len(views) and _same_image(view.item, views[place + 1].item):
            kept = view.item, view.item.open()
        if kept is None:
            yield view
        else:  # a whole image is copied, since whoever opens it may draw on it
            opener = kept[1].copy if view.window is None else partial(_itself, kept[1])
            yield replace(view, item=replace(view.item, opener=opener))


def _same_image(one: ImageItem, other: ImageItem) -> bool:
    return one is other or (one.content != "" and (one.id, one.content) == (other.id, other.content))


def _itself(image: Image.Image) -> Image.Image:
    return image


class Followed:
    """Groups of views on their way to an encoder, and the views of each batch that comes back.

    Batches come back in order and never cross the end of a group.
    """

    def __init__(self, groups: Iterable[Sequence[View]]) -> None:
        self._groups = groups
        self._under_way: deque[Sequence[View]] = deque()
        self._done = 0

    def __iter__(self) -> Iterator[Sequence[View]]:
        for group in self._groups:
            if len(group):
                self._under_way.append(group)
            yield group

    def batch(self, count: int) -> list[View]:
        """The next `count` views, which have come back."""
        group = self._under_way[0]
        views = list(group[self._done : self._done + count])
        self._done += count
        if self._done >= len(group):
            self._under_way.popleft()
            self._done = 0
        return views
