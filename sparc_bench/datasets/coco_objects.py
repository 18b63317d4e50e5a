"""COCO photos with captions, the objects that are in them, and the words that mean these objects.

What CHAIR needs: captions and instances of COCO, and the list of synonyms of Rohrbach et al. 2018. Photos are used as
decoded: an EXIF orientation is not applied, as in the field's own tools.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Computed, Examples, LazyExamples
from sparc_bench.datasets._coco_columns import PhotoColumns, TextLists
from sparc_bench.datasets._coco_json import (
    COCO_SPLITS,
    Category,
    CocoCaptionFile,
    CocoFiles,
    CocoImage,
    ImageId,
    captions_by_image,
    images_by_id,
    read_synonyms,
)
from sparc_bench.datasets._photos import Photos
from sparc_bench.facets import Objects
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split

TITLE = "COCO photos with captions, the objects in them and the words for these objects (CHAIR)"
SOURCE = (
    "Lin et al. 2014 (arXiv:1405.0312), Chen et al. 2015 (arXiv:1504.00325); synonyms: Rohrbach et al. 2018 "
    "(arXiv:1809.02156), LisaAnne/Hallucination data/synonyms.txt"
)
NEEDS_ON_DISK = (
    "coco/ with annotations/captions_SPLIT.json, annotations/instances_SPLIT.json and SPLIT/*.jpg, such as val2017; "
    "chair/synonyms.txt (the options folder, captions, instances, images and synonyms name other places)"
)
PROVIDES = frozenset({"captions", "several_captions", "pool", "objects", "synonyms"})
SPLITS = COCO_SPLITS


class Options(Strict):
    """Files of the data set; `{split}` in a path stands for the split's name."""

    folder: str = Field(default="coco", description="folder of the data set, under the data root")
    captions: str = Field(default="annotations/captions_{split}.json", description="captions file, in the folder")
    instances: str = Field(default="annotations/instances_{split}.json", description="instances file, in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    synonyms: str = Field(default="chair/synonyms.txt", description="CHAIR's list of synonyms, under the data root")
    karpathy: str = Field(
        default="", description="Karpathy's split file, in the folder, to read its test images alone; empty: all images"
    )
    pool: str = Field(
        default="", description="captions file with further candidate captions, of other images; empty: none"
    )
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")


class _Object(CocoRow):
    image_id: ImageId
    category_id: int


class _InstanceFile(CocoRow):
    images: list[CocoImage]
    annotations: list[_Object]
    categories: list[Category]


class _KarpathyImage(CocoRow):
    cocoid: ImageId
    split: str


class _KarpathyFile(CocoRow):
    images: list[_KarpathyImage]


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The images that both files list, in the order of the captions file; ids are COCO's image ids.

    The facet `Objects` says of every class whether an object of it is annotated, crowds and all. `classes` are the
    categories in order of their ids, `synonyms` the listed words without capitals, each for the class at the head of
    its row. The pool is as `coco_captions` has it.

    Raises:
        UserError: something is missing or malformed on disk, or a category has no row of synonyms.
    """
    known_split(split, SPLITS, "coco_objects")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    files = CocoFiles(home, split)
    where = files.path(options.captions)
    file = files.read(CocoCaptionFile, options.captions)
    instances = files.read(_InstanceFile, options.instances)
    synonyms_file = DataFolder(root, NEEDS_ON_DISK).read(options.synonyms)
    files.contents.append(synonyms_file)
    listed = _karpathy_test(files.read(_KarpathyFile, options.karpathy)) if options.karpathy else None

    class_of = {category.id: category.name for category in sorted(instances.categories, key=lambda each: each.id)}
    synonyms = read_synonyms(synonyms_file, root / options.synonyms, list(class_of.values()))
    by_id = images_by_id(file.images, (row.image_id for row in file.annotations), where)
    annotated = images_by_id(instances.images, (), files.path(options.instances))
    wanted = [image_id for image_id in by_id if image_id in annotated and (listed is None or image_id in listed)]
    captions = captions_by_image(file.annotations, wanted)
    objects: dict[ImageId, set[str]] = {image_id: set() for image_id in captions}
    for thing in instances.annotations:
        if thing.image_id in objects and thing.category_id in class_of:
            objects[thing.image_id].add(class_of[thing.category_id])

    folder = home.folder(files.filled(options.images), options.absent)
    rows = {by_id[image_id].file_name: len(texts) for image_id, texts in captions.items() if texts}
    photos = Photos.find(folder, rows, options.absent, f"the photos of {where}: mend the option 'images'")
    present = {
        image_id: by_id[image_id].file_name for image_id in captions if by_id[image_id].file_name in photos.sizes
    }
    pool = files.other_captions(options.pool, present) if options.pool else []
    here = PhotoColumns(photos, present, present.values())
    columns = {
        **here.columns(),
        "captions": TextLists(captions[image_id] for image_id in present).column(),
        "facets": _Annotated(tuple(class_of.values()), [objects[image_id] for image_id in present]).column(),
    }
    return Examples(
        dataset="coco_objects",
        split=split,
        examples=LazyExamples.of(columns, here.image),
        classes=tuple(class_of.values()),
        synonyms=synonyms,
        fingerprint=photos.fingerprint(files.contents, {str(image_id): name for image_id, name in present.items()}),
        pool=tuple(row.caption for row in pool),
        notes=photos.notes,
        sizes={"objects": sum(len(objects[image_id]) for image_id in present), "synonyms": len(synonyms)},
    )


@dataclass(frozen=True)
class _Annotated:
    """The classes, and those of them that have objects in each image."""

    classes: tuple[str, ...]
    present_N: list[set[str]]

    def column(self) -> Computed[tuple[Objects]]:
        return Computed(len(self.present_N), self._facets)

    def _facets(self, at: int) -> tuple[Objects]:
        return (Objects({label: label in self.present_N[at] for label in self.classes}),)


def _karpathy_test(file: _KarpathyFile) -> set[ImageId]:
    """The COCO ids of Karpathy's test images."""
    return {image.cocoid for image in file.images if image.split == "test"}
