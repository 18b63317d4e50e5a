"""COCO photos with captions, the objects that are in them, and the words that mean these objects.

What CHAIR needs: captions and instances of COCO, and the list of synonyms of Rohrbach et al. 2018. Photos are used as
decoded: an EXIF orientation is not applied, as in the field's own tools.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit, Example
from sparc_bench.datasets._photo_names import coco_photo
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import (
    COCO_SPLITS,
    Absent,
    CocoCaptionFile,
    CocoImage,
    CocoRow,
    DataFolder,
    absent_notes,
    coco_images,
    file_sizes,
    fingerprint,
    known_split,
    read_json,
    some,
)
from sparc_bench.images.item import ImageItem

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
    """Which files to read; `{split}` in a path stands for the split."""

    folder: str = Field(default="coco", description="under the data root")
    captions: str = Field(default="annotations/captions_{split}.json", description="in the folder")
    instances: str = Field(default="annotations/instances_{split}.json", description="in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    synonyms: str = Field(default="chair/synonyms.txt", description="under the data root")
    karpathy: str = Field(default="", description="Karpathy's file in the folder: its test images alone; or none")
    pool: str = Field(default="", description="captions file whose captions of other images fill the pool, or none")
    absent: Absent = Field(default="refuse", description="rows of photos that are not on disk: refuse or skip")


class _Object(CocoRow):
    image_id: int
    category_id: int


class _Category(CocoRow):
    id: int
    name: str


class _InstanceFile(CocoRow):
    images: list[CocoImage]
    annotations: list[_Object]
    categories: list[_Category]


class _KarpathyImage(CocoRow):
    cocoid: int
    split: str


class _KarpathyFile(CocoRow):
    images: list[_KarpathyImage]


def read(root: Path | None, split: str, options: Options) -> DataSplit:
    """The images that both files list, in the order of the captions file; ids are COCO's image ids.

    `facts` says of every class whether an object of it is annotated, crowds and all. `classes` are the categories in
    order of their ids, `synonyms` the listed words in lower case, each for the class at the head of its row. The pool
    is as `coco_captions` has it.

    Raises:
        UserError: something is missing or malformed on disk, or a category has no row of synonyms.
    """
    known_split(split, SPLITS, "coco_objects")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    contents: list[bytes] = []

    def content(name: str, folder: DataFolder = home) -> bytes:
        contents.append(folder.read(name))
        return contents[-1]

    name, instances_name = (path.replace("{split}", split) for path in (options.captions, options.instances))
    file = read_json(CocoCaptionFile, content(name), home.path / name)
    instances = read_json(_InstanceFile, content(instances_name), home.path / instances_name)
    synonyms = _synonyms(content(options.synonyms, DataFolder(root, NEEDS_ON_DISK)), root / options.synonyms)
    listed = _karpathy_test(content(options.karpathy), home.path / options.karpathy) if options.karpathy else None

    class_of = {category.id: category.name for category in sorted(instances.categories, key=lambda each: each.id)}
    strange = [label for label in class_of.values() if synonyms.get(label) != label]
    if strange:
        raise UserError(f"{root / options.synonyms} has no row for {some(strange)}: copy CHAIR's own file.")
    by_id = coco_images(file.images, (row.image_id for row in file.annotations), home.path / name)
    annotated = coco_images(instances.images, (), home.path / instances_name)
    captions: dict[int | str, list[str]] = {
        image_id: [] for image_id in by_id if image_id in annotated and (listed is None or image_id in listed)
    }
    for row in file.annotations:
        if row.image_id in captions and row.caption.strip():
            captions[row.image_id].append(row.caption)
    objects: dict[int | str, set[str]] = {image_id: set() for image_id in captions}
    for thing in instances.annotations:
        if thing.image_id in objects and thing.category_id in class_of:
            objects[thing.image_id].add(class_of[thing.category_id])

    folder = home.folder(options.images.replace("{split}", split))
    rows = {by_id[image_id].file_name: len(texts) for image_id, texts in captions.items() if texts}
    sizes = file_sizes(folder, rows)
    notes = absent_notes(rows, sizes, folder, options.absent)
    present = [image_id for image_id in captions if by_id[image_id].file_name in sizes]
    if not present:
        raise UserError(f"{folder} has none of the photos of {home.path / name}: mend the option 'images'.")
    pool: tuple[str, ...] = ()
    if options.pool:
        here = set(present)
        pool_name = options.pool.replace("{split}", split)
        others = read_json(CocoCaptionFile, content(pool_name), home.path / pool_name).annotations
        pool = tuple(row.caption for row in others if row.image_id not in here and row.caption.strip())
    return DataSplit(
        dataset="coco_objects",
        split=split,
        examples=tuple(
            Example(
                id=str(image_id),
                image=ImageItem.file(str(image_id), folder / by_id[image_id].file_name),
                captions=tuple(captions[image_id]),
                photo=coco_photo(by_id[image_id].file_name),
                facts={label: label in objects[image_id] for label in class_of.values()},
            )
            for image_id in present
        ),
        classes=tuple(class_of.values()),
        synonyms=synonyms,
        fingerprint=fingerprint(contents, {str(image_id): sizes[by_id[image_id].file_name] for image_id in present}),
        pool=pool,
        notes=notes,
        sizes={"objects": sum(len(objects[image_id]) for image_id in present), "synonyms": len(synonyms)},
    )


def _synonyms(content: bytes, where: Path) -> dict[str, str]:
    """Word -> the head of its row; a row is `head, word, two words, ...`."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 text (byte {error.start}): copy CHAIR's own file.") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = [word.strip().lower() for word in line.split(",") if word.strip()]
        for word in words:
            if found.setdefault(word, words[0]) != words[0]:
                raise UserError(f"{where} has '{word}' for {found[word]} and, in line {number}, {words[0]}: keep one.")
    return found


def _karpathy_test(content: bytes, where: Path) -> set[int]:
    """The COCO ids of Karpathy's test images."""
    return {image.cocoid for image in read_json(_KarpathyFile, content, where).images if image.split == "test"}
