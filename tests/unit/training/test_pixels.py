"""Decoded pixels that are not what was written are decoded again, with a line about it."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from sparc_bench.files.cache_folder import cache_folder
from sparc_bench.images.item import ImageItem, open_image_file
from sparc_bench.training.pixels import load_pixels
from sparc_bench.training.run_inputs import read_split
from sparc_bench.two_towers.image_transform import ImageTransform
from sparc_bench.two_towers.open_clip_preprocess import OpenClipPreprocess

TRANSFORM = ImageTransform(OpenClipPreprocess("tiny", (64, 64), "squash"))


@pytest.fixture
def data(tiny, tmp_path):
    """A few scenes, of which the first cannot be read."""
    whole = read_split(tiny, None, val=False)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut")
    first = dataclasses.replace(whole[0], image=ImageItem(whole[0].id, partial(open_image_file, broken)))
    return dataclasses.replace(whole, examples=(first, *whole.examples[1:8]), fingerprint="eight")


def inverted(file):
    array = np.load(file, mmap_mode="r+")
    array[:] = 255 - array
    array.flush()


DAMAGES = {
    "inverted": inverted,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "empty": lambda file: file.write_bytes(b""),
    "noise": lambda file: file.write_bytes(b"\xff" * 99),
    "without checksum": lambda file: file.with_suffix(".crc32").unlink(),
    "odd checksum": lambda file: file.with_suffix(".crc32").write_bytes(b"\xff\xfe"),
    "without names": lambda file: file.with_suffix(".unreadable").unlink(),
    "other names": lambda file: file.with_suffix(".unreadable").write_text("another\n"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pixels_are_decoded_again_and_said(data, damage, capsys):
    plain = load_pixels(data, TRANSFORM, 0.5)
    expected = np.array(plain.array_NSS3)
    assert plain.unreadable == (data[0].id,)
    (file,) = (cache_folder() / "pixels").glob("*.npy")
    DAMAGES[damage](file)
    capsys.readouterr()
    again = load_pixels(data, TRANSFORM, 0.5)
    assert capsys.readouterr().err == f"The decoded pixels {file} are damaged: they are decoded again.\n"
    np.testing.assert_array_equal(again.array_NSS3, expected)
    assert again.unreadable == plain.unreadable
    load_pixels(data, TRANSFORM, 0.5)
    assert capsys.readouterr().err == ""
