"""COCO's objects and captions as columns, of which examples are made when they are asked for."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sparc_bench.dataset import Computed, Region
from sparc_bench.datasets._coco_json import Annotation, ImageId, Polygons, SizedImage, decode_mask
from sparc_bench.datasets._photos import Photos, coco_photo, refuse_other_sizes
from sparc_bench.facets import Facet, Federated, PixelSize
from sparc_bench.files.annotations import Absent
from sparc_bench.files.compact_strings import CompactStrings
from sparc_bench.files.run_lengths import RunLengths
from sparc_bench.images.item import ImageItem


class PhotoColumns:
    """Ids and files of photos in a folder.

    Attributes:
        ids: of the images, in order.
        files: their files in the folder of the photos.
    """

    def __init__(self, photos: Photos | None, ids: Iterable[str], files: Iterable[str]) -> None:
        self.ids, self.files = CompactStrings(ids), CompactStrings(files)
        self._photos = photos

    def columns(self) -> dict[str, Sequence[Any]]:
        """Ids, and the photos' names across data sets."""
        return {"id": self.ids, "photo": Computed(len(self.ids), self._photo)}

    def image(self, at: int) -> ImageItem:
        """The photo at a position, not yet opened."""
        assert self._photos is not None
        return self._photos.item(self.ids[at], self.files[at])

    def _photo(self, at: int) -> str:
        return coco_photo(self.files[at])


class TextLists:
    """Lists of texts, one list for each image, in the memory of their bytes."""

    def __init__(self, lists: Iterable[Sequence[str]]) -> None:
        self._texts, self._ends = CompactStrings(), array("q")
        for texts in lists:
            self._texts.extend(texts)
            self._ends.append(len(self._texts))

    def column(self) -> Computed[tuple[str, ...]]:
        """The texts of each image."""
        return Computed(len(self._ends), self._of)

    def _of(self, at: int) -> tuple[str, ...]:
        start = self._ends[at - 1] if at else 0
        return tuple(self._texts[index] for index in range(start, self._ends[at]))


class _Segmentations:
    """Polygons of all objects one after the other; run lengths, which few objects have, as they are."""

    def __init__(self) -> None:
        self._points, self._polygon_ends, self._ends = array("d"), array("q"), array("q")
        self._runs: dict[int, RunLengths] = {}

    def append(self, segmentation: RunLengths | Polygons) -> None:
        if isinstance(segmentation, RunLengths):
            self._runs[len(self._ends)] = segmentation
        else:
            for points in segmentation:
                self._points.extend(points)
                self._polygon_ends.append(len(self._points))
        self._ends.append(len(self._polygon_ends))

    def of(self, index: int) -> RunLengths | Polygons:
        if index in self._runs:
            return self._runs[index]
        start = self._ends[index - 1] if index else 0
        return [self._polygon(number) for number in range(start, self._ends[index])]

    def _polygon(self, number: int) -> Any:  # noqa: ANN401 - an array, as `Polygons` holds them
        start = self._polygon_ends[number - 1] if number else 0
        return self._points[start : self._polygon_ends[number]]


class ObjectColumns:
    """Objects of images, grouped by image; most of their memory are the polygons, in 8 bytes a number."""

    def __init__(
        self,
        objects: Iterable[tuple[SizedImage, Sequence[Annotation]]],
        label_of: Mapping[int, int],
        checked: Sequence[Federated] = (),
    ) -> None:
        """Take the objects of each image, in order, and what each was checked for where the data set says so."""
        self._checked = checked
        self._ids, self._owners, self._ends, self._sizes = CompactStrings(), CompactStrings(), array("q"), array("i")
        self._labels, self._crowd = array("i"), bytearray()
        self._boxes, self._areas = array("d"), array("d")
        self._segmentations = _Segmentations()
        for image, rows in objects:
            self._owners.extend([image.id])
            self._sizes.extend((image.width, image.height))
            self._ids.extend(row.id for row in rows)
            for row in rows:
                self._labels.append(label_of[row.category_id])
                self._crowd.append(row.iscrowd)
                self._boxes.extend(row.bbox)
                self._areas.append(row.area)
                self._segmentations.append(row.segmentation)
            self._ends.append(len(self._labels))

    def columns(self) -> dict[str, Sequence[Any]]:
        """Regions and facets of each image."""
        images = len(self._ends)
        return {"regions": Computed(images, self._regions), "facets": Computed(images, self._facets)}

    def _facets(self, at: int) -> tuple[Facet, ...]:
        return (self._size(at), self._checked[at]) if self._checked else (self._size(at),)

    def _size(self, at: int) -> PixelSize:
        return PixelSize(self._sizes[2 * at], self._sizes[2 * at + 1])

    def _regions(self, at: int) -> tuple[Region, ...]:
        start = self._ends[at - 1] if at else 0
        return tuple(self._region(at, index) for index in range(start, self._ends[at]))

    def _region(self, at: int, index: int) -> Region:
        left, top, box_width, box_height = self._boxes[4 * index : 4 * index + 4]
        size, segmentation = self._size(at), self._segmentations.of(index)
        owner = f"image {self._owners[at]} (annotation {self._ids[index]})"
        return Region(
            box=(left, top, left + box_width, top + box_height),
            label=self._labels[index],
            area=self._areas[index],
            mask=partial(decode_mask, segmentation, size.height, size.width, owner) if segmentation else None,
            crowd=bool(self._crowd[index]),
        )


class PhotosWithObjects(NamedTuple):
    """The photos on disk of an instances file, with their objects.

    Attributes:
        photos: the folder of the photos.
        present: id -> image of those that are there.
        columns: ids, photos, regions and facets.
        image: the photo at a position.
    """

    photos: Photos
    present: Mapping[ImageId, SizedImage]
    columns: Mapping[str, Sequence[Any]]
    image: Callable[[int], ImageItem]


def photos_with_objects(
    folder: Path,
    absent: Absent,
    by_id: Mapping[ImageId, SizedImage],
    objects: Mapping[ImageId, Sequence[Annotation]],
    label_of: Mapping[int, int],
    where: Path,
) -> PhotosWithObjects:
    """Photos of an instances file in a folder, and the objects of those that are there.

    Args:
        folder: of the photos.
        absent: whether photos may be absent: refuse or skip.
        by_id: id -> image, in order.
        objects: id -> objects of the image.
        label_of: category id -> label.
        where: the instances file, for errors.

    Raises:
        UserError: photos are missing, or have another size than the file says.
    """
    rows = {image.file_name: len(objects[image_id]) for image_id, image in by_id.items()}
    photos = Photos.find(folder, rows, absent, f"the photos of {where}: mend the option 'images'")
    present = {image_id: image for image_id, image in by_id.items() if image.file_name in photos.sizes}
    refuse_other_sizes({folder / one.file_name: (one.width, one.height) for one in present.values()}, str(where))
    here = PhotoColumns(photos, present, (image.file_name for image in present.values()))
    things = ObjectColumns(((image, objects[image_id]) for image_id, image in present.items()), label_of)
    return PhotosWithObjects(photos, present, {**here.columns(), **things.columns()}, here.image)
