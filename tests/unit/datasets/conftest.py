"""Small data sets in their owners' layouts, made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def save_photo(path: Path, colour: tuple[int, int, int] = (200, 30, 30), size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def photo() -> Callable[..., None]:
    return save_photo


@pytest.fixture
def flickr8k_root(tmp_path: Path) -> Path:
    home = tmp_path / "flickr8k"
    names = {"train": ["a.jpg", "b.jpg", "c.jpg"], "dev": ["d.jpg", "e.jpg"], "test": ["f.jpg", "lost.jpg"]}
    lines = ["image,caption"]
    for listed, photos in names.items():
        home.mkdir(exist_ok=True)
        (home / f"Flickr_8k.{listed}Images.txt").write_text("".join(f"{name}\n" for name in photos))
        for name in photos:
            if name != "lost.jpg":
                save_photo(home / "images" / name)
                lines += [f"{name},A plain caption .", f'{name},"Two dogs , one ""red"" , run ."']
    (home / "captions.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


COCO_IMAGES = [
    {"id": 7, "file_name": "seven.jpg", "width": 8, "height": 6, "license": 1},
    {"id": 3, "file_name": "three.jpg", "width": 8, "height": 6},
]


@pytest.fixture
def coco_root(tmp_path: Path) -> Path:
    home = tmp_path / "coco"
    (home / "annotations").mkdir(parents=True)
    for image in COCO_IMAGES:
        save_photo(home / "val2017" / image["file_name"])
    captions = [(3, "three, first"), (7, "seven, first"), (3, "three, second "), (7, "seven, second")]
    write_json(
        home / "annotations/captions_val2017.json",
        images=COCO_IMAGES,
        annotations=[{"id": k, "image_id": image, "caption": text} for k, (image, text) in enumerate(captions)],
    )
    write_json(
        home / "annotations/all.json",
        images=[*COCO_IMAGES, {"id": 9, "file_name": "nine.jpg"}],
        annotations=[
            {"id": k, "image_id": image, "caption": text}
            for k, (image, text) in enumerate([*captions, (9, "nine, first"), (9, "nine, second")])
        ],
    )
    square = [1.0, 1.0, 5.0, 1.0, 5.0, 4.0, 1.0, 4.0]
    write_json(
        home / "annotations/instances_val2017.json",
        images=COCO_IMAGES,
        categories=[{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        annotations=[
            {"id": 1, "image_id": 3, "category_id": 18, "bbox": [1, 1, 4, 3], "area": 12.0, "segmentation": [square]},
            {
                "id": 2,
                "image_id": 3,
                "category_id": 1,
                "bbox": [0, 0, 2, 6],
                "area": 12.0,
                "iscrowd": 1,
                "segmentation": {"counts": [0, 12, 36], "size": [6, 8]},
            },
        ],
    )
    return tmp_path


def write_json(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[dict], object]], None]:
    """Change a JSON file in place."""

    def edit(path: Path, change: Callable[[dict], object]) -> None:
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        write_json(path, **content)

    return edit


@pytest.fixture
def voc_root(tmp_path: Path) -> Path:
    home = tmp_path / "VOCdevkit/VOC2012"
    (home / "ImageSets/Segmentation").mkdir(parents=True)
    (home / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n2007_000001\n\n")
    (home / "SegmentationClass").mkdir()
    values = np.array([[0, 1, 20, 255], [15, 0, 255, 2]], dtype=np.uint8)
    for name in ("2007_000033", "2007_000001"):
        save_photo(home / "JPEGImages" / f"{name}.jpg", size=(4, 2))
        mask = Image.fromarray(values)
        mask.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
        mask.save(home / "SegmentationClass" / f"{name}.png")
    return tmp_path
