"""Karpathy's splits of COCO, Flickr30k and Flickr8k: one JSON file each, with the captions in it.

A split's sentences are taken as the file writes them ("raw"): those of COCO are its annotations' own captions, outer
spaces and all, as in the file of the test split that CLIP_benchmark reads. Photos are used as decoded: an EXIF
orientation is not applied, as in the field's own tools.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pydantic import Field

from sparc_bench.cards.bounds import Count
from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.datasets._coco_columns import PhotoColumns, TextLists
from sparc_bench.datasets._photos import Photos, coco_photo, flickr_photo
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split, read_json, repeated, some
from sparc_bench.files.compact_strings import CompactStrings

TITLE = "Karpathy's splits of COCO, Flickr30k and Flickr8k: photos with about five captions each"
SOURCE = (
    "Karpathy, Fei-Fei 2015 (arXiv:1412.2306), caption_datasets.zip: dataset_coco.json, dataset_flickr30k.json, ..."
)
NEEDS_ON_DISK = (
    "a folder with Karpathy's file and the photos: coco/ with dataset_coco.json, val2014/*.jpg and train2014/*.jpg, or "
    "flickr30k/ with dataset_flickr30k.json and images/*.jpg (the options folder, annotations and images name them)"
)
PROVIDES = frozenset({"captions", "several_captions"})
SPLITS = {
    "train": "train",
    "val": "val",
    "test": "test",
    "restval": "train",
    "train+restval": "train",
    "all": "test",
}
"""restval: the photos of val2014 in neither val nor test, which captioning adds to train; only COCO has them."""


class Options(Strict):
    """Split file and folder of the photos."""

    folder: str = Field(default="coco", description="folder of the data set, under the data root")
    annotations: str = Field(default="dataset_coco.json", description="Karpathy's split file, in the folder")
    images: str = Field(
        default="", description="folder of the photos, in the folder; an image's filepath (val2014) is relative to it"
    )
    captions_per_image: Count = Field(default=0, description="first captions of each image to keep; 0: all")
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")


class _Sentence(CocoRow):
    raw: str


class _Image(CocoRow):
    filename: str
    filepath: str = ""
    split: str
    cocoid: int | None = None
    sentences: list[_Sentence]

    @property
    def id(self) -> str:
        """COCO's image id, or the file's name."""
        return self.filename if self.cocoid is None else str(self.cocoid)

    @property
    def file(self) -> str:
        """Path of the photo within the folder of photos."""
        return str(PurePosixPath(self.filepath, self.filename))

    @property
    def photo(self) -> str:
        """The name that all data sets with the photo share."""
        return flickr_photo(self.filename) if self.cocoid is None else coco_photo(self.filename)


class _SplitFile(CocoRow):
    images: list[_Image]


def read(root: Path | None, split: str, options: Options) -> Examples:
    """One split in the file's order; an example's id is COCO's image id, elsewhere the photo's file name.

    Sentences without a word are left out, so are images without sentences, and `notes` counts both. With split "all" an
    example's tag `split` names its own.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "karpathy")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    content = home.read(options.annotations)
    where = home.path / options.annotations
    file = read_json(_SplitFile, content, where)
    strange = sorted({image.split for image in file.images} - {"train", "val", "test", "restval"})
    if strange:
        raise UserError(f"{where} has the split '{strange[0]}', which no file of Karpathy's has: copy it again.")
    wanted = {split} if split != "train+restval" else {"train", "restval"}
    listed = [image for image in file.images if split == "all" or image.split in wanted]
    if not listed:
        there = ", ".join(dict.fromkeys(image.split for image in file.images)) or "none"
        raise UserError(f"{where} has no image of the split '{split}': choose one that it has ({there}).")
    twice = repeated([image.id for image in listed])
    if twice:
        raise UserError(f"{where} lists image {some(twice)} more than once: take the repeated entries out.")

    folder = home.folder(options.images, options.absent) if options.images else home.path
    captions = {image.id: [row.raw for row in image.sentences if row.raw.strip()] for image in listed}
    captioned = [image for image in listed if captions[image.id]]
    rows = {image.file: len(captions[image.id]) for image in captioned}
    photos = Photos.find(folder, rows, options.absent, f"the photos of {where}: the data set needs {NEEDS_ON_DISK}")
    notes = photos.notes
    blank = sum(len(image.sentences) - len(captions[image.id]) for image in listed)
    if blank:
        notes += (f"{blank} sentences of {options.annotations} hold no word and are left out.",)
    if len(captioned) < len(listed):
        bare = [image.filename for image in listed if not captions[image.id]]
        notes += (f"{len(bare)} of {len(listed)} images of '{split}' have no sentences, left out: {some(bare)}.",)
    present = [image for image in captioned if image.file in photos.sizes]
    first = options.captions_per_image or None
    here = PhotoColumns(photos, (image.id for image in present), (image.file for image in present))
    columns = {
        **here.columns(),
        "captions": TextLists(captions[image.id][:first] for image in present).column(),
        "photo": CompactStrings(image.photo for image in present),
    }
    if split == "all":
        tags = {name: {"split": name} for name in ("train", "val", "test", "restval")}
        columns["tags"] = [tags[image.split] for image in present]
    return Examples(
        dataset="karpathy",
        split=split,
        examples=LazyExamples.of(columns, here.image),
        fingerprint=photos.fingerprint([content], {image.id: image.file for image in present}),
        notes=notes,
    )
