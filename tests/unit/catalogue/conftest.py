"""A checkout with one small data set in Flickr8k's layout, its card and two tasks that read it."""

import hashlib

import pytest
from PIL import Image

from sparc_bench.cards import discovery

TASK = """
title = "Toy retrieval"
family = "retrieval"
dataset = "flickr8k"
split = "{split}"
protocol = "retrieval"
headline = "text_to_image_r1"
suites = ["toy"]
source = "made up for a test"
[data]
folder = "toy"
[options]
ks = [1]
truth = "own"
ties = "expected"
[expect]
images = {images}
captions = {captions}
"""
CARD = """
title = "Toy photos"
folder = "toy"
readers = ["flickr8k"]
licence = "CC0"
size = "12 kB"
home = "https://example.org/toy"
obtain = "Draw it."
layout = '''
toy/
  captions.txt
  images/
'''
folders = ["images"]
source = "made up for a test"
[files]
"captions.txt" = "{sha256}"
"Flickr_8k.trainImages.txt" = ""
"Flickr_8k.devImages.txt" = ""
"Flickr_8k.testImages.txt" = ""
[splits.train]
images = 2
captions = 10
[splits.val]
images = 14
captions = 70
[splits.test]
images = 12
captions = 60
"""
LISTS = {"train": 2, "dev": 14, "test": 12}


def write_captions(home, each=5):
    rows = [f"{split}{n}.jpg,Caption {k} of {n} ." for split, n in photos() for k in range(each)]
    (home / "captions.txt").write_text("image,caption\n" + "\n".join(rows) + "\n")


def photos():
    return [(split, number) for split, count in LISTS.items() for number in range(count)]


@pytest.fixture
def root(tmp_path):
    """The data root; the data set is in its folder toy."""
    home = tmp_path / "data" / "toy"
    (home / "images").mkdir(parents=True)
    for split, number in photos():
        picture = Image.effect_noise((24, 20), 40 + number).convert("RGB" if number else "L")
        picture.save(home / "images" / f"{split}{number}.jpg", quality=95)
    for split, count in LISTS.items():
        names = "".join(f"{split}{number}.jpg\n" for number in range(count))
        (home / f"Flickr_8k.{split}Images.txt").write_text(names)
    write_captions(home)
    return home.parent


@pytest.fixture
def checkout(tmp_path, root, monkeypatch):
    """The folder `tasks` with the card and the tasks toy_test and toy_val."""
    tasks = tmp_path / "tasks"
    (tasks / "data").mkdir(parents=True)
    digest = hashlib.sha256((root / "toy/captions.txt").read_bytes()).hexdigest()
    (tasks / "data" / "toy.toml").write_text(CARD.replace("{sha256}", digest))
    for split, images in (("test", 12), ("val", 14)):
        options = TASK.format(split=split, images=images, captions=5 * images)
        (tasks / f"toy_{split}.toml").write_text(options)
    monkeypatch.setattr(discovery, "cards_folder", lambda kind: tmp_path / kind)
    return tasks
