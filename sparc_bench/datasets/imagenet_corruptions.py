"""ImageNet-C: the 50,000 photos of ImageNet's val split under corruptions, each in five severities.

An example is a photo; the facet `Corruptions` gives its corrupted versions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets.image_folder import class_folders, left_out, photo_hashes, photo_names
from sparc_bench.errors import UserError
from sparc_bench.facets import Corruptions
from sparc_bench.files.annotations import DataFolder, fingerprint, known_split, some
from sparc_bench.images.item import ImageItem

TITLE = "ImageNet-C: the photos of ImageNet's val split under 15 test and 4 validation corruptions in five severities"
SOURCE = "Hendrycks and Dietterich 2019, Benchmarking Neural Network Robustness (ICLR); Zenodo record 2235448"
NEEDS_ON_DISK = "imagenet-c/CORRUPTION/SEVERITY/WNID/*.JPEG with the severities 1 to 5, as its five archives unpack"
PROVIDES = frozenset({"labels", "corruptions"})
SPLITS = {"test": "test", "validation": "val"}
"""test: the 15 corruptions of mCE; validation: the 4 corruptions for tuning (extra.tar)."""

SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTIONS = {
    "test": (
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ),
    "validation": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}


class Options(Strict):
    """Folder and class names of the data set."""

    folder: str = Field(default="imagenet-c", description="folder of the data set, under the data root")
    classes: str = Field(default="imagenet", description="class list that names the folders of each corrupted set")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos class by class, sorted by name within a class; an id is WNID/FILE.

    `Example.image` is the photo at severity 1 of the split's first corruption, because ImageNet-C has no clean photos;
    `Examples.sizes` counts corruptions, severities and corrupted images.

    Raises:
        UserError: a folder or class is missing, or two corruptions hold different photos.
    """
    known_split(split, SPLITS, "imagenet_corruptions")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    corruptions = CORRUPTIONS[split]
    photos: dict[str, int] = {}
    classes: tuple[str, ...] = ()
    digests: list[bytes] = []
    others: Counter[str] = Counter()
    for corruption in corruptions:
        for severity in SEVERITIES:
            folders = class_folders(home.folder(f"{corruption}/{severity}"), options.classes, "by class")
            label_of: dict[str, int] = {}
            for label, folder in enumerate(folders.values()):
                label_of |= {f"{folder.name}/{name}": label for name in photo_names(folder, others)}
            if not digests:
                photos, classes = label_of, tuple(folders)
            odd = sorted(photos.keys() ^ label_of.keys())
            if odd or not label_of:
                raise UserError(
                    f"{home.path / corruption / str(severity)} has other photos than {corruptions[0]}/1 "
                    f"({some(odd)}): unpack it again."
                )
            names = list(label_of)
            hashes = photo_hashes(home.path / corruption / str(severity), names)
            content = fingerprint([], dict(zip(names, hashes, strict=True)))
            digests.append(hashlib.sha256(content.encode()).digest())
    return Examples(
        dataset="imagenet_corruptions",
        split=split,
        examples=tuple(_example(home.path, path, label, corruptions[0]) for path, label in photos.items()),
        classes=classes,
        fingerprint=fingerprint(digests, {}),
        sizes={
            "corruptions": len(corruptions),
            "severities": len(SEVERITIES),
            "corrupted_images": len(photos) * len(corruptions) * len(SEVERITIES),
        },
        notes=left_out(others),
    )


def _example(home: Path, path: str, label: int, corruption: str) -> Example:
    return Example(
        id=path,
        image=ImageItem(path, _version(home, path, corruption, 1).opener),
        label=label,
        photo=f"imagenet:{Path(path).stem}",
        facets=(Corruptions(partial(_version, home, path)),),
    )


def _version(home: Path, path: str, corruption: str, severity: int) -> ImageItem:
    version = f"{corruption}/{severity}/{path}"
    return ImageItem.file(version, home / version)
