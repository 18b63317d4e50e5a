"""Names that all data sets with the same photo share, from the names of files as their owners ship them."""

from __future__ import annotations

import re

_COCO_FILE = re.compile(r"(?:.*/)?(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg")
_FLICKR_FILE = re.compile(r"(?:.*/)?(\d+)(?:_[0-9a-z]+)?\.jpg")


def coco_photo(file: str) -> str:
    """The photo of a file of COCO, of the releases of 2014 and 2017 alike; empty for any other file.

    >>> coco_photo("000000000139.jpg"), coco_photo("val2014/COCO_val2014_000000000139.jpg"), coco_photo("139.jpg")
    ('coco:139', 'coco:139', '')
    """
    found = _COCO_FILE.fullmatch(file)
    return f"coco:{int(found[1])}" if found else ""


def flickr_photo(file: str) -> str:
    """The photo of a file of Flickr8k or Flickr30k, which hold Flickr's own photo ids; empty for any other file.

    >>> flickr_photo("1000268201_693b08cb0e.jpg"), flickr_photo("1000268201.jpg"), flickr_photo("dog.jpg")
    ('flickr:1000268201', 'flickr:1000268201', '')
    """
    found = _FLICKR_FILE.fullmatch(file)
    return f"flickr:{found[1]}" if found else ""
